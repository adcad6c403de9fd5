"""A list of images -> their names: as `find -print0` writes it, or one per line, also with classes after the names.

A line is what it says if there is such a file; only else quotes around it, the separators of Windows and further
columns are taken for what they are.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator

from resnet_tools.data.label_rows import DELIMITERS, PATHS
from resnet_tools.data.labels import encoding_of


def names_in_list(content: bytes) -> list[str]:
    """The names in a list: separated by null bytes if it holds any, otherwise one per line."""
    encoding = encoding_of(content)
    # Names of one character with null bytes between them look like UTF-16, but for the line ends.
    if encoding.startswith("utf-16") and (content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\n" in content):
        content = content.decode(encoding, "replace").encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        return [os.fsdecode(name) for name in content.split(b"\0") if name.strip()]
    names = [_found(os.fsdecode(line)) for line in content.splitlines() if line.strip()]
    return names[1:] if names and _is_header(names[0]) else names


def _found(line: str) -> str:
    """The file that the line names, in the likeliest of its readings; the line itself if there is none."""
    if not set(line) & {*DELIMITERS, "\\", '"', "'"} or os.path.lexists(line):
        return line
    return next((name for name in _readings(line.strip()) if os.path.lexists(name)), line)


def _readings(line: str) -> Iterator[str]:
    signs = [sign for sign in DELIMITERS if sign in line]
    cells = [cell for sign in signs for cell in (_first_cell(line, sign), line.rpartition(sign)[0])]
    for name in (line, line.strip("\"'"), *cells):
        if name:
            yield name
            yield name.replace("\\", "/")


def _first_cell(line: str, delimiter: str) -> str:
    return next(csv.reader([line], delimiter=delimiter))[0].strip()


def _is_header(line: str) -> bool:
    """Whether a line, which names no file, names columns."""
    words = [_first_cell(line, sign).lower() for sign in DELIMITERS if sign in line]
    return any(word in PATHS for word in words) and not os.path.lexists(line)
