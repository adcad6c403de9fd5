"""Class names inside a file that holds more than their list -> the names in order, or None if it is no such file.

- JSON lines: a string, a pair or an object such as `{"id": 0, "name": "cat"}` on each line;
- `item { id: 1 name: "cat" }`, as TensorFlow's label maps (.pbtxt);
- the key `names` of a YAML file with other keys, as the data.yaml of a detector;
- a table with a header line, of one column or of more than two;
- strings in quotes, one per line, as in the source of a program.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from typing import Any

from resnet_tools.data.class_structures import (
    LIST_KEYS,
    NUMBER_KEYS,
    PAIR_KEYS,
    bracketed,
    names_of,
    number_of,
    ordered,
)

NAME_COLUMNS = ("display_name", *PAIR_KEYS, "title", "classes", "names", "labels")
NUMBER_COLUMNS = (*NUMBER_KEYS, "idx", "number", "target")
QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)+\",?|'(?:[^'\\]|\\.)+',?")
PBTXT_ITEM = re.compile(r"item\s*\{([^{}]*)\}")
PBTXT_FIELD = re.compile(r"(\w+)\s*:\s*(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|(-?\d+))")
MARKUP = re.compile(r"\s*<(?:!doctype|html|\?xml|svg|head|body)\b", re.IGNORECASE)

Names = tuple[list[str], str]  # and their form


def section_names(text: str) -> Names | None:
    """The names, and what form they were found in. Raises: ValueError that says what does not fit."""
    if MARKUP.match(text):
        raise ValueError("is an HTML or XML page; expected class names")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for read in (_from_json_lines, _from_table, _from_quoted_lines, _from_yaml):
        found = read(lines)
        if found is not None:
            return found
    return _from_pbtxt(text)


def _from_json_lines(lines: Sequence[tuple[int, str]]) -> Names | None:
    if len(lines) < 2 or not (_all_begin(lines, ('{"', '{ "')) or _all_begin(lines, ("[",))):
        return None
    values = []
    for number, line in lines:
        try:
            values.append(json.loads(line))
        except (json.JSONDecodeError, RecursionError):
            if line.startswith("[") or not values:  # names in brackets, or one structure over many lines
                return None
            raise ValueError(f"line {number} is {line!r:.80}; expected a JSON object, as the other lines") from None
    names, form = names_of(values, lambda k: f"line {lines[k][0]}")
    return names, f"JSON lines{form.removeprefix('a list').replace(' of numbered entries', '')}"


def _all_begin(lines: Sequence[tuple[int, str]], signs: tuple[str, ...]) -> bool:
    return all(line.startswith(signs) for _, line in lines)


def _from_quoted_lines(lines: Sequence[tuple[int, str]]) -> Names | None:
    if not lines or not all(QUOTED.fullmatch(line) for _, line in lines):
        return None
    names = [_string(line.removesuffix(",")) for _, line in lines]
    empty = next((number for (number, _), name in zip(lines, names, strict=True) if not name.strip()), None)
    if empty:
        raise ValueError(f"line {empty} has no name in its quotes")
    return names, "strings in quotes, one per line"


def _string(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except json.JSONDecodeError:  # in single quotes, or with escapes that JSON does not have
        return re.sub(r"\\([\\\"'])", r"\1", quoted[1:-1])


def _from_table(lines: Sequence[tuple[int, str]]) -> Names | None:
    """A table whose header names the column of the names; two columns are `class_lists`'s, which also guesses."""
    if len(lines) < 2:
        return None
    header = [cell.strip(" \"'").lower() for cell in re.split(r"[,;\t]", lines[0][1])]
    name = next((header.index(column) for column in NAME_COLUMNS if column in header), None)
    number = next((header.index(column) for column in NUMBER_COLUMNS if column in header), None)
    if name is None or len(header) == 2 or (number is None and len(header) > 1):
        return None
    delimiter = next((sign for sign in "\t;," if sign in lines[0][1]), ",")
    entries = []
    for at, line in lines[1:]:
        # In a single column a delimiter is a part of the name.
        cells = next(csv.reader([line], delimiter=delimiter)) if len(header) > 1 or line[0] == '"' else [line]
        value = number_of(cells[number].strip()) if number is not None and len(cells) == len(header) else None
        if len(cells) != len(header) or not cells[name].strip() or (number is not None and value is None):
            raise ValueError(f"line {at} is {line!r:.80}; expected {len(header)} columns, as in {lines[0][1]!r:.80}")
        entries.append((value, cells[name].strip()))
    if number is None:
        return [entry for _, entry in entries], f"a column below its header {lines[0][1]!r:.40}"
    return ordered(entries, f"the column {header[name]!r:.40} of a table", lambda k: f"line {lines[1 + k][0]}")


def _from_yaml(lines: Sequence[tuple[int, str]]) -> Names | None:
    """The value of a key such as `names` among other keys: a list in brackets, items `- cat`, or `0: cat`."""
    keys = [re.fullmatch(r"(\w+):(?:\s+(.*))?", line) for _, line in lines]
    start = next(
        (k for k, key in enumerate(keys) if key and key[1] in LIST_KEYS and _begins_list(key[2], lines, k)), None
    )
    if start is None:
        return None
    key, below = keys[start], [line for _, line in lines[start + 1 :]]
    value = key[2] if key and key[2] and not key[2].startswith("#") else ""
    form = f"the key `{key[1] if key else ''}` of a YAML file"
    if value:
        return _flow_names("\n".join([value, *below]), f"line {lines[start][0]}", form)
    items = _leading(r"-\s+(?P<name>.*\S)", below)
    if items:
        return [_scalar(item["name"]) for item in items], form
    entries = [
        (int(item["number"]), _scalar(item["name"]))
        for item in _leading(r"(?P<number>-?\d{1,18}):\s+(?P<name>.*\S)", below)
    ]
    names, numbering = ordered(entries, form, lambda k: f"line {lines[start + 1 + k][0]}")
    return names, numbering


def _begins_list(value: str | None, lines: Sequence[tuple[int, str]], k: int) -> bool:
    if value and not value.startswith("#"):
        return value.startswith(("[", "{"))
    # A lone list below its key is read by `class_lists`.
    return k + 1 < len(lines) and bool(re.match(r"-\s+\S|-?\d{1,18}:\s+\S", lines[k + 1][1])) and k > 0


def _leading(pattern: str, lines: Sequence[str]) -> list[re.Match[str]]:
    """The matches of the lines before the first one that does not match."""
    found = []
    for line in lines:
        match = re.fullmatch(pattern, line)
        if match is None:
            break
        found.append(match)
    return found


def _flow_names(text: str, where: str, form: str) -> Names:
    """The names of a YAML list or mapping in brackets at the beginning of the text; quotes may be missing."""
    end = text.find("]" if text[0] == "[" else "}")
    if end < 0:
        raise ValueError(f"{where} begins a list that does not end")
    content = " ".join(text[: end + 1].split("\n"))
    try:
        structure = bracketed(content)
    except ValueError:
        structure = None
    if structure is None:
        cells = [_scalar(cell.strip()) for cell in next(csv.reader([content[1:-1]], skipinitialspace=True))]
        structure = cells if text[0] == "[" else dict(_pair(cell, where) for cell in cells)
    names, numbering = names_of(structure)
    return names, form + "".join(re.findall(", numbered from [01]", numbering))


def _pair(cell: str, where: str) -> tuple[str, str]:
    key, colon, value = cell.partition(":")
    if not colon:
        raise ValueError(f"{where} has the entry {cell!r:.60}; expected `number: name`")
    return key.strip(), _scalar(value.strip())


def _scalar(text: str) -> str:
    """A YAML string without its quotes or the comment after it."""
    if len(text) > 2 and text[0] in "\"'" and text.find(text[0], 1) > 1:
        return text[1 : text.find(text[0], 1)]
    return re.sub(r"\s+#.*", "", text)


def _from_pbtxt(text: str) -> Names | None:
    if not re.match(r"\s*item\s*\{", text):
        return None
    entries: list[tuple[Any, str]] = []
    for number, item in enumerate(PBTXT_ITEM.findall(text), 1):
        found = {field[0]: field[1] or field[2] or field[3] for field in PBTXT_FIELD.findall(item)}
        name = found.get("display_name") or found.get("name")
        if not name or number_of(found.get("id")) is None:
            raise ValueError(f"item {number} is {' '.join(item.split())!r:.80}; expected an id and a name")
        entries.append((number_of(found["id"]), name))
    return ordered(entries, "items with an id and a name", lambda k: f"item {k + 1}") if entries else None
