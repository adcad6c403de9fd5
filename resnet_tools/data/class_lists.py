"""A text that lists class names, in any common form -> the names, in the order of the outputs.

The whole text decides the form, never its first line alone:
- JSON, or the Python literal of a dict or list: `["cat", "dog"]`; `{"0": "cat"}`; `{"cat": 0}`; Keras's class index,
  `{"0": ["n01440764", "tench"]}`; one of these under a key such as `class_names` or `id2label`;
- `0: cat`, `0,cat`, `0<tab>cat`, `0 cat`, and the same with the number after the name; with or without a header line;
- `n01440764 tench, Tinca tinca`: a WordNet id before the name, also after a number;
- a YAML list, `- cat`, or a mapping of numbers, both also below a key of their own such as `names:`;
- JSON lines, a YAML or .pbtxt file and tables with a header, see `class_sections`;
- else one name per line.

Numbers count from 0 or from 1 without gaps; they, not the lines, give the order. A number after or before a space
may be part of a name (boeing 747), so it counts only if the numbers of all lines are 0..K-1 or 1..K.
"""

from __future__ import annotations

import csv
import re
import warnings
from dataclasses import dataclass

from resnet_tools.data.class_sections import section_names
from resnet_tools.data.class_structures import WORDNET, bracketed, names_of, ordered

MAX_LINE = 10_000  # characters of a line with a number; more take time and are no name
MOST = 0.8  # of the lines: if at least this share has one form, the others are mistakes
HEADER_WORDS = {"id", "index", "idx", "number", "class", "label", "name", "class_id", "class_name", "label_id", "title"}


@dataclass(frozen=True)
class Numbering:
    """A form of lines with a number. `sure`: no list of plain names looks like this."""

    text: str
    pattern: re.Pattern[str]
    sure: bool


NUMBER = r"(?P<number>[-+]?[0-9]{1,18}(?:\.0+)?)"
NUMBERINGS = tuple(
    Numbering(text, re.compile(pattern.replace("NUMBER", NUMBER)), sure)
    for text, pattern, sure in (
        ("`number: name`", r"[\"']?NUMBER[\"']?\s*(?:[:=|]|[-=]>)\s*(?P<name>.*)", True),
        ("`number,name`", r"\"?NUMBER\"?\s*[,;]\s*(?P<name>.*)", True),
        ("`number<tab>name`", r"NUMBER *\t\s*(?P<name>.*)", True),
        ("`name: number`", r"(?P<name>.*\S)\s*(?:[:=|]|[-=]>)\s*NUMBER", True),
        ("`name,number`", r"(?P<name>.*\S)\s*[,;]\s*\"?NUMBER\"?", True),
        ("`name<tab>number`", r"(?P<name>.*\S) *\t\s*NUMBER", True),
        ("`number name`", r"NUMBER[.)]?\s+(?P<name>.*\S)", False),
        ("`name number`", r"(?P<name>.*\S)\s+NUMBER", False),
    )
)
SPACED = NUMBERINGS[-2]


def listed_names(text: str) -> tuple[list[str], str]:
    """The names, and what form they were found in: "" for one name per line.

    Raises: ValueError that says which line or entry does not fit, and what was expected there.
    """
    if "\n" not in text.strip("\r\n"):
        text = text.replace("\r", "\n")  # the line ends of old Macs
    found = section_names(text)
    if found is not None:
        return found
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
    comments = next((k for k, line in enumerate(lines) if not line.startswith("#")), 0)
    if comments:
        which = f"the first {comments} lines, which begin" if comments > 1 else "the first line, which begins"
        warnings.warn(f"{which} with #, {'are' if comments > 1 else 'is'} left out", stacklevel=2)
    first, lines = 1 + comments, lines[comments:]
    content = lines
    if len(lines) > 1 and re.fullmatch(r"[^\W\d]\w*:\s*", lines[0]):  # the `names:` of a YAML file
        first, content = first + 1, lines[1:]
    if all(re.match(r"\s*-\s+\S", line) for line in content):
        return [_unquoted(re.sub(r"\A\s*-\s+", "", line).rstrip()) for line in content], "a YAML list"
    # The forms are in the order of how little else they could be; plain names come last.
    for form in NUMBERINGS:
        found = _from_numbered(content, first, form)
        if found:
            return _without_wordnet_ids(*found, first)
    if len(lines) > 1 and all(re.fullmatch(r".*\S,\s*", line) for line in lines[:-1]):
        return [line.rstrip(", \t") or line for line in lines], "lines that end in commas"
    return _without_wordnet_ids(lines, "", first)


def _from_numbered(lines: list[str], first: int, form: Numbering) -> tuple[list[str], str] | None:
    """The names of lines of one form; None if they are of another."""
    if len(lines) > 1 and _is_header(lines[0], form):
        first, lines = first + 1, lines[1:]
    if any(len(line) > MAX_LINE for line in lines):
        return None
    matches = [form.pattern.fullmatch(line.strip()) for line in lines]
    fitting = [match for match in matches if match]
    if len(fitting) < len(lines):
        # Nearly all lines have the form: the others are typing errors, and better reported than taken as names.
        if form.sure and len(lines) > 2 and len(fitting) >= MOST * len(lines):
            wrong = matches.index(None)
            raise ValueError(f"line {first + wrong} is {lines[wrong]!r:.80}; expected {form.text}, as the other lines")
        return None
    entries = [(_whole(match["number"]), _unquoted(match["name"])) for match in fitting]
    if not form.sure and not _is_numbering(entries, form, first):
        return None
    try:
        return ordered(entries, f"lines of {form.text}", lambda k: f"line {first + k}")
    except ValueError as error:
        advice = "" if form.sure else ". If the numbers are parts of the names, write the names as a JSON list"
        raise ValueError(f"{error}{advice}") from None


def _whole(number: str) -> int:
    return int(number.partition(".")[0])  # spreadsheets write 3.0


def _is_numbering(entries: list[tuple[int, str]], form: Numbering, first: int) -> bool:
    """Whether the numbers beside a space are not parts of the names. Those of a numbering with mistakes are not."""
    numbers = [number for number, _ in entries]
    distinct = len({name for _, name in entries})
    if len(entries) < 2 or distinct < 0.9 * len(entries):  # label 0, label 1, ...
        return False
    start = 0 if 0 in numbers else 1
    whole = sorted(numbers) == list(range(start, start + len(entries)))
    if whole or min(numbers) < 0:
        return True  # what is wrong with them becomes an error
    few_gaps = max(numbers) - min(numbers) < 2 * len(entries) and 2 * len(set(numbers)) > len(entries)
    if few_gaps and form is SPACED:
        return True
    if few_gaps and len(entries) > 2:
        wrong = next(k for k, n in enumerate(numbers) if n in numbers[:k] or not start <= n < start + len(entries))
        warnings.warn(
            f"the lines end in numbers, which are not {start} to {start + len(entries) - 1} without gaps (line "
            f"{first + wrong} has {numbers[wrong]}); they are taken as parts of the names",
            stacklevel=2,
        )
    return False


def _is_header(line: str, form: Numbering) -> bool:
    words = [word.strip().strip("\"'").lower() for word in re.split(r"[,;\t]", line)]
    return form.sure and len(words) > 1 and all(word in HEADER_WORDS for word in words)


def _without_wordnet_ids(names: list[str], form: str, first: int) -> tuple[list[str], str]:
    """Names such as `n01440764 tench, Tinca tinca` without the id, if all have one."""
    matches = [WORDNET.fullmatch(name) for name in names]
    fitting = [match for match in matches if match]
    if len(fitting) < len(names):
        if len(names) > 2 and len(fitting) >= MOST * len(names):
            wrong = matches.index(None)
            raise ValueError(f"line {first + wrong} is {names[wrong]!r:.80}; expected `WORDNET-ID name`, as the others")
        return names, form
    ids = [match[1] for match in fitting]
    names = [_unquoted(match[2].rstrip()) for match in fitting]
    numbered = [match for name in names if (match := SPACED.pattern.fullmatch(name))]
    if not form and len(numbered) == len(names):
        return _by_id_and_number(ids, [(_whole(match["number"]), match["name"]) for match in numbered])
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
