"""A pickle -> plain values, without running anything that it names.

A pickle is a program for a small stack machine that may call any function. Here its instructions only build dicts,
lists, tuples, strings, bytes and numbers. What a call means is left to the caller's `build`; a class or function that
`build` does not know becomes an `Unknown`: inert, with whatever the pickle put into it.

`data/pickled` is another machine on purpose. It follows the few instructions of one kind of file and refuses all else
at its byte; here, whatever a trainer pickles beside its weights must be passed over.

Source: Python's `pickletools`, which also splits the bytes into instructions.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from typing import Any

from resnet_tools.checkpoints.placeholders import Name, Unknown, Unordered, name_of
from resnet_tools.errors import CheckpointError

MAX_INSTRUCTIONS = 20_000_000  # a net of 1202 layers with its optimizer takes 200,000
MAX_KEY = 1 << 60  # larger numbers as keys can be chosen so that their hashes are all the same
MAX_KEY_PARTS = 16
MAX_DIGITS_BYTES = 512  # of a whole number

Build = Callable[[str, tuple[Any, ...]], Any]
Persistent = Callable[[Any], Any]


def read_pickle(stream: Any, build: Build, persistent: Persistent) -> Any:
    """The value that one pickle makes; the stream is left after it.

    stream: bytes to `read` and `readline`.
    build: the name of a class or function and its arguments -> a value, or NotImplemented for what it does not know.
    persistent: what the pickle calls by a persistent id -> a value.
    Raises: CheckpointError if it is no pickle, is cut, or is one that no Python program writes.
    """
    machine = _Machine(build, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise CheckpointError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions")
            machine.step(opcode.name, argument)
        return machine.pop()
    except CheckpointError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        reason = "it ends too early" if _is_cut(error) else str(error) or type(error).__name__
        raise CheckpointError(
            f"not a whole PyTorch file (its pickle is damaged: {reason:.200}); is the download complete?"
        ) from error


def _is_cut(error: Exception) -> bool:
    """Whether pickletools found the end of the file inside an instruction."""
    return (
        isinstance(error, ValueError)
        and re.search(r"not enough data|only \d+ remain|exhausted", str(error)) is not None
    )


class _Machine:
    """The stack, the stacks that wait below a MARK, and the memo."""

    def __init__(self, build: Build, persistent: Persistent) -> None:
        self.build, self.persistent = build, persistent
        self.stack: list[Any] = []
        self.waiting: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.stack.append(_plain(argument))
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _IGNORED:
            raise CheckpointError(f"its pickle has the instruction {name}, which PyTorch files do not have")

    def pop(self) -> Any:
        return self.stack.pop()

    def popped(self) -> list[Any]:
        """What was pushed since the last MARK."""
        items, self.stack = self.stack, self.waiting.pop()
        return items

    def mark(self, _: Any) -> None:
        self.waiting.append(self.stack)
        self.stack = []

    def pop_one(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.popped()

    def pop_mark(self, _: Any) -> None:
        self.popped()

    def tuple_of(self, count: int) -> None:
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError("an empty stack")
        self.stack[-count:] = [tuple(items)]

    def global_name(self, argument: str) -> None:
        self.stack.append(Name(argument.replace(" ", ".", 1)))

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(Name(f"{module:.200}.{name:.200}"))

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(self.call(function, arguments))

    def new_with_keywords(self, _: Any) -> None:
        self.pop()
        self.reduce(None)

    def inst(self, argument: str) -> None:
        self.stack.append(self.call(Name(argument.replace(" ", ".", 1)), tuple(self.popped())))

    def obj(self, _: Any) -> None:
        function, *arguments = self.popped()
        self.stack.append(self.call(function, tuple(arguments)))

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            called = function.class_name if isinstance(function, Unknown) else name_of(function)
            return Unknown(called, arguments if isinstance(arguments, tuple) else ())
        if function.name in _RECONSTRUCTORS and arguments and isinstance(arguments[0], Name):
            function, arguments = arguments[0], ()
        made = self.build(function.name, arguments)
        return Unknown(function.name, arguments) if made is NotImplemented else made

    def build_state(self, _: Any) -> None:
        state, made = self.pop(), self.stack[-1]
        if isinstance(made, Unknown):
            made.state = state

    def append(self, _: Any) -> None:
        item = self.pop()
        self.extend(self.stack[-1], [item])

    def appends(self, _: Any) -> None:
        items = self.popped()
        self.extend(self.stack[-1], items)

    def extend(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Unknown):
            target.items = target.items or []
            target = target.items
        if not isinstance(target, list):
            raise TypeError(f"items for {name_of(target)}")
        target.extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.update(self.stack[-1], [key, value])

    def set_items(self, _: Any) -> None:
        items = self.popped()
        self.update(self.stack[-1], items)

    def update(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Unknown):
            target.table = target.table or {}
            target = target.table
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError(f"keys and values for {name_of(target)}")
        for at in range(0, len(items), 2):
            target[_key(items[at])] = items[at + 1]

    def dict_of(self, _: Any) -> None:
        items = self.popped()
        self.stack.append({})
        self.update(self.stack[-1], items)


def _plain(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 8 * MAX_DIGITS_BYTES:
        return Unknown("a whole number of too many digits")
    return value


def _key(value: Any) -> Any:
    """A key that can be hashed in little time, whatever the file holds."""
    if isinstance(value, tuple) and len(value) <= MAX_KEY_PARTS and all(isinstance(part, str) for part in value):
        return value
    if isinstance(value, (int, float)) and not abs(value) < MAX_KEY:
        return Unknown("a number as a key")
    if value is None or isinstance(value, (str, bytes, int, float, Name, Unknown)):
        return value
    return Unknown(f"{name_of(value)} as a key")


_IGNORED = {"PROTO", "FRAME", "STOP"}
_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_RECONSTRUCTORS = {"copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__"}
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": Unordered,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop_one,
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "TUPLE": lambda machine, _: _push_all(machine, tuple),
    "LIST": lambda machine, _: _push_all(machine, list),
    "FROZENSET": lambda machine, _: _push_all(machine, Unordered),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "DICT": _Machine.dict_of,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build_state,
    "EXT1": lambda machine, _: machine.stack.append(Name("an extension")),
    "EXT2": lambda machine, _: machine.stack.append(Name("an extension")),
    "EXT4": lambda machine, _: machine.stack.append(Name("an extension")),
    "BINPERSID": lambda machine, _: machine.stack.append(machine.persistent(machine.pop())),
    "PERSID": lambda machine, argument: machine.stack.append(machine.persistent(argument)),
}


def _push_all(machine: _Machine, kind: Callable[[list[Any]], Any]) -> None:
    items = machine.popped()
    machine.stack.append(kind(items))
