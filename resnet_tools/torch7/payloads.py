"""What follows a class name in a .t7 file, by class -> a LuaObject, T7Tensor or T7Storage.

A payload reader takes (reader, class name, class version, object index). It returns the value, or is a generator that
returns it and yields each object it begins, to be sent that object finished. A value that may be referred to from
inside its own payload is put into `reader.objects[index]` before that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import GeneratorType, NoneType
from typing import Any

import numpy as np

from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Storage, T7Tensor

Reader = Any  # a T7Reader, whose module needs this one
Steps = Generator[Any, Any, Any]
Payload = Callable[[Reader, str, int, int], Any]
Longs = tuple[int, ...]

_MERSENNE_WORDS = 624
# THGenerator: long seed, int left, int seeded, long next, long state[624], double normal[3], int normal_is_valid.
GENERATOR_BYTES = 8 + 4 + 4 + 8 + 8 * _MERSENNE_WORDS + 3 * 8 + 8
GENERATOR_FIELD = b"state"
NAME_ONLY = ("torch.Timer", "torch.DiskFile", "torch.PipeFile", "torch.MemoryFile")

UNFINISHED = object()  # stands for an object that is being read and cannot be referred to yet
MAX_DIMENSIONS = 32  # numpy 1 has no more; nets have 5
_MOST = 2**59  # elements, or steps of a stride: numpy counts them in bytes, in 64 bits

_CPU_ELEMENTS = {"Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8"}
_CPU_ELEMENTS |= {"Half": "<f2", "Float": "<f4", "Double": "<f8"}
_ELEMENTS = _CPU_ELEMENTS | {f"Cuda{name}": code for name, code in _CPU_ELEMENTS.items()} | {"Cuda": "<f4"}
_SHORT_LONGS = _ELEMENTS | {"Long": "<i4", "CudaLong": "<i4"}
DTYPES: dict[int, dict[str, np.dtype[Any]]] = {  # by the bytes of a long and by class name
    long_bytes: {
        f"torch.{name}{kind}": np.dtype(code) for name, code in codes.items() for kind in ("Storage", "Tensor")
    }
    for long_bytes, codes in ((8, _ELEMENTS), (4, _SHORT_LONGS))
}

LUA_TYPES = {
    NoneType: "nil",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    bytes: "a string",
    LuaTable: "a table",
    LuaFunction: "a function",
    LuaObject: "an object of a torch class",
    GeneratorType: "a table, an object or a function",
}


def read_object(reader: Reader, class_name: str, version: int, index: int) -> Steps:
    value = reader.objects[index] = LuaObject(class_name, version)
    start = reader.position
    value.fields = _table(reader, start, "the fields", (yield reader.begin_object()))
    return value


def read_data_parallel_table(reader: Reader, class_name: str, version: int, index: int) -> Steps:
    value = reader.objects[index] = LuaObject(class_name, version)
    start = reader.position
    if version >= 2:
        value.gpu_assignments = _table(reader, start, "the GPU assignments", (yield reader.begin_object()))
        start = reader.position
    value.fields = _table(reader, start, "the fields", (yield reader.begin_object()))
    return value


def read_hash(reader: Reader, class_name: str, version: int, index: int) -> Steps:
    value = reader.objects[index] = LuaObject(class_name, version)
    reader.what = "the number of entries"
    count = reader.read_count(reader.read_long, reader.smallest_pair_bytes)
    yield from reader.fill_table(value.fields, count)
    return value


def read_vec(reader: Reader, class_name: str, version: int, index: int) -> Steps:
    value = reader.objects[index] = LuaObject(class_name, version)
    reader.what = "the number of entries"
    for position in range(1, reader.read_count(reader.read_long, 1) + 1):
        value.fields[position] = yield reader.begin_object()
    return value


def read_nothing(reader: Reader, class_name: str, version: int, index: int) -> LuaObject:
    """An object of which Torch7 writes only the class name."""
    return LuaObject(class_name, version)


def read_generator(reader: Reader, class_name: str, version: int, index: int) -> LuaObject:
    """A random number generator: the C struct as it lies in memory, as the bytes of the field `state`."""
    reader.what = "the state of the generator"
    state = reader.read_bytes(GENERATOR_BYTES)
    words = np.frombuffer(state, "<u8", _MERSENNE_WORDS, offset=24)
    if int(words.max()) >> 32:  # they are 32-bit numbers in longs of 8 bytes
        raise reader.error(f"the {_MERSENNE_WORDS} numbers of a 64-bit machine's generator", "something else")
    return LuaObject(class_name, version, LuaTable([(GENERATOR_FIELD, state)]))


def read_storage(reader: Reader, class_name: str, version: int, index: int) -> T7Storage:
    dtype = DTYPES[reader.long_bytes][class_name]
    reader.what = "the number of elements"
    count = reader.read_count(reader.read_long, reader.smallest_element_bytes(dtype))
    reader.what = "the elements"
    storage: T7Storage = reader.read_elements(dtype, count)
    storage.torch_type = class_name
    return storage


def read_tensor(reader: Reader, class_name: str, version: int, index: int) -> T7Tensor:
    if reader.in_tensor:  # in place of its storage; otherwise the recursion below would be unbounded
        raise reader.error("a storage", class_name, what="the storage")
    start, dtype = reader.position, DTYPES[reader.long_bytes][class_name]
    reader.what = "the number of dimensions"
    dimensions = reader.read_int()
    if not 0 <= dimensions <= MAX_DIMENSIONS:
        raise reader.error(f"0 to {MAX_DIMENSIONS}", dimensions)
    reader.what = "the sizes, strides and offset"
    longs = reader.read_longs(2 * dimensions + 1)
    sizes, strides, offset = longs[:dimensions], longs[dimensions:-1], longs[-1]
    # Only now, with the storage at hand, can the view be checked; numpy would trust any sizes and strides.
    storage = _read_storage_of_tensor(reader, dtype, dimensions)
    elements = 0 if storage is None else storage.size
    if problem := _misfit(sizes, strides, offset, elements):
        found = f"sizes {sizes}, strides {strides}, offset {offset}: {problem}"
        raise reader.error(f"a view into a storage of {elements}", found, at=start, what="the shape")
    tensor: T7Tensor
    if dimensions:
        steps = [stride * dtype.itemsize for stride in strides]
        tensor = np.ndarray.__new__(T7Tensor, sizes, dtype, storage, (offset - 1) * dtype.itemsize, steps)
    else:
        tensor = np.ndarray.__new__(T7Tensor, (0,), dtype)
    tensor.torch_type, tensor.storage, tensor.storage_offset = class_name, storage, offset - 1
    return tensor


def describe(value: object) -> str:
    """A description of a value, for the "found" of an error."""
    if value is UNFINISHED:
        return "an object that is itself still being read"
    return str(getattr(value, "torch_type", None) or getattr(value, "class_name", None) or LUA_TYPES[type(value)])


def _table(reader: Reader, start: int, what: str, value: object) -> LuaTable:
    if not isinstance(value, LuaTable):
        raise reader.error("a table", describe(value), at=start, what=what)
    return value


def _read_storage_of_tensor(reader: Reader, dtype: np.dtype[Any], dimensions: int) -> T7Storage | None:
    start, reader.in_tensor = reader.position, True
    storage = reader.begin_object()
    reader.in_tensor = False
    if (storage is None and dimensions == 0) or (isinstance(storage, T7Storage) and storage.dtype == dtype):
        return storage
    expected = f"a storage of {dtype} elements" + ("" if dimensions else ", or nil")
    raise reader.error(expected, describe(storage), at=start, what="the storage")


def _misfit(sizes: Longs, strides: Longs, offset: int, elements: int) -> str | None:
    """Why a view would leave its storage, in exact integers; None if it stays inside."""
    if offset < 1:
        return "offsets start at 1"
    count, last = 1, offset
    for size, stride in zip(sizes, strides, strict=True):
        if size < 1:
            return "a size is below 1"  # Torch gives a tensor without elements 0 dimensions
        if not 0 <= stride <= _MOST:
            return f"a stride is not in 0 to {_MOST}"
        count *= size
        last += (size - 1) * stride
    if sizes and last > elements:
        return f"the last element would be number {last}"
    return f"more than {_MOST} elements" if count > _MOST else None


PAYLOADS: dict[str, Payload] = {
    "tds.Hash": read_hash,
    "tds.Vec": read_vec,
    "nn.DataParallelTable": read_data_parallel_table,
    "torch.Generator": read_generator,
    **dict.fromkeys(NAME_ONLY, read_nothing),
    **{name: read_storage if name.endswith("Storage") else read_tensor for name in DTYPES[8]},
}
