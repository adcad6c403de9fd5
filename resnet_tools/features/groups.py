"""Names of images -> the groups that a picture shows in colours: their folders, or what a file says."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnet_tools.data.labels import read_text
from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.text import FORMULA_SIGNS, counted

MOST_GROUPS = 24  # that have a colour of their own
OTHER, UNKNOWN = "(other)", "(no label)"
PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "name", "id")
LABEL_COLUMNS = ("label", "class", "class_name", "target", "category", "group")
FORMS = "lines of `path,label`, with or without a header line, or one label for each row of the features"


def folders(names: Sequence[str]) -> list[str]:
    """The folder of each image, without the folders that all of them are in."""
    parents = [os.path.dirname(name) for name in names]
    try:
        common = os.path.commonpath(set(parents)) if parents else ""
    except ValueError:  # absolute and relative ones
        common = ""
    short = [os.path.relpath(parent, common) if common else parent or "." for parent in parents]
    only = os.path.basename(common) or "."
    return [only if folder == "." and len(set(short)) == 1 else folder for folder in short]


def labels_of(path: Path, names: Sequence[str]) -> list[str]:
    """The label of each image that a file gives, by its path or, if only one image has it, by its file name.

    Of a file with several lines for an image, as `resnet classify --csv` writes it, the first counts.
    Raises: DataError that names the file and what does not fit.
    """
    try:
        text = read_text(path)
    except ResnetToolsError as error:
        raise DataError(str(error)) from error
    try:
        rows = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}; expected {FORMS}") from error
    if not rows:
        raise DataError(f"{path}: is empty; expected {FORMS}")
    if all(len(row) == 1 for row in rows):
        if len(rows) != len(names):
            raise DataError(
                f"{path}: has {counted(len(rows), 'label')}, one per line, for {counted(len(names), 'row')}; "
                f"expected {FORMS}"
            )
        return [row[0].strip() for row in rows]
    found = _by_path(rows, path)
    ends = Counter(os.path.basename(name) for name in names)
    labels = [found.get(name, _by_end(found, name, ends)) for name in names]
    if all(label is None for label in labels):
        raise DataError(f"{path}: names none of the images, such as {names[0]!r:.200}; expected {FORMS}")
    return [UNKNOWN if label is None else label for label in labels]


def _by_path(rows: Sequence[Sequence[str]], path: Path) -> dict[str, str]:
    header = [cell.strip().lower() for cell in rows[0]]
    name_column = next((header.index(name) for name in PATH_COLUMNS if name in header), None)
    label_column = next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
    if name_column is None or label_column is None or name_column == label_column:
        name_column, label_column = 0, 1
    else:
        rows = rows[1:]
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) <= max(name_column, label_column):
            raise DataError(f"{path}: entry {number} is {','.join(row)!r:.80}; expected {FORMS}")
        cell = row[name_column]
        name = cell[1:] if cell.startswith("'") and cell[1:].lstrip(" ").startswith(FORMULA_SIGNS) else cell
        found.setdefault(name.strip(), row[label_column].strip())
    return found


def _by_end(found: dict[str, str], name: str, ends: Counter[str]) -> str | None:
    end = os.path.basename(name)
    return found.get(end) if ends[end] == 1 else None


def largest_groups(groups: Sequence[str], most: int = MOST_GROUPS) -> tuple[list[str], list[int]]:
    """The groups that have a colour, by name, with `(other)` last if there are more; and the number of each image's."""
    counts = Counter(groups)
    kept = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:most])
    numbers = {name: number for number, name in enumerate(kept)}
    listed = [*kept, OTHER] if len(counts) > most else kept
    return listed, [numbers.get(name, len(kept)) for name in groups]
