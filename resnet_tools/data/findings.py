"""What was found wrong with a data set, as plain values and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from resnet_tools.text import printable


@dataclass
class DataFindings:
    """What was found. `counts`: split -> images of each class. `shared`: pairs of the same image in val and in train;
    `repeated`: in train and earlier in train. `small`: images with a side below 32 pixels; `rotated`: with an EXIF
    rotation. `left_out`: files that are left out because of their endings."""

    class_names: list[str]
    counts: dict[str, list[int]]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shared: list[tuple[str, str]] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; counts by the names of the classes."""
        counts = {split: dict(zip(self.class_names, numbers, strict=True)) for split, numbers in self.counts.items()}
        values = asdict(self)
        return {"classes": values.pop("class_names"), **values, "counts": counts}


def findings_text(findings: DataFindings) -> str:
    """The findings as lines of text, with the counts as a tab-separated table."""
    lines = []
    for kind, messages in (("Error", findings.errors), ("Warning", findings.warnings), ("Note", findings.notes)):
        lines += [f"{kind}: {printable(message)}" for message in messages]
    lines.append("\t".join(["class", *findings.counts]))
    lines += [
        "\t".join([printable(name), *map(str, row)])
        for name, *row in zip(findings.class_names, *findings.counts.values(), strict=True)
    ]
    lines.append("\t".join(["all", *(str(sum(numbers)) for numbers in findings.counts.values())]))
    return "\n".join(lines)


def images_with_verb(found: Sequence[object], which: str, one: str, many: str) -> str:
    """`1 image ONE`, or `N images MANY`, with WHICH after the noun."""
    return f"1 image{which} {one}" if len(found) == 1 else f"{len(found)} images{which} {many}"
