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

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from resnet_tools.data.class_sections import MARKUP
from resnet_tools.data.files import images_below
from resnet_tools.data.label_rows import DELIMITERS, FORMS, WORDNET_ID, Row, class_of, is_number, readings
from resnet_tools.data.labels import read_lines, read_text
from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.text import counted, listed

LOOKED_AT = 1000  # rows, to choose between the readings of a file


def labelled_files(folder: Path, top: Path, labels: Path, synsets: Sequence[str] | None) -> list[tuple[str, str]]:
    """The images of `folder` that `labels` names, in its order, each with its class.

    Paths count from `folder` or from `top`, the folder above; their endings may be missing.
    synsets: what `read_synsets` gives.
    Raises: DataError that names the file, the line and what does not fit.
    """
    text = _text(labels)
    if MARKUP.match(text):
        raise DataError(f"{labels}: is an HTML or XML page; expected {FORMS}")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{labels}: is empty; expected {FORMS}")
    if all(len(line.split()) == 1 and not set(DELIMITERS) & set(line) for line in lines):
        return _in_order(lines, folder, labels, synsets)
    images = Images(folder, top)
    # Of the readings that find equally many images the first counts; without any its error or its paths are reported.
    found = list(readings(text, labels))
    good = [rows for rows in found if not isinstance(rows, DataError)]
    if not good:
        raise next(rows for rows in found if isinstance(rows, DataError))
    return _placed(_whole_numbers(max(good, key=images.count), labels), images, labels)


def _whole_numbers(rows: Sequence[Row], labels: Path) -> Sequence[Row]:
    """The rows with 3 for 3.0, as spreadsheets write it, if all classes are numbers.

    Raises: DataError if a number is negative.
    """
    numbers = [re.fullmatch(r"([-+]?\d{1,9})(?:\.0+)?", label, re.ASCII) for _, label, _ in rows]
    whole = [int(number[1]) for number in numbers if number]
    if len(whole) < len(rows):
        return rows
    if min(whole, default=0) < 0:
        where = rows[whole.index(min(whole))][2]
        raise DataError(f"{labels}: {where} has the class {min(whole)}; class numbers count from 0")
    return [(name, str(number), where) for (name, _, where), number in zip(rows, whole, strict=True)]


def _text(path: Path) -> str:
    try:
        text = read_text(path)
    except ResnetToolsError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: cannot be read as text: {reason}") from error
    text = text if "\n" in text else text.replace("\r", "\n")
    return re.sub(r"(?m)^# .*$", "", text)  # a comment leaves an empty line, so that the numbers of lines stay


def _in_order(lines: Sequence[str], folder: Path, labels: Path, synsets: Sequence[str] | None) -> list[tuple[str, str]]:
    images = images_below(os.fspath(folder))
    if len(images) != len(lines):
        if any(os.path.basename(image) == lines[0] for image in images):
            raise DataError(f"{labels}: line 1 is {lines[0]!r:.80}, an image without a class; expected {FORMS}")
        raise DataError(
            f"{labels}: has {counted(len(lines), 'class')}, one per line, "
            f"for the {counted(len(images), 'image')} of {folder}"
        )
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
    ids = [class_of(line.strip()) for line in lines]
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
        for spelt in map(os.path.normpath, _spellings(name)):
            for path in (os.path.join(self.folder, spelt), os.path.join(self.top, spelt), self.by_stem.get(spelt, "")):
                if os.path.isfile(path):
                    return path
        return None

    def count(self, rows: Sequence[Row]) -> int:
        """How many of the first rows name an image."""
        return sum(self.path_of(name) is not None for name, _, _ in rows[:LOOKED_AT])


def _spellings(name: str) -> Iterator[str]:
    """The name, with the separators of Windows as ours, and with accents as one character or as two (macOS)."""
    for spelt in (name, name.replace("\\", "/")) if "\\" in name else (name,):
        yield spelt
        if not spelt.isascii():
            yield unicodedata.normalize("NFC", spelt)
            yield unicodedata.normalize("NFD", spelt)


def _placed(rows: Sequence[Row], images: Images, labels: Path) -> list[tuple[str, str]]:
    """The rows with paths that exist."""
    found: dict[str, str] = {}
    missing = []
    for name, label, where in rows:
        path = images.path_of(name)
        if path is None:
            missing.append((name, where))
        elif path in found:
            raise DataError(f"{labels}: {where} names {os.path.normpath(name)} twice; expected each image once")
        else:
            found[path] = label
    if missing:
        names = listed([os.path.normpath(name) for name, _ in missing])
        raise DataError(
            f"{labels}: {len(missing)} of {len(rows)} images are not in {images.folder}: {names} (the first in "
            f"{missing[0][1]})"
        )
    return list(found.items())


def _by_stem(folder: Path) -> Mapping[str, str]:
    paths = images_below(os.fspath(folder))
    return {os.path.splitext(os.path.relpath(path, folder))[0]: path for path in paths}
