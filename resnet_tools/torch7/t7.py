"""Bytes of a Lua Torch7 file (.t7) -> Lua objects: `read_t7`.

A file is one object (what follows is ignored, as torch.load does). Integers are little-endian: `int` has 4 bytes,
`long` 8 (4 where Torch ran on a 32-bit machine; nothing in the file says which), `double` 8. A string is an int
length and that many bytes. An object is an int tag and then, by tag:

    0  nil       nothing
    1  number    double
    2  string    string
    5  boolean   int, 1 is true
    3  table     int index, int count, then count pairs of objects: key, value
    4  torch     int index, string "V <version>", string class name, payload;
                 before class versions existed: int index, string class name, payload (version 0)
    8  function  int index, string bytecode, object: table of upvalues {1 = {id=, name=, value=}, ...}
    7  function  the same, older; the upvalues are {1 = value, ...}
    6  function  the same as 7, oldest: without an index

The first record with an index defines that object; later ones are tag and index only and mean the same object, also
inside the object itself. Payload by class:

    torch.*Storage        long count, count elements
    torch.*Tensor         int dimensions, long sizes[dimensions], long strides[dimensions] (in elements),
                          long offset of the first element in the storage (from 1), object: the storage or nil.
                          A tensor without elements has 0 dimensions.
    tds.Hash              long count, then count pairs of objects
    tds.Vec               long count, then count objects
    nn.DataParallelTable  from version 2: object: table of GPU numbers, object: table of fields
    torch.Timer           nothing; so too of torch.DiskFile, torch.PipeFile and torch.MemoryFile
    torch.Generator       the 5048 bytes of a 64-bit machine's THGenerator
    any other             object: table of fields (a class with a format of its own cannot be read)

Elements are Byte u8, Char i8, Short i16, Int i32, Long a `long`, Half f16, Float f32, Double f64; "torch.CudaTensor"
is f32, and the other Cuda classes (torch.CudaLongTensor, ...) are as their CPU namesakes.

In ascii mode every number is decimal text (C's %d, %ld, %.9g, %.17g: also nan, -nan, inf, -inf) followed by a newline;
the elements of one array (sizes, strides, a storage) are separated by spaces. A string is its length, a newline, its
raw bytes and a newline; the elements of Byte and Char storages are such raw bytes too. Empty arrays and empty strings
have no line of their own. Half elements are written as floats.

Source: torch7 File.lua, generic/Storage.c, generic/Tensor.c, Generator.c, lib/TH/THDiskFile.c at 814ea4a.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import Any

from resnet_tools.errors import T7Error
from resnet_tools.reading import collector_paused
from resnet_tools.torch7.ascii_reader import AsciiReader
from resnet_tools.torch7.copying import MappedFile
from resnet_tools.torch7.fast_reader import FastReader
from resnet_tools.torch7.sniff import HEAD_BYTES, describe_content, is_ascii_t7


def read_t7(path: str | os.PathLike[str], *, long_bytes: int | None = None) -> Any:
    """The object in a .t7 file, binary or ascii, as the Lua values of `resnet_tools.torch7.lua`.

    Tensors and storages are read-only views into the memory-mapped file: nothing is copied, and the file must not be
    cut or overwritten in place while they are in use. `long_bytes` (4 or 8) is the size of a `long` in a binary file;
    None reads 8, and 4 if that fails in a way that a file with longs of 8 bytes, even cut short, does not.

    Raises T7Error, with the byte offset, for anything that is not a whole .t7 file.

    >>> from resnet_tools import read_t7
    >>> tensor = read_t7("tests/data/t7/tensors_all.t7")["Float"]
    >>> tensor.torch_type, tensor.dtype
    ('torch.FloatTensor', dtype('float32'))
    """
    if long_bytes not in (None, 4, 8):
        raise ValueError(f"long_bytes is {long_bytes!r}; a long has 4 or 8 bytes")
    name = os.fsdecode(path)
    data = _map_file(name)
    head = data[:HEAD_BYTES]
    if (otherwise := describe_content(head, len(data))) is not None:
        raise T7Error(f"{name}: byte 0: expected a Lua Torch file, found {head[:16]!r}: {otherwise}")
    with collector_paused():
        if is_ascii_t7(head):
            return AsciiReader(data, name).read_file()
        return _read_binary(data, name, long_bytes)


def _read_binary(data: mmap.mmap | bytes, name: str, long_bytes: int | None) -> object:
    reader = FastReader(data, name, long_bytes or 8)
    try:
        return reader.read_file()
    except T7Error as error:
        if long_bytes is not None or not reader.longs_look_shorter(error):
            raise
        try:
            return FastReader(data, name, 4).read_file()
        except T7Error:
            raise error from None


def _map_file(name: str) -> mmap.mmap | bytes:
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # before opening, as that would wait for a pipe
            raise T7Error(f"{name}: expected a Lua Torch file, found a directory or a device")
        if os.path.getsize(name) == 0:
            return b""  # cannot be mapped
        return MappedFile.open(name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise T7Error(f"{name}: expected a Lua Torch file, but it cannot be read: {reason}") from error
