"""Lua values -> what a .t7 file holds of them, object by object: which record each becomes and in which order.

What a .t7 can hold is listed in `t7_writer`, how the records look in `t7`; `byte_writer` makes the bytes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any, ClassVar

import numpy as np
import torchfile

from resnet_tools.errors import T7Error
from resnet_tools.torch7.byte_writer import BinaryOutput
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Storage
from resnet_tools.torch7.payloads import DTYPES, GENERATOR_BYTES, GENERATOR_FIELD, MAX_DIMENSIONS, NAME_ONLY

Array = np.ndarray[Any, Any]
Children = Iterator[tuple[str, object, object]]  # how the place of a value reads, the label for the {} in it, the value

_EXACT = 2**53  # up to here every integer is a double
_CHUNK = 2**18  # elements that are converted and written at a time
_FUNCTION_TAGS = (torchfile.TYPE_FUNCTION, torchfile.LEGACY_TYPE_RECUR_FUNCTION, torchfile.TYPE_RECUR_FUNCTION)
_CLASS_NAME = re.compile(r"(?=.{1,200}$)[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")  # as the reader has it
_CPU_TENSORS = {dtype: name for name, dtype in DTYPES[8].items() if name.endswith("Tensor") and "Cuda" not in name}


class ValueWriter:
    """Writes objects one at a time. Depth costs no recursion: what is in an object is an iterator on a stack."""

    def __init__(self, out: BinaryOutput) -> None:
        self.out = out
        self.count = 0  # of objects with an index
        self.written: dict[int, tuple[int, object]] = {}  # by id: the index; the object, so that the id stays its own
        self.places: list[tuple[str, object]] = []  # from the whole value to what is being written

    def write(self, value: object) -> None:
        unfinished: list[Children] = [iter([("value", None, value)])]
        while unfinished:
            child = next(unfinished[-1], None)
            if child is None:
                unfinished.pop()
                continue
            self.places[len(unfinished) - 1 :] = [child[:2]]
            try:
                children = self.begin(child[2])
            except struct.error as error:
                raise self.error(f"a length, size or stride that is too large for a .t7 file: {error}") from None
            if children is not None:
                unfinished.append(children)

    def error(self, problem: str) -> T7Error:
        places = self.places if len(self.places) <= 40 else [*self.places[:20], (" ... ", None), *self.places[-20:]]
        return T7Error("".join(text.format(_label(key)) for text, key in places) + f": {problem}")

    def begin(self, value: object) -> Children | None:
        for kind in type(value).__mro__:
            if kind in self.begin_as:
                return self.begin_as[kind](self, value)
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        advice = "; give it as a NumPy array: .detach().cpu().numpy()" if hasattr(value, "detach") else ""
        raise self.error(f"a {name} has no form in a .t7 file{advice}")

    def begin_indexed(self, tag: int, value: object = None) -> bool:
        """Write what an object begins with; False if it was written before and that is all. None is never the same."""
        index, _ = self.written.get(id(value), (self.count + 1, None))
        self.out.put_numbers("i", tag)
        self.out.put_numbers("i", index)
        if index <= self.count:
            return False
        self.count = index
        if value is not None:
            self.written[id(value)] = (index, value)
        return True

    def begin_nil(self, value: None = None) -> None:
        self.out.put_numbers("i", torchfile.TYPE_NIL)

    def begin_boolean(self, value: bool) -> None:
        self.out.put_numbers("i", torchfile.TYPE_BOOLEAN)
        self.out.put_numbers("i", int(value))

    def begin_number(self, value: float) -> None:
        if isinstance(value, int | np.integer) and not -_EXACT <= value <= _EXACT:
            raise self.error("an integer beyond 2**53; numbers in Lua are doubles, which hold no larger ones exactly")
        self.out.put_numbers("i", torchfile.TYPE_NUMBER)
        self.out.put_numbers("d", float(value))

    def begin_string(self, value: str | bytes) -> None:
        try:
            text = value.encode() if isinstance(value, str) else value
        except UnicodeEncodeError as error:
            raise self.error(f"a str that is not Unicode text: {error.reason}; bytes hold any string") from None
        self.out.put_numbers("i", torchfile.TYPE_STRING)
        self.out.put_string(text)

    def begin_table(self, value: Any) -> Children | None:
        return self.begin_entries(value, "i") if self.begin_indexed(torchfile.TYPE_TABLE, value) else None

    def begin_entries(self, value: Any, letter: str) -> Children:
        """Write how many entries a dict, list or tuple has, as a number of that kind."""
        if isinstance(value, dict):
            self.check_keys(value)
            entries = [(key, key, item) for key, item in value.items() if item is not None]
        else:
            entries = [(place, place + 1, item) for place, item in enumerate(value) if item is not None]
        self.out.put_numbers(letter, len(entries))
        return (part for at, key, item in entries for part in ((", the key {}", at, key), ("[{}]", at, item)))

    def check_keys(self, value: dict[Any, Any]) -> None:
        for key in value:
            if key is None or (isinstance(key, float | np.floating) and math.isnan(key)):
                raise self.error(f"a table with the key {key}; in Lua neither nil nor NaN is a key")
            if isinstance(key, str) and key.encode(errors="surrogatepass") in value:
                raise self.error(f"a table with the key {_label(key)} twice, as str and as bytes")

    def begin_function(self, value: LuaFunction) -> Children | None:
        if value.tag not in _FUNCTION_TAGS or not isinstance(value.upvalues, dict | None):
            raise self.error(f"a function of tag {value.tag!r} with the upvalues {value.upvalues!r}")
        if value.tag == torchfile.TYPE_FUNCTION:
            self.out.put_numbers("i", value.tag)
        elif not self.begin_indexed(value.tag, value):
            return None
        self.out.put_string(value.dumped)
        return iter([(".upvalues", None, LuaTable() if value.upvalues is None else value.upvalues)])

    def begin_object(self, value: LuaObject) -> Children | None:
        name, version, fields, gpus = value.class_name, value.version, value.fields, value.gpu_assignments
        if not _CLASS_NAME.fullmatch(name) or name in DTYPES[8] or not 0 <= version < 10**9:
            raise self.error(f"an object of class {name!r} in version {version}; expected such as nn.Linear, 0 or more")
        has_gpus = name == "nn.DataParallelTable" and version >= 2
        if not isinstance(fields, dict) or (has_gpus and not isinstance(gpus, dict | list | tuple)):
            raise self.error(f"a {name} whose {'gpu_assignments or ' * has_gpus}fields are not a table")
        if not self.begin_indexed(torchfile.TYPE_TORCH, value):
            return None
        self.put_class(name, version)
        if name in NAME_ONLY:
            return None
        if name == "torch.Generator":
            self.put_generator(fields)
            return None
        if name == "tds.Hash":
            return self.begin_entries(fields, self.out.long)
        if name == "tds.Vec":
            return self.begin_vec(fields)
        return iter([(".gpu_assignments", None, gpus)] * has_gpus + [("", None, fields)])

    def put_generator(self, fields: dict[Any, Any]) -> None:
        state = fields.get(GENERATOR_FIELD)
        if not isinstance(state, bytes) or len(state) != GENERATOR_BYTES:
            raise self.error(f"a torch.Generator whose state is not {GENERATOR_BYTES} bytes")
        self.out.put_elements([np.frombuffer(state, np.uint8)])

    def begin_vec(self, fields: dict[Any, Any]) -> Children:
        places = range(1, len(fields) + 1)
        if any(place not in fields for place in places):
            raise self.error("a tds.Vec whose fields are not the keys 1 to n")
        self.out.put_numbers(self.out.long, len(fields))
        return (("[{}]", place, fields[place]) for place in places)

    def put_class(self, name: str, version: int = 1) -> None:
        if version > 0:
            self.out.put_string(b"V %d" % version)
        self.out.put_string(name.encode())

    def begin_masked(self, value: Array) -> None:
        raise self.error("a masked array; tensors have no masks: fill it first, as with .filled(0)")

    def begin_tensor(self, value: Array) -> Children | None:
        name, storage = self.torch_type(value, "Tensor"), getattr(value, "storage", None)
        if value.shape != (0,) and (0 in value.shape or not 1 <= value.ndim <= MAX_DIMENSIONS):
            expected = f"1 to {MAX_DIMENSIONS} dimensions, all above 0, or the shape (0,)"
            raise self.error(f"an array of the shape {value.shape}; a tensor has {expected}")
        if not self.begin_indexed(torchfile.TYPE_TORCH, value):
            return None
        shape = () if value.shape == (0,) else value.shape
        strides, offset = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))], 0
        if storage is not None:
            strides, offset = self.place_in(storage, value, name)
        self.put_class(name)
        self.out.put_numbers("i", len(shape))
        self.out.put_numbers(self.out.long, *shape)
        self.out.put_numbers(self.out.long, *strides[: len(shape)])
        self.out.put_numbers(self.out.long, offset + 1)
        if storage is not None:
            return iter([(".storage", None, storage)])
        if shape and self.begin_indexed(torchfile.TYPE_TORCH):
            self.put_storage(value, name.replace("Tensor", "Storage"))
        elif not shape:
            self.begin_nil()
        return None

    def place_in(self, storage: Any, value: Any, name: str) -> tuple[list[int], int]:
        """The strides of a tensor, and its offset in a storage, in elements."""
        needed, offset = name.replace("Tensor", "Storage"), value.storage_offset or 0
        same = isinstance(storage, T7Storage) and storage.dtype == value.dtype and storage.flags.c_contiguous
        if not same or self.torch_type(storage, "Storage") != needed:
            raise self.error(f"a {name} of {value.dtype} whose storage is not a whole {needed} of the same elements")
        first = value.ctypes.data - storage.ctypes.data if value.size else offset * value.itemsize
        strides = [stride // value.itemsize for stride in value.strides]
        last = offset + sum((size - 1) * stride for size, stride in zip(value.shape, strides, strict=True))
        inside = min(first, *strides) >= 0 and (last < storage.size or not value.size)
        if not inside or first != offset * value.itemsize or any(stride % value.itemsize for stride in value.strides):
            raise self.error(f"a {name} that is not a view into its storage at its storage_offset {offset}")
        return strides, offset

    def begin_storage(self, value: T7Storage) -> None:
        name = self.torch_type(value, "Storage")
        if value.ndim != 1:
            raise self.error(f"a {name} of the shape {value.shape}; a storage has one dimension")
        if self.begin_indexed(torchfile.TYPE_TORCH, value):
            self.put_storage(value, name)

    def put_storage(self, value: Array, name: str) -> None:
        self.put_class(name)
        self.out.put_numbers(self.out.long, value.size)
        self.out.put_elements(self.chunks(np.asarray(value), DTYPES[self.out.long_bytes][name]))

    def chunks(self, array: Array, dtype: np.dtype[Any]) -> Iterator[Array]:
        """The elements in order, as contiguous arrays of `dtype`; nothing is copied that already is one."""
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        for start in range(0, array.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]
            converted = chunk.astype(dtype, copy=False)
            if dtype.itemsize < chunk.itemsize and not np.array_equal(converted, chunk):
                raise self.error("an element is more than a long of 4 bytes can be")
            yield converted

    def torch_type(self, value: Array, kind: str) -> str:
        """Its own, or the one for its dtype."""
        dtype = value.dtype.newbyteorder("<")
        own: str | None = getattr(value, "torch_type", None)
        name = own or _CPU_TENSORS.get(dtype, "").replace("Tensor", kind)
        if name not in DTYPES[8] or dtype not in (DTYPES[8][name], DTYPES[4][name]) or not name.endswith(kind):
            raise self.error(f"{own or 'an array'} of {value.dtype}; no {kind.lower()} in Torch has such elements")
        return name

    begin_as: ClassVar[dict[type, Callable[[Any, Any], Children | None]]] = {
        NoneType: begin_nil,
        **dict.fromkeys((bool, np.bool_), begin_boolean),
        **dict.fromkeys((int, np.integer, float, np.float16, np.float32), begin_number),
        **dict.fromkeys((bytes, str), begin_string),
        **dict.fromkeys((dict, list, tuple), begin_table),
        LuaFunction: begin_function,
        LuaObject: begin_object,
        T7Storage: begin_storage,
        np.ma.MaskedArray: begin_masked,
        np.ndarray: begin_tensor,
    }


def _label(key: object) -> str:
    """A key as it is written in Python; of what has no such form, the type."""
    if isinstance(key, str | bytes):
        return f'"{key[:100] if isinstance(key, str) else key[:100].decode(errors="backslashreplace")}"'
    plain = isinstance(key, float) or (isinstance(key, int) and -_EXACT <= key <= _EXACT)
    return repr(key) if plain else f"<{type(key).__name__}>"
