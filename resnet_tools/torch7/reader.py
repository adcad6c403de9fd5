"""Bytes of a binary .t7 file -> Lua objects, one at a time. The layout is described in `t7.py`.

Depth costs no recursion: beginning an object gives its value or, if it holds other objects, a generator of the steps
that fill it, which yields each object it begins and is sent the finished one. `read_obj` keeps the stack of these.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable, Generator
from functools import lru_cache
from types import GeneratorType
from typing import Any, ClassVar

import torchfile

from resnet_tools.torch7.byte_reader import ByteReader
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Storage, T7Tensor
from resnet_tools.torch7.payloads import LUA_TYPES, PAYLOADS, UNFINISHED, describe, read_object

Steps = Generator[Any, Any, Any]

_EXACT = 2**53  # up to here every integer is a double


class T7Reader(ByteReader):
    """torchfile's reader made safe, the upper half: any depth, and every object checked before it is used."""

    smallest_pair_bytes = 12  # of a table: a key of tag and int, a nil

    def __init__(self, data: mmap.mmap | bytes, name: str, long_bytes: int = 8) -> None:
        super().__init__(data, name, long_bytes)
        self.in_tensor = False

    def read_file(self) -> object:
        value = self.read_obj()
        if value is None and self.position < self.size:
            found = "a nil and more bytes after it: the file is blank or not a Lua Torch file"
            raise self.error("an object", found, at=0, what="the file")
        return value

    def read_obj(self) -> object:
        """The next object, with everything in it."""
        unfinished: list[Steps] = []
        value = self.begin_object()
        while True:
            if type(value) is GeneratorType:
                unfinished.append(value)
                value = None
            elif not unfinished:
                return value
            try:
                value = unfinished[-1].send(value)
            except StopIteration as finished:
                unfinished.pop()
                value = finished.value

    def begin_object(self) -> Any:
        self.what = "a type tag"
        return self.begin_tagged(self.read_int())

    def begin_tagged(self, tag: int) -> Any:
        begin = self.begin.get(tag)
        if begin is None:
            raise self.error("0 to 8", tag, what="a type tag")
        return begin(self, tag)

    def begin_nil(self, tag: int) -> None:
        return None

    def begin_number(self, tag: int) -> int | float:
        self.what = "a number"
        return lua_number(self.read_double())

    def begin_string(self, tag: int) -> bytes:
        return self.read_string("a string")

    def begin_boolean(self, tag: int) -> bool:
        self.what = "a boolean"
        return bool(self.read_boolean())

    def begin_table(self, tag: int) -> Any:
        # The memo: a file refers to an object that occurs again, perhaps inside itself, by its index. So the table is
        # registered before its entries are read.
        index = self.read_index()
        if index in self.objects:
            return self.known(index, LuaTable)
        self.what = "the number of table entries"
        count = self.read_count(self.read_int, self.smallest_pair_bytes)
        self.objects[index] = table = LuaTable()
        return self.fill_table(table, count)

    def fill_table(self, table: LuaTable, count: int) -> Steps:
        for _ in range(count):
            start = self.position
            key = self.begin_object()
            if type(key) is GeneratorType:
                key = yield key
            self.check_key(key, start)
            value = self.begin_object()
            if type(value) is GeneratorType:
                value = yield value
            if value is None:
                table.pop(key, None)  # as t[k] = nil does
            else:
                table[key] = value
        return table

    def check_key(self, key: object, start: int) -> None:
        if key is None or (isinstance(key, float) and math.isnan(key)):
            raise self.error("anything but nil and NaN", key, at=start, what="a table key")

    def begin_function(self, tag: int) -> Any:
        index = None
        if tag != torchfile.TYPE_FUNCTION:
            index = self.read_index()
            if index in self.objects:
                return self.known(index, LuaFunction)
        function = LuaFunction(tag, self.read_string("the bytecode of a function"))
        if index is not None:
            self.objects[index] = function
        return self.fill_function(function)

    def fill_function(self, function: LuaFunction) -> Steps:
        start = self.position
        function.upvalues = yield self.begin_object()
        if not isinstance(function.upvalues, LuaTable):
            raise self.error("a table", describe(function.upvalues), at=start, what="upvalues of a function")
        return function

    def begin_torch(self, tag: int) -> Any:
        index = self.read_index()
        if index in self.objects:
            return self.known(index, LuaObject, T7Tensor, T7Storage)
        class_name, version = self.read_class()
        self.classes.append(class_name)
        # If a payload can refer to its own object, its reader replaces this mark by the object before it reads on; in
        # any other payload such a reference is an error.
        self.objects[index] = UNFINISHED
        value = PAYLOADS.get(class_name, read_object)(self, class_name, version, index)
        if type(value) is GeneratorType:
            return self.finish_torch(value)
        self.classes.pop()
        self.objects[index] = value
        return value

    def finish_torch(self, payload: Steps) -> Steps:
        value = yield from payload
        self.classes.pop()
        return value

    def read_class(self) -> tuple[str, int]:
        """The class name and class version of a record."""
        name = self.read_string("a class version or name")
        if (version := _version(name)) is not None:
            name = self.read_string("a class name")
        if (class_name := _class_name(name)) is None:
            raise self.error("a name such as nn.Linear", repr(name[:40]))
        return class_name, version or 0

    def read_index(self) -> int:
        self.what = "an object index"
        return int(self.read_int())

    def known(self, index: int, *kinds: type) -> Any:
        """The earlier object with this index."""
        value = self.objects[index]
        if not isinstance(value, kinds):
            raise self.error(LUA_TYPES[kinds[0]], describe(value), what=f"object {index}")
        return value

    begin: ClassVar[dict[int, Callable[[Any, int], Any]]] = {
        torchfile.TYPE_NIL: begin_nil,
        torchfile.TYPE_NUMBER: begin_number,
        torchfile.TYPE_STRING: begin_string,
        torchfile.TYPE_TABLE: begin_table,
        torchfile.TYPE_TORCH: begin_torch,
        torchfile.TYPE_BOOLEAN: begin_boolean,
        torchfile.TYPE_FUNCTION: begin_function,
        torchfile.LEGACY_TYPE_RECUR_FUNCTION: begin_function,
        torchfile.TYPE_RECUR_FUNCTION: begin_function,
    }


def lua_number(value: float) -> int | float:
    """An int for a double that is integral, exact and not -0.0."""
    whole = value.is_integer() and -_EXACT <= value <= _EXACT and (value != 0 or math.copysign(1, value) > 0)
    return int(value) if whole else value


@lru_cache(256)  # a file has few different ones, and each often
def _version(name: bytes) -> int | None:
    found = re.fullmatch(rb"V ([0-9]{1,9})", name)
    return int(found[1]) if found else None


@lru_cache(256)
def _class_name(name: bytes) -> str | None:
    plausible = len(name) <= 200 and re.fullmatch(rb"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", name)
    return name.decode() if plausible else None
