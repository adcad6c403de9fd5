"""The text of a list of images -> rows of path and class, in each of the forms that it may have.

A comma may separate columns or be a part of a name, and the class may stand first; who knows the images chooses.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from resnet_tools.errors import DataError

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
WORDNET_ID = re.compile(r"n\d{8}\b")
FORMS = "lines of `path,class`, of `NAME CLASS`, or of one class without spaces for each image"

Row = tuple[str, str, str]  # the name of an image, its class, and where that stands


def readings(text: str, labels: Path) -> Iterator[list[Row] | DataError]:
    """What the text says in each of the forms, or why it has not that form, the most likely first."""
    if text.lstrip().startswith(("{", "[")):
        yield _attempt(_from_json, text, labels)
        return
    first = next(line for line in text.split("\n") if line.strip())
    for sign in sorted((sign for sign in DELIMITERS if sign in first), key=first.index):
        for path_column in (0, 1):
            yield _attempt(partial(_table, delimiter=sign, path_column=path_column), text, labels)
    for class_first in (False, True):
        yield _attempt(partial(_spaced, class_first=class_first), text, labels)


def _attempt(read: Callable[[str, Path], list[Row]], text: str, labels: Path) -> list[Row] | DataError:
    try:
        return read(text, labels)
    except DataError as error:
        return error


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
            raise DataError(f"{labels}: line {line} is {delimiter.join(row)!r:.80}, which is not `path,class`")
    return [(row[path], class_of(row[label]), f"line {line}") for row, line in table]


def _columns(header: Sequence[str], path_column: int) -> tuple[int | None, int | None]:
    """The columns of path and class that a header names; None if the line is no header."""
    words = [cell.lstrip("# ").lower() for cell in header]
    path = next((words.index(word) for word in PATHS if word in words), None)
    label = next((words.index(word) for word in CLASSES if word in words and words.index(word) != path), None)
    if path == path_column == 0 and label is None and len(words) > 1:  # the class may be called anything
        label = 1
    return path, label


def _spaced(text: str, labels: Path, *, class_first: bool) -> list[Row]:
    """Lines of a name, which may have spaces, and a class, which has none."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        pair = line.strip().split(None, 1) if class_first else line.strip().rsplit(None, 1)
        if len(pair) == 1:
            raise DataError(f"{labels}: line {number} is {line.strip()!r:.80}; expected {FORMS}")
        if pair:
            name, label = reversed(pair) if class_first else pair
            rows.append((_unquoted(name), _unquoted(label), f"line {number}"))
    is_header = None not in _columns(rows[0][:2], -1) if rows else False
    return rows[is_header:]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _from_json(text: str, labels: Path) -> list[Row]:
    rows = []
    for where, entry in _json_entries(text):
        cells = _cells_of(entry)
        if cells is None or not all(isinstance(cell, (str, int)) and str(cell).strip() for cell in cells):
            raise DataError(
                f'{labels}: {where} is {entry!r:.80}; expected a JSON object such as {{"file_name": "1.png", '
                '"label": "cat"}'
            )
        rows.append((str(cells[0]), class_of(str(cells[1])), where))
    return rows


def _json_entries(text: str) -> Iterator[tuple[str, Any]]:
    """The entries of one list or dict, or else of each line; what is not JSON stays text."""
    whole = _json(text)
    if isinstance(whole, dict) and not any(key.lower() in PATHS for key in whole):
        whole = list(whole.items())
    if isinstance(whole, list):
        yield from ((f"entry {number}", entry) for number, entry in enumerate(whole, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _json(line)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()


def _cells_of(entry: Any) -> Sequence[Any] | None:
    """Path and class of a pair, or of an object whose keys name them."""
    if isinstance(entry, (list, tuple)) and len(entry) == 2:
        return entry
    if not isinstance(entry, dict):
        return None
    keys = list(entry)
    path, label = _columns(keys, -1)
    return None if path is None or label is None else (entry[keys[path]], entry[keys[label]])


def is_number(text: str) -> bool:
    """Whether a class is a number, of no more digits than a class can have."""
    return text.isascii() and text.isdigit() and len(text) < 10


def class_of(cell: str) -> str:
    found = WORDNET_ID.match(cell)
    return found[0] if found else cell
