"""A text file that gives the class of each image -> (path, class) pairs.

The common forms, recognised by their content:
- `path,class`, also with semicolons or tabs between the columns, more columns or the class first, with or without a
  header line; of a class such as `n03995372 85 1 499 272` the WordNet id counts;
- `NAME CLASS`, as Caffe's `val.txt`;
- JSON lines such as `{"file_name": "1.png", "label": "cat"}`;
- one class per line, for the images of the folder in byte order: WordNet ids, or names without spaces;
- one number per line, as `ILSVRC2012_validation_ground_truth.txt`. Those numbers are ILSVRC2012_IDs, which are **not**
  in the order of the published nets' outputs (sorted WordNet ids), so they need a list: the WordNet id of number 1 in
  line 1, and so on (the `synsets` of the development kit's `meta.mat`).

Any separator may also be a part of a name, so the images that exist decide between the readings of a file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from resnet_tools.data.files import images_below
from resnet_tools.data.folder import listed
from resnet_tools.data.labels import read_lines, read_text
from resnet_tools.errors import DataError, ResnetToolsError

# What the columns of lists are called, the surest first.
PATHS = (
    *("path", "filepath", "file_path", "image_path", "filename", "file_name", "image_name", "file", "image", "img"),
    *("imageid", "image_id", "name", "id"),
)
CLASSES = (
    *("class", "label", "class_name", "label_name", "class_id", "label_id", "target", "category", "category_id"),
    *("predictionstring", "species", "y", "name"),
)
DELIMITERS = ",;\t|"
LOOKED_AT = 1000  # rows, to choose between the readings of a file
WORDNET_ID = re.compile(r"n\d{8}\b")
FORMS = "lines of `path,class`, of `NAME CLASS`, or of one class without spaces for each image"


Row = tuple[str, str, int]  # the name of an image, its class, and the line


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
    if all(len(line.split()) == 1 and not set(DELIMITERS) & set(line) for line in lines):
        return _in_order(lines, folder, labels, synsets)
    images = Images(folder, top)
    # Of the readings that find equally many images the first counts; without any its error or its paths are reported.
    readings = list(_readings(text, labels))
    good = [reading for reading in readings if not isinstance(reading, DataError)]
    if not good:
        raise next(reading for reading in readings if isinstance(reading, DataError))
    return _placed(max(good, key=images.count), images, labels)


def _readings(text: str, labels: Path) -> Iterator[list[Row] | DataError]:
    """What the text says in each of the forms, or why it has not that form, the most likely first."""
    if text.lstrip().startswith("{"):
        yield _attempt(_from_json_lines, text, labels)
        return
    first = next(line for line in text.split("\n") if line.strip())
    for sign in sorted((sign for sign in DELIMITERS if sign in first), key=first.index):
        for path_column in (0, 1):
            yield _attempt(partial(_table, delimiter=sign, path_column=path_column), text, labels)
    yield _attempt(_spaced, text, labels)


def _attempt(read: Callable[[str, Path], list[Row]], text: str, labels: Path) -> list[Row] | DataError:
    try:
        return read(text, labels)
    except DataError as error:
        return error


def _text(path: Path) -> str:
    try:
        text = read_text(path)
    except ResnetToolsError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: cannot be read as text: {reason}") from error
    return text if "\n" in text else text.replace("\r", "\n")


def _table(text: str, labels: Path, *, delimiter: str, path_column: int) -> list[Row]:
    """A quoted cell may span several lines. `path_column`: 0 or 1, if no header says which it is."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=delimiter != "\t")
    try:
        table = [(row, reader.line_num) for row in reader]
    except csv.Error as error:
        raise DataError(f"{labels}: line {reader.line_num}: cannot be read as CSV: {error}") from error
    table = [([cell.strip() for cell in row], line) for row, line in table if "".join(row).strip() or len(row) > 1]
    path, label = _columns(table[0][0], path_column)
    if path is None or label is None:
        path, label = path_column, 1 - path_column
    else:
        table = table[1:]
    for row, line in table:
        if len(row) <= max(path, label) or not row[path] or not row[label]:
            raise DataError(f"{labels}: line {line} is {delimiter.join(row)!r:.80}, which is no `path,class`")
    return [(row[path], _class_of(row[label]), line) for row, line in table]


def _columns(header: Sequence[str], path_column: int) -> tuple[int | None, int | None]:
    """The columns of path and class that a header names; None if the line is no header."""
    words = [cell.lstrip("# ").lower() for cell in header]
    path = next((words.index(word) for word in PATHS if word in words), None)
    label = next((words.index(word) for word in CLASSES if word in words and words.index(word) != path), None)
    if path == path_column == 0 and label is None and len(words) > 1:  # the class may be called anything
        label = 1
    return path, label


def _spaced(text: str, labels: Path) -> list[Row]:
    """Lines of a name, which may have spaces, and a class, which has none."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        pair = line.strip().rsplit(None, 1)
        if len(pair) == 1:
            raise DataError(f"{labels}: line {number} is {line.strip()!r:.80}; expected {FORMS}")
        if pair:
            rows.append((_unquoted(pair[0]), _unquoted(pair[1]), number))
    is_header = _columns([name for name in rows[0][:2]], -1)
    return rows[None not in is_header :]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _from_json_lines(text: str, labels: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        keys = list(entry) if isinstance(entry, dict) else []
        path, label = _columns(keys, 0)
        cells = [entry[keys[k]] for k in (path, label) if k is not None]
        if len(cells) != 2 or not all(isinstance(cell, (str, int)) and str(cell).strip() for cell in cells):
            raise DataError(
                f'{labels}: line {number} is {line.strip()!r:.80}; expected a JSON object such as {{"file_name": '
                '"1.png", "label": "cat"}'
            )
        rows.append((str(cells[0]), str(cells[1]), number))
    return rows


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


class Images:
    """The images of a folder by the names that a list may have for them."""

    def __init__(self, folder: Path, top: Path) -> None:
        self.folder, self.top = folder, top
        self.by_stem = _by_stem(folder)

    def path_of(self, name: str) -> str | None:
        """The path of an image, if it is there; also if the name has the separators of Windows, or no ending."""
        for spelt in (name, name.replace("\\", "/")) if "\\" in name else (name,):
            spelt = os.path.normpath(spelt)
            for path in (os.path.join(self.folder, spelt), os.path.join(self.top, spelt), self.by_stem.get(spelt, "")):
                if os.path.isfile(path):
                    return path
        return None

    def count(self, rows: Sequence[Row]) -> int:
        """How many of the first rows name an image."""
        return sum(self.path_of(name) is not None for name, _, _ in rows[:LOOKED_AT])


def _placed(rows: Sequence[Row], images: Images, labels: Path) -> list[tuple[str, str]]:
    """The rows with paths that exist."""
    found: dict[str, str] = {}
    missing = []
    for name, label, line in rows:
        path = images.path_of(name)
        if path is None:
            missing.append((name, line))
        elif path in found:
            raise DataError(f"{labels}: line {line} names {os.path.normpath(name)} twice; expected each image once")
        else:
            found[path] = label
    if missing:
        names = listed([os.path.normpath(name) for name, _ in missing])
        raise DataError(
            f"{labels}: {len(missing)} of {len(rows)} images are not in {images.folder}: {names} (the first in line "
            f"{missing[0][1]})"
        )
    return list(found.items())


def _by_stem(folder: Path) -> Mapping[str, str]:
    paths = images_below(os.fspath(folder))
    return {os.path.splitext(os.path.relpath(path, folder))[0]: path for path in paths}
