"""The pickled batches of CIFAR -> dicts, lists, strings, whole numbers and arrays of bytes, without running anything.

A pickle is a program for a small stack machine that may call any function. Here only the instructions that build such
data are followed; the one call that arrays need is recognised by its name and done here. Anything else in the file,
such as a call of another function, is an error.

Source: Python's `pickletools`; numpy's `ndarray.__reduce__`: _reconstruct(ndarray, (0,), "b"), and the state
(version, shape, dtype, is_fortran, bytes).
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARK = object()
PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
IGNORED = {"PROTO", "FRAME", "STOP"}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": lambda: MARK,
}
CALLABLE = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "type",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}


@dataclass
class Name:
    """A function or class that the file names; it is never looked up."""

    what: str


@dataclass
class Built:
    """An array or a dtype before and after its state is known."""

    what: str
    value: Any = None


def read_pickle(data: bytes) -> dict[str, Any]:
    """The dict in a pickle. Raises: ValueError saying at which byte something else was found."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    reached = 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            reached = position or 0
            _follow(opcode.name, argument, stack, memo)
        (result,) = stack
        return _finished(result, len(data))
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"byte {reached}: damaged pickle ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise ValueError(f"byte {reached}: {error}") from error


def _follow(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """One instruction."""
    if name in PUSHED:
        stack.append(argument)
    elif name in CONSTANTS:
        stack.append(CONSTANTS[name]())
    elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in BUILDERS:
        BUILDERS[name](stack)
    elif name == "GLOBAL":
        stack.append(_named(argument))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_named(f"{module} {attribute}"))
    elif name not in IGNORED:
        raise ValueError(f"the instruction {name} is in no file of CIFAR")


def _named(name: str) -> Name:
    if name not in CALLABLE:
        raise ValueError(f"expected lists and arrays of bytes, found a call of {name.replace(' ', '.')}; refused")
    return Name(CALLABLE[name])


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not MARK:
        items.append(item)
    return items[::-1]


def _extend(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise ValueError("items for something that is not a list")
    stack[-1].extend(items)


def _update(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not dict or len(items) % 2 or not all(type(key) in (str, bytes, int) for key in items[::2]):
        raise ValueError("items for something that is not a dict, or keys that are not strings")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _tuple(stack: list[Any], count: int) -> None:
    if len(stack) < count:
        raise ValueError("a tuple of more items than there are")
    stack[-count:] = [tuple(stack[-count:])]


def _call(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    if type(function) is not Name or type(arguments) is not tuple:
        raise ValueError("a call of something that is not a function")
    if function.what == "encode" and arguments[1:] == ("latin1",):
        stack.append(arguments[0])  # text with a character for each byte, as the strings of Python 2
    elif function.what in ("array", "dtype"):
        stack.append(Built(function.what, arguments[0] if function.what == "dtype" else None))
    else:
        raise ValueError(f"a call of {function.what}")


def _set_state(stack: list[Any]) -> None:
    state, built = stack.pop(), stack[-1]
    if type(built) is not Built or type(state) is not tuple:
        raise ValueError("a state for something that is not an array")
    if built.what == "array":
        built.value = state


def _array(state: Any) -> NDArray[np.uint8]:
    _, shape, dtype, is_fortran, content = state
    if type(dtype) is not Built or dtype.what != "dtype" or dtype.value not in ("u1", b"u1"):
        raise ValueError("an array of something other than bytes")
    content = content.encode("latin1") if type(content) is str else content
    is_shape = type(shape) is tuple and all(type(side) is int and side >= 0 for side in shape)
    if not is_shape or type(content) is not bytes or math.prod(shape) != len(content) or len(shape) > 4:
        raise ValueError(f"an array of shape {shape!r:.60} that holds another number of bytes")
    array: NDArray[np.uint8] = np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")
    return array


BUILDERS: dict[str, Callable[[list[Any]], None]] = {
    "APPEND": lambda stack: _extend(stack, [stack.pop()]),
    "APPENDS": lambda stack: _extend(stack, _since_mark(stack)),
    "SETITEM": lambda stack: _update(stack, [stack.pop(-2), stack.pop()]),
    "SETITEMS": lambda stack: _update(stack, _since_mark(stack)),
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "TUPLE1": lambda stack: _tuple(stack, 1),
    "TUPLE2": lambda stack: _tuple(stack, 2),
    "TUPLE3": lambda stack: _tuple(stack, 3),
    "REDUCE": _call,
    "BUILD": _set_state,
}


def _finished(value: Any, file_bytes: int) -> dict[str, Any]:
    """A dict with text as its keys and arrays in place of what stood for them.

    A file may name one string as the content of any number of arrays; together they must not be larger than the file.
    """
    if type(value) is not dict:
        raise ValueError(f"expected a dict, found {type(value).__name__}")
    finished = {}
    for key, item in value.items():
        if type(item) is Built:
            item = _array(item.value)
            file_bytes -= item.nbytes
            if file_bytes < 0:
                raise ValueError("arrays of more bytes than the file has")
        finished[key.decode("latin1") if type(key) is bytes else str(key)] = item
    return finished
