"""Training and validation samples -> what is wrong with them, before a net learns it.

Errors stop a training: no images, an unknown class, an image that cannot be read. Warnings are about what spoils its
result: images that are both in train/ and val/, classes of very different sizes. Notes are good to know. Two images are
the same if their files are, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.folder import find_classes, find_folder, listed
from resnet_tools.data.image import load_image
from resnet_tools.data.loading import load_ahead
from resnet_tools.data.samples import Samples, Source
from resnet_tools.errors import DataError, ImageError
from resnet_tools.text import printable

T = TypeVar("T")
Progress = Callable[[int, list[str]], None]  # called with the number of further images, and messages

MAX_IMBALANCE = 10
SMALL_PX = 32
MAX_COMPARED = 20_000  # files that the quick check reads
CHUNK = 1 << 20


@dataclass
class DataFindings:
    """What was found. `counts`: split -> images of each class. `shared`: pairs of the same image in val and in train;
    `repeated`: in train and earlier in train. `small`: images with a side below 32 pixels."""

    class_names: list[str]
    counts: dict[str, list[int]]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shared: list[tuple[str, str]] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    small: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; counts by the names of the classes."""
        counts = {split: dict(zip(self.class_names, numbers, strict=True)) for split, numbers in self.counts.items()}
        values = asdict(self)
        return {"classes": values.pop("class_names"), **values, "counts": counts}


def find_splits(path: str) -> tuple[Samples, Samples, DataFindings]:
    """The samples in train/ and val/ of a folder, as far as these exist, and what is missing."""
    found = DataFindings([], {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.class_names = _attempt(partial(find_classes, path), found, [])
        nothing = Samples([], [], found.class_names)
        train, val = (
            _attempt(partial(find_folder, path, split, found.class_names), found, nothing)
            if found.class_names
            else nothing
            for split in ("train", "val")
        )
    found.warnings = [str(warning.message) for warning in caught]
    return train, val, found


def _attempt(find: Callable[[], T], found: DataFindings, otherwise: T) -> T:
    try:
        return find()
    except DataError as error:
        found.errors.append(str(error))
        return otherwise


def check_samples(
    train: Samples,
    val: Samples,
    *,
    decode: bool = True,
    workers: int = 2,
    progress: Progress | None = None,
    found: DataFindings | None = None,
) -> DataFindings:
    """What is wrong with the samples, after what was `found` before. workers: threads.

    Without `decode` images are not decoded, and only files of the same size in train and val are read, at most some
    20,000: enough to be quick with a million files.
    """
    counts = {
        split: np.bincount(np.asarray(samples.targets, int), minlength=len(samples.class_names)).tolist()
        for split, samples in (("train", train), ("val", val))
    }
    findings = DataFindings(list(train.class_names), counts)
    if found:
        findings.errors, findings.warnings = list(found.errors), list(found.warnings)
    _check_balance(findings)
    look = partial(_look, decode=decode)
    chosen = _same_sizes(train, val, findings) if not decode else (range(len(train)), range(len(val)))
    seen: dict[bytes, int] = {}
    for position, image in _looked(train, chosen[0], look, workers, findings, progress):
        first = seen.setdefault(image.digest, position)
        if first != position:
            findings.repeated.append((train.name(position), train.name(first)))
            if train.targets[first] != train.targets[position]:
                names = f"{train.name(position)} and {train.name(first)}"
                findings.warnings.append(f"{names} are the same image in two classes")
    for position, image in _looked(val, chosen[1], look, workers, findings, progress):
        if image.digest in seen:
            findings.shared.append((val.name(position), train.name(seen[image.digest])))
    _summarise(findings)
    return findings


def _check_balance(findings: DataFindings) -> None:
    pairs = [(count, name) for name, count in zip(findings.class_names, findings.counts["train"], strict=True) if count]
    if pairs and max(pairs)[0] > MAX_IMBALANCE * min(pairs)[0]:
        (most, largest), (fewest, smallest) = max(pairs), min(pairs)
        findings.warnings.append(
            f"classes of very different sizes: {most} training images of {largest}, {fewest} of {smallest}; "
            "a net learns to prefer the large ones"
        )


def _summarise(findings: DataFindings) -> None:
    for pairs, found, what in (
        (findings.shared, findings.warnings, "val/ are also in train/: the validation error will be too low"),
        (findings.repeated, findings.notes, "train/ occur more than once"),
    ):
        if pairs:
            found.append(f"{len(pairs)} images of {what}: {listed([f'{one} = {other}' for one, other in pairs])}")
    if findings.small:
        findings.notes.append(
            f"{len(findings.small)} images have a side below {SMALL_PX} pixels and are enlarged: "
            f"{listed(findings.small)}"
        )


@dataclass(frozen=True)
class Look:
    digest: bytes
    side_px: int  # the shorter one


def _looked(
    samples: Samples,
    positions: Sequence[int],
    look: Callable[[Source], Look],
    workers: int,
    findings: DataFindings,
    progress: Progress | None,
) -> Iterable[tuple[int, Look]]:
    """The images at the positions that can be read; the others become errors, small ones are noted."""
    images = samples.images
    for position, image in load_ahead(positions, lambda k: look(images[k]), workers=workers, ahead=4 * workers):
        if isinstance(image, ImageError):
            findings.errors.append(str(image))
        else:
            if image.side_px < SMALL_PX:
                findings.small.append(samples.name(position))
            yield position, image
        if progress:
            progress(1, [])


def _look(source: Source, *, decode: bool) -> Look:
    """Raises ImageError."""
    if isinstance(source, np.ndarray):
        return Look(_digest([source.tobytes()]), min(source.shape[:2]))
    side_px = min(load_image(source).shape[:2]) if decode else SMALL_PX
    try:
        with open(source, "rb") as file:
            return Look(_digest(iter(partial(file.read, CHUNK), b"")), side_px)
    except OSError as error:
        raise ImageError(f"{source}: {error.strerror}") from error


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _same_sizes(train: Samples, val: Samples, findings: DataFindings) -> tuple[Sequence[int], Sequence[int]]:
    """The positions in train and in val of files that have as many bytes as one in the other; of many, a part."""
    if isinstance(train.images, np.ndarray) or isinstance(val.images, np.ndarray):
        return range(len(train)), range(len(val))
    train_sizes, val_sizes = _sizes(train, findings), _sizes(val, findings)
    step = 1
    while True:
        in_val = np.arange(0, len(val_sizes), step)
        in_val = in_val[np.isin(val_sizes[in_val], train_sizes[train_sizes >= 0])]
        in_train = np.flatnonzero(np.isin(train_sizes, val_sizes[in_val]))
        if len(in_val) + len(in_train) <= MAX_COMPARED or step > len(val_sizes):
            break
        step *= 2
    if step > 1:
        findings.notes.append(
            f"only one in {step} images of val/ was searched for in train/; `resnet check-data` compares all"
        )
    return in_train.tolist(), in_val.tolist()


def _sizes(samples: Samples, findings: DataFindings) -> NDArray[np.int64]:
    """The size of each file in bytes; -1, and an error among the findings, where there is no file."""
    sizes = np.full(len(samples), -1, np.int64)
    for position, path in enumerate(samples.images):
        try:
            sizes[position] = os.stat(path).st_size
        except OSError as error:
            findings.errors.append(f"{path}: {error.strerror}")
    return sizes


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
