"""Lua values -> the bytes of a .t7 file: `save_t7`, the inverse of `read_t7`. The layout is described in `t7.py`.

=====================================  =====================================================================
None, bool                             nil, boolean
int to 2**53, float, numpy's numbers   number
bytes, str                             string (str as UTF-8)
LuaTable, dict, list, tuple            table, in the order of the keys; a list has the keys 1 to n
LuaObject                              object of a torch class, tds.Hash and tds.Vec too
T7Tensor, T7Storage                    the tensor or storage it is; tensors share their `storage`
other arrays, T7Tensor without one     tensor with a storage of its own, of the torch type for the dtype
LuaFunction                            function
=====================================  =====================================================================

An object that occurs twice is written once and then referred to, so sharing and cycles survive. As in
Lua, a table has no entry whose value is nil. An object of class version 0 gets the record from before class versions.
Objects are numbered as they begin, as Torch7 does: what Torch7 wrote and `read_t7` read becomes the same bytes.
Source: torch7 File.lua, generic/Storage.c, generic/Tensor.c, lib/TH/THDiskFile.c at 814ea4a.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO

from resnet_tools.errors import T7Error
from resnet_tools.torch7.byte_writer import AsciiOutput, BinaryOutput
from resnet_tools.torch7.value_writer import ValueWriter


def save_t7(value: object, path: str | os.PathLike[str], *, ascii: bool = False, long_bytes: int = 8) -> None:
    """Write a Lua value as a .t7 file. Only a complete file replaces an earlier one.

    `value` may hold views of the very file that is replaced. `long_bytes` is 4 for a Torch on a 32-bit machine.

    Raises: T7Error if the file cannot be written, or if a part of the value has no form in Lua; the message
    says which.

    >>> import numpy as np
    >>> from resnet_tools import read_t7, save_t7
    >>> save_t7({"epoch": 3, "mean": np.zeros(3, np.float32)}, "state.t7")
    >>> read_t7("state.t7")["epoch"]
    3
    """
    name = os.fsdecode(path)
    target = os.path.realpath(name)  # a link stays a link
    partial = os.path.join(os.path.dirname(target), f".{os.getpid()}-{os.urandom(4).hex()}.t7.partial")
    try:
        if os.path.exists(target) and not os.path.isfile(target):
            raise T7Error("cannot be written: a directory or a device has this name")
        with open(partial, "xb", buffering=2**18) as file:
            write_t7(value, file, ascii=ascii, long_bytes=long_bytes)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise T7Error(f"{name}: cannot be written: {error.strerror or error}") from error
    except T7Error as error:
        raise T7Error(f"{name}: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def write_t7(value: object, file: IO[bytes], *, ascii: bool = False, long_bytes: int = 8) -> None:
    """Write a Lua value to a binary file object at its current position, without seeking.

    Raises: T7Error as `save_t7` does, when a part is already written; what `file.write` raises.
    """
    if long_bytes not in (4, 8):
        raise ValueError(f"long_bytes is {long_bytes!r}; a long has 4 or 8 bytes")
    ValueWriter(AsciiOutput(file) if ascii else BinaryOutput(file, long_bytes)).write(value)
