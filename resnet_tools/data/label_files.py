"""A text file that gives the class of each image -> (path, class) pairs.

The common forms, recognised by their content:
- `path,class` with or without a header line; of a class such as `n03995372 85 1 499 272` the WordNet id counts;
- `NAME CLASS`, as Caffe's `val.txt`;
- one class per line, for the images of the folder in byte order: WordNet ids, or names without spaces;
- one number per line, as `ILSVRC2012_validation_ground_truth.txt`. Those numbers are ILSVRC2012_IDs, which are **not**
  in the order of the published nets' outputs (sorted WordNet ids), so they need a list: the WordNet id of number 1 in
  line 1, and so on (the `synsets` of the development kit's `meta.mat`).
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from resnet_tools.data.files import images_below
from resnet_tools.data.folder import listed
from resnet_tools.data.labels import read_lines, read_text
from resnet_tools.errors import DataError, ResnetToolsError

HEADERS = {"path", "file", "filename", "file_name", "image", "imageid", "image_id", "name", "id"}
WORDNET_ID = re.compile(r"n\d{8}\b")
FORMS = "lines of `path,class`, of `NAME CLASS`, or of one class without spaces for each image"


def labelled_files(folder: Path, top: Path, labels: Path, synsets: Sequence[str] | None) -> list[tuple[str, str]]:
    """The images of `folder` that `labels` names, in its order, each with its class.

    Paths count from `folder` or from `top`, the folder above; their endings may be missing.
    synsets: what `read_synsets` gives.
    Raises: DataError that names the file, the line and what does not fit.
    """
    text = _text(labels)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{labels}: is empty; expected {FORMS}")
    if "," in lines[0]:
        return _placed(_table(text, labels), folder, top, labels)
    if all(len(line.split()) == 1 for line in lines):
        return _in_order(lines, folder, labels, synsets)
    pairs = [line.rsplit(None, 1) for line in lines]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2:
            raise DataError(f"{labels}: line {number} is {lines[number - 1]!r:.80}; expected {FORMS}")
    return _placed([(name, label) for name, label in pairs], folder, top, labels)


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except ResnetToolsError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: cannot be read as text: {reason}") from error


def _table(text: str, labels: Path) -> list[tuple[str, str]]:
    """A quoted cell may span several lines."""
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{labels}: cannot be read as CSV: {error}") from error
    rows = [row for row in rows if len(row) > 1 or "".join(row).strip()]
    if rows[0][0].strip().lower() in HEADERS:
        rows = rows[1:]
    for row in rows:
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise DataError(f"{labels}: the line {','.join(row)!r:.80} is no `path,class`")
    return [(row[0].strip(), _class_of(row[1].strip())) for row in rows]


def is_number(text: str) -> bool:
    """Whether a class is a number, of no more digits than a class can have."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _class_of(cell: str) -> str:
    found = WORDNET_ID.match(cell)
    return found[0] if found else cell


def _in_order(lines: Sequence[str], folder: Path, labels: Path, synsets: Sequence[str] | None) -> list[tuple[str, str]]:
    images = images_below(os.fspath(folder))
    if len(images) != len(lines):
        raise DataError(f"{labels}: has {len(lines)} classes, one per line, for the {len(images)} images of {folder}")
    if not all(map(is_number, lines)):
        return list(zip(images, lines, strict=True))
    if synsets is None:
        raise DataError(
            f"{labels}: holds one number per line. If they are ILSVRC2012_IDs, as in "
            "ILSVRC2012_validation_ground_truth.txt, they are not in the order of the net's outputs: give also "
            "--synsets FILE with the WordNet id of number 1 in line 1, and so on (from meta.mat of the development "
            "kit). For other numbers write `path,class` lines, where numbers count the net's outputs from 0"
        )
    for number, line in enumerate(lines, 1):
        if not 1 <= int(line) <= len(synsets):
            raise DataError(f"{labels}: line {number} is {line}; expected 1 to {len(synsets)}, a line of --synsets")
    return [(image, synsets[int(line) - 1]) for image, line in zip(images, lines, strict=True)]


def read_synsets(path: Path) -> list[str]:
    """The WordNet ids that begin the lines of a file: that of ILSVRC2012_ID 1 in line 1, and so on.

    Raises: DataError that names the line.
    """
    try:
        lines = read_lines(path)
    except ResnetToolsError as error:
        raise DataError(str(error)) from error
    ids = [_class_of(line.strip()) for line in lines]
    wrong = next((number for number, name in enumerate(ids, 1) if not WORDNET_ID.fullmatch(name)), None)
    if wrong or len(set(ids)) != len(ids):
        where = f"line {wrong} is {lines[wrong - 1]!r:.60}" if wrong else "an id stands there twice"
        raise DataError(f"{path}: {where}; expected a WordNet id such as n01440764 in each line")
    return ids


def _placed(pairs: Sequence[tuple[str, str]], folder: Path, top: Path, labels: Path) -> list[tuple[str, str]]:
    """The pairs with paths that exist."""
    stems = _by_stem(folder)
    found: dict[str, str] = {}
    missing = []
    for name, label in pairs:
        name = os.path.normpath(name)
        candidates = [os.path.join(folder, name), os.path.join(top, name), stems.get(name, "")]
        path = next((path for path in candidates if os.path.isfile(path)), None)
        if path is None:
            missing.append(name)
        elif path in found:
            raise DataError(f"{labels}: names {name} twice; expected each image once")
        else:
            found[path] = label
    if missing:
        raise DataError(f"{labels}: {len(missing)} of {len(pairs)} images are not in {folder}: {listed(missing)}")
    return list(found.items())


def _by_stem(folder: Path) -> Mapping[str, str]:
    paths = images_below(os.fspath(folder))
    return {os.path.splitext(os.path.relpath(path, folder))[0]: path for path in paths}
