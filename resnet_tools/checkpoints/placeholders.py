"""What stands for the values of a pickle that are no plain ones: inert, as nothing that a file names is looked up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Name:
    """A class or function that the pickle names, as `module.name`; it is never looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Unknown:
    """An object of a class that is not known: its name, the arguments of its making, and what was put into it."""

    __slots__ = ("arguments", "class_name", "items", "state", "table")

    def __init__(self, class_name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.class_name = class_name
        self.arguments = arguments
        self.state: Any = None
        self.table: dict[Any, Any] | None = None
        self.items: list[Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.class_name}>"


class Unordered(list[Any]):
    """The items of a set, in the order of the file, which means nothing."""


def name_of(value: Any) -> str:
    """What a message calls a value, with its article: `a list`, `an object of the class argparse.Namespace`."""
    if isinstance(value, Name):
        return f"the name {value.name:.100}"
    if isinstance(value, Unknown):
        said = value.class_name
        return said if " " in said else f"an object of the class {said:.100}"
    return _NAMES.get(type(value).__name__, f"a {type(value).__name__}")


def tables_of(value: Any) -> Iterator[dict[Any, Any]]:
    """The tables that a value is or that an unknown object has: its items and its attributes."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, Unknown):
        yield from (part for part in (value.table, value.state) if isinstance(part, dict))


_NAMES = {  # of types
    "dict": "a dict",
    "Unordered": "a set",
    "str": "a string",
    "bytes": "a string of bytes",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "NoneType": "nothing (None)",
    "StoredTensor": "a tensor",
    "Storage": "the storage of a tensor",
}
