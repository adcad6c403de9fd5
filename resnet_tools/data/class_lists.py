"""A text that lists class names, in any common form -> the names, in the order of the outputs.

The whole text decides the form, never its first line alone:
- JSON, or the Python literal of a dict or list: `["cat", "dog"]`; `{"0": "cat"}`; `{"cat": 0}`; Keras's class index,
  `{"0": ["n01440764", "tench"]}`; one of these under a key such as `class_names` or `id2label`;
- `0: cat`, `0,cat`, `0<tab>cat`, `0 cat`, and the same with the number after the name; with or without a header line;
- `n01440764 tench, Tinca tinca`: a WordNet id before the name, also behind a number;
- a YAML list, `- cat`, or a mapping of numbers, both also below a key of their own such as `names:`;
- else one name per line.

Numbers count from 0 or from 1 without gaps; they, not the lines, give the order. A number after or before a space
may be part of a name (boeing 747), so it counts only if the numbers of all lines are 0..K-1 or 1..K.
"""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass

from resnet_tools.data.class_structures import WORDNET, bracketed, names_of, ordered

MOST = 0.8  # of the lines: if at least this share has one form, the others are mistakes
HEADER_WORDS = {"id", "index", "idx", "number", "class", "label", "name", "class_id", "class_name", "label_id", "title"}


@dataclass(frozen=True)
class Numbering:
    """A form of lines with a number. `sure`: no list of plain names looks like this."""

    text: str
    pattern: re.Pattern[str]
    sure: bool


NUMBERINGS = tuple(
    Numbering(text, re.compile(pattern), sure)
    for text, pattern, sure in (
        ("`number: name`", r"[\"']?(?P<number>[0-9]{1,9})[\"']?\s*[:=]\s*(?P<name>.*\S)", True),
        ("`number,name`", r"\"?(?P<number>[0-9]{1,9})\"?\s*[,;]\s*(?P<name>.*\S)", True),
        ("`number<tab>name`", r"(?P<number>[0-9]{1,9}) *\t\s*(?P<name>.*\S)", True),
        ("`name: number`", r"(?P<name>.*\S)\s*[:=]\s*(?P<number>[0-9]{1,9})", True),
        ("`name,number`", r"(?P<name>.*\S)\s*[,;]\s*\"?(?P<number>[0-9]{1,9})\"?", True),
        ("`name<tab>number`", r"(?P<name>.*\S) *\t\s*(?P<number>[0-9]{1,9})", True),
        ("`number name`", r"(?P<number>[0-9]{1,9})[.)]?\s+(?P<name>.*\S)", False),
        ("`name number`", r"(?P<name>.*\S)\s+(?P<number>[0-9]{1,9})", False),
    )
)
SPACED = NUMBERINGS[-2]


def listed_names(text: str) -> tuple[list[str], str]:
    """The names, and what form they were found in: "" for one name per line.

    Raises: ValueError that says which line or entry does not fit, and what was expected there.
    """
    structure = bracketed(text)
    if structure is not None:
        return names_of(structure)
    return _from_lines(plain_lines(text))


def plain_lines(text: str) -> list[str]:
    """The lines of a text without empty ones at its end. Raises: ValueError if there is none, or one is empty."""
    lines = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    if lines == [""]:
        raise ValueError("holds no class names; expected one per line")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"line {number} is empty; expected one class name per line")
    return lines


def _from_lines(lines: list[str]) -> tuple[list[str], str]:
    first, content = 1, lines
    if len(lines) > 1 and re.fullmatch(r"\w+:\s*", lines[0]):  # the `names:` of a YAML file
        first, content = 2, lines[1:]
    if all(re.match(r"\s*-\s+\S", line) for line in content):
        return [_unquoted(re.sub(r"\A\s*-\s+", "", line).rstrip()) for line in content], "a YAML list"
    # The forms are in the order of how little else they could be; plain names come last.
    for form in NUMBERINGS:
        found = _from_numbered(content, first, form)
        if found:
            return _without_wordnet_ids(*found)
    return _without_wordnet_ids(lines, "")


def _from_numbered(lines: list[str], first: int, form: Numbering) -> tuple[list[str], str] | None:
    """The names of lines of one form; None if they are of another."""
    if len(lines) > 1 and _is_header(lines[0], form):
        first, lines = first + 1, lines[1:]
    matches = [form.pattern.fullmatch(line.strip()) for line in lines]
    fitting = [match for match in matches if match]
    if len(fitting) < len(lines):
        # Nearly all lines have the form: the others are typing errors, and better reported than taken as names.
        if form.sure and len(lines) > 2 and len(fitting) >= MOST * len(lines):
            wrong = matches.index(None)
            raise ValueError(f"line {first + wrong} is {lines[wrong]!r:.80}; expected {form.text}, as the other lines")
        return None
    entries = [(int(match["number"]), _unquoted(match["name"])) for match in fitting]
    if not form.sure and not _is_numbering(entries, form):
        return None
    return ordered(entries, f"lines of {form.text}", lambda k: f"line {first + k}")


def _is_numbering(entries: list[tuple[int, str]], form: Numbering) -> bool:
    """Whether the numbers beside a space are not parts of the names."""
    numbers = [number for number, _ in entries]
    distinct = len({name for _, name in entries})
    if len(entries) < 2 or distinct < 0.9 * len(entries):  # label 0, label 1, ...
        return False
    whole = sorted(numbers) in (list(range(len(entries))), list(range(1, len(entries) + 1)))
    near = numbers == sorted(numbers) and numbers[0] in (0, 1) and numbers[-1] < 2 * len(entries)
    if not whole and near and len(entries) > 2:
        if form is SPACED:
            return True  # what is wrong with them becomes an error
        warnings.warn(
            f"the lines end in numbers, which are not {numbers[0]} to {numbers[0] + len(entries) - 1} without gaps; "
            "they are taken as parts of the names",
            stacklevel=2,
        )
    return whole


def _is_header(line: str, form: Numbering) -> bool:
    words = [word.strip().strip("\"'").lower() for word in re.split(r"[,;\t]", line)]
    return form.sure and len(words) > 1 and all(word in HEADER_WORDS for word in words)


def _without_wordnet_ids(names: list[str], form: str) -> tuple[list[str], str]:
    """Names such as `n01440764 tench, Tinca tinca` without the id, if all have one."""
    matches = [WORDNET.fullmatch(name) for name in names]
    fitting = [match for match in matches if match]
    if len(fitting) < len(names):
        if len(names) > 2 and len(fitting) >= MOST * len(names):
            wrong = matches.index(None)
            raise ValueError(f"line {wrong + 1} is {names[wrong]!r:.80}; expected `WORDNET-ID name`, as the others")
        return names, form
    ids = [match[1] for match in fitting]
    names = [_unquoted(match[2].rstrip()) for match in fitting]
    numbered = [match for name in names if (match := SPACED.pattern.fullmatch(name))]
    if not form and len(numbered) == len(names):
        return _by_id_and_number(ids, [(int(match["number"]), match["name"]) for match in numbered])
    return names, f"{form}{', ' if form else 'lines of '}`WORDNET-ID name`"


def _by_id_and_number(ids: list[str], entries: list[tuple[int, str]]) -> tuple[list[str], str]:
    """Lines of id, number and name, as the development kit of ImageNet has, whose numbers are not the nets'."""
    names, form = ordered(entries, "lines of `WORDNET-ID number name`", lambda k: f"line {k + 1}")
    by_number = [ids[position] for position, _ in sorted(enumerate(entries), key=lambda pair: pair[1][0])]
    if by_number != sorted(ids):
        raise ValueError(
            "the order of the numbers is not the order of the WordNet ids, so they may be ILSVRC2012_IDs, which are "
            "not the outputs of the published nets; remove the numbers, or the ids"
        )
    return names, form


def _unquoted(name: str) -> str:
    """A name without the quotes of CSV or YAML around it."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        try:
            [[cell]] = csv.reader([name], strict=True)
            return cell.strip() or name
        except (ValueError, csv.Error):
            return name
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == "'" else name
