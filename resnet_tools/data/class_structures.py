"""A list of class names in brackets, JSON or the Python literal of a dict or list -> the names in order.

`["cat", "dog"]`; `{"0": "cat"}`; `{"cat": 0}`; Keras's class index, `{"0": ["n01440764", "tench"]}`; a list of pairs
like those, or of dicts with a name and perhaps a number; one of these under a key such as `class_names` or `id2label`.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LITERAL_CHARACTERS = 1 << 21  # Python's own parser takes a hundred times the memory of its text
MAX_DEPTH = 50  # of brackets
PAIR_KEYS = ("name", "label", "class_name", "class")
NUMBER_KEYS = ("id", "index", "class_id", "class_index", "label_id")
LIST_KEYS = (
    *("class_names", "label_names", "labels", "names", "classes", "categories"),
    *("id2label", "label2id", "idx_to_class", "class_to_idx"),
)
SEARCH_DEPTH = 3  # of dicts, for one of these keys
WORDNET = re.compile(r"(n\d{8})[\s,:;]+(\S.*)")


def bracketed(text: str) -> list[Any] | dict[Any, Any] | None:
    """The list or dict that the text is, or None if it is lines of text."""
    content = re.sub(r"\A\s*\w+\s*=\s*(?=[\[{])", "", text).strip().rstrip(";")
    closing = {"[": "]", "{": "}"}.get(content[:1])
    if closing is None or not content.endswith(closing):
        return None
    first_line = content.partition("\n")[0]
    if first_line != content and _closes(first_line):  # `[unknown]` and more names
        return None
    try:
        return _checked(json.loads(content, object_pairs_hook=_dict_of))
    except RecursionError:
        raise ValueError("brackets within brackets; expected a list or a dict of class names") from None
    except json.JSONDecodeError as error:
        literal = _literal(content)
        if literal is None:
            raise ValueError(f"line {error.lineno} is neither JSON nor a Python literal: {error.msg}") from None
        _dict_of([(str(key), None) for key in literal.keys])
        return _checked(literal.value)


def _checked(value: Any) -> list[Any] | dict[Any, Any]:
    if not isinstance(value, (list, dict)):  # such as a set
        raise ValueError(f"holds a {type(value).__name__}; expected a list or a dict of class names")
    return value


def _closes(line: str) -> bool:
    return line.rstrip()[-1:] == {"[": "]", "{": "}"}[line[0]]


def _dict_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key in counts if counts[key] > 1)
        raise ValueError(f"the key {twice!r:.80} occurs twice")
    return found


@dataclass(frozen=True)
class Literal:
    value: Any
    keys: Sequence[Any]  # of a dict, all that are written there


def _literal(content: str) -> Literal | None:
    """The value of a Python literal, without running anything; None if the text is no literal."""
    depth = 0
    for sign in re.finditer(r"[\[({]|[\])}]", content):
        depth += 1 if sign[0] in "[({" else -1
        if depth > MAX_DEPTH:
            return None
    if len(content) > MAX_LITERAL_CHARACTERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes in strings
            tree = ast.parse(content, mode="eval").body
            keys = [ast.literal_eval(key) for key in tree.keys if key] if isinstance(tree, ast.Dict) else []
            value = ast.literal_eval(tree)
        strings = sum(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in ast.walk(tree))
        written = sum(
            token.type == tokenize.STRING for token in tokenize.generate_tokens(io.StringIO(content).readline)
        )
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return None
    return Literal(value, keys) if strings == written else None  # Python joins strings that lack a comma between them


def names_of(value: Any, where: Callable[[int], str] | None = None) -> tuple[list[str], str]:
    """The names, and what form they were found in. `where`: how errors call an entry of a list."""
    for _ in range(2):  # as the `names` of the `dataset` of a file
        value = _under_key(value)
    if _is_record(value):
        value = [value]
    if isinstance(value, (list, tuple)):
        return _from_list(list(value), where or (lambda k: f"entry {k + 1} of the list"))
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}; expected a list or a dict of class names")
    if not value:
        raise ValueError("holds no class names")
    return _from_dict(value)


def _under_key(value: Any) -> Any:
    """What is under the first key for class names, in the outermost of the dicts in the value; else the value."""
    level = [value]
    for _ in range(SEARCH_DEPTH):
        level = [item for item in level if isinstance(item, dict)]
        inner = [item[key] for item in level for key in LIST_KEYS if isinstance(item.get(key), (list, dict))]
        if inner:
            return inner[0]
        level = [item for outer in level for item in outer.values()]
    return value


def _is_record(value: Any) -> bool:
    """Whether a dict is one class with its name, not names with numbers."""
    return isinstance(value, dict) and any(
        isinstance(value.get(key), str) and number_of(value[key]) is None for key in PAIR_KEYS
    )


def _from_dict(value: dict[Any, Any]) -> tuple[list[str], str]:
    numbers = [number_of(key) for key in value]
    if None not in numbers:
        entries = [(n, _entry_name(item, f"the entry of {n}")) for n, item in zip(numbers, value.values(), strict=True)]
        return ordered(entries, "a dict of number -> name", lambda k: f"key {list(value)[k]!r}")
    for key, item in value.items():
        if not isinstance(key, str) or number_of(item) is None:
            raise ValueError(
                f"the entry {key!r:.60} has the value {item!r:.60}; expected a dict of numbers and names, or a list"
            )
    entries = [(number_of(item), name) for name, item in value.items()]
    return ordered(entries, "a dict of name -> number", lambda k: f"the number of {list(value)[k]!r:.60}")


def _from_list(items: list[Any], where: Callable[[int], str]) -> tuple[list[str], str]:
    if not items:
        raise ValueError("holds no class names")
    pairs = [_numbered_pair(item) for item in items]
    names = [
        _entry_name(item if pair is None else pair[1], where(k))
        for k, (item, pair) in enumerate(zip(items, pairs, strict=True))
    ]
    numbers = [None if pair is None else pair[0] for pair in pairs]
    if numbers.count(None) == len(numbers):
        return names, "a list"
    if None in numbers:
        raise ValueError(f"{where(numbers.index(None))} has no number; expected one, as others have")
    entries = list(zip(numbers, names, strict=True))
    if all(isinstance(item, dict) for item in items):
        return _by_id(entries, where)
    return ordered(entries, "a list of numbered entries", where)


def _numbered_pair(item: Any) -> tuple[int, Any] | None:
    """Number and name of `{"id": 0, "name": "cat"}`, `[0, "cat"]`, `["cat", 0]`, `{"0": "cat"}` or `{"cat": 0}`."""
    if isinstance(item, dict):
        number = next((number_of(item[key]) for key in NUMBER_KEYS if key in item), None)
        if number is not None or len(item) != 1 or _is_record(item):
            return None if number is None else (number, item)
        item = next(iter(item.items()))
    if isinstance(item, (list, tuple)) and len(item) == 2:
        for value, name in (item, (item[1], item[0])):
            number = number_of(value)
            if number is not None and number_of(name) is None:
                return number, name
    return None


def _by_id(entries: Sequence[tuple[Any, str]], where: Callable[[int], str]) -> tuple[list[str], str]:
    """The names in the order of their ids. Ids of a data set may have gaps, as COCO's have; warns of these."""
    numbers = sorted(number for number, _ in entries)
    start = 0 if 0 in numbers else 1
    expected = list(range(start, start + len(numbers)))
    if numbers == expected or numbers[0] < 0 or len(set(numbers)) < len(numbers):
        return ordered(entries, "a list of numbered entries", where)
    missing = next(n for n in expected if n not in set(numbers))
    warnings.warn(
        f"the ids are {numbers[0]} to {numbers[-1]} with gaps (none is {missing}); the {len(numbers)} names are taken "
        "as the outputs in the order of the ids",
        stacklevel=2,
    )
    return [name for _, name in sorted(entries, key=lambda entry: entry[0])], "a list of numbered entries"


def _entry_name(item: Any, where: str) -> str:
    """The name in an entry: a string, a pair of WordNet id and name, or a dict with a name."""
    if isinstance(item, dict):
        item = next((item[key] for key in PAIR_KEYS if key in item), None)
    if isinstance(item, (list, tuple)) and len(item) == 2 and WORDNET.match(f"{item[0]} x"):
        item = item[1]
    if not isinstance(item, str) or not item.strip():
        raise ValueError(f"{where} is {item!r:.60}; expected a class name")
    return item


def number_of(value: Any) -> int | None:
    """A whole number, also in text; None if the value is none."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d{1,18}(\.0+)?", value, re.ASCII):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def ordered(entries: Sequence[tuple[Any, str]], form: str, where: Callable[[int], str]) -> tuple[list[str], str]:
    """The names in the order of their numbers, which count from 0 or 1. Raises: ValueError."""
    numbers = [number for number, _ in entries]
    start = 1 if 0 not in numbers else 0
    seen: dict[int, int] = {}
    for position, number in enumerate(numbers):
        if number in seen:
            raise ValueError(f"{where(position)} has the number {number} a second time; {where(seen[number])} has it")
        if number < 0:
            raise ValueError(
                f"{where(position)} has the number {number}; expected numbers from 0 or from 1 without gaps"
            )
        if not start <= number < start + len(numbers):
            missing = next(n for n in range(start, start + len(numbers)) if n not in numbers)
            raise ValueError(
                f"{where(position)} has the number {number}, and none has {missing}; expected {len(numbers)} numbers "
                "from 0 or from 1 without gaps"
            )
        if not entries[position][1].strip():
            raise ValueError(f"{where(position)} has the number {number} and no name")
        seen[number] = position
    names = [entries[seen[number]][1] for number in range(start, start + len(numbers))]
    return names, f"{form}, numbered from {start}"
