"""T7Reader for binary files, with the common cases in few steps.

A net of a hundred modules is ten thousand small reads; one by one they take as long as reading all its weights.
Whatever is not common, and whatever is wrong, goes the long way of T7Reader, which makes the errors too: the two
readers agree on every file.
"""

from __future__ import annotations

import struct
from types import GeneratorType
from typing import Any

import torchfile

from resnet_tools.torch7.lua import LuaTable
from resnet_tools.torch7.reader import Steps, T7Reader, lua_number

_NUMBER, _STRING, _BOOLEAN = torchfile.TYPE_NUMBER, torchfile.TYPE_STRING, torchfile.TYPE_BOOLEAN
_INT, _LONG, _DOUBLE = struct.Struct("<i"), struct.Struct("<q"), struct.Struct("<d")
_TAG_AND_INT = struct.Struct("<ii")
_LONGEST_KEY = 31
_KEY_TAG_INT = {  # from the tag and length of a string, as one long, to the key and the start of its value
    _STRING | length << 32: struct.Struct(f"<{length}sii") for length in range(_LONGEST_KEY + 1)
}
_PAIR_BYTES = 8 + _LONGEST_KEY + 12  # a string and a number


class FastReader(T7Reader):
    # How the record of the last new kind of tensor began, and what that means: most objects are of that class.
    tensor_header = struct.pack("<i3si17s", 3, b"V 1", 17, b"torch.FloatTensor")
    tensor_class = ("torch.FloatTensor", 1)

    def read_int(self) -> int:
        start = self.position
        if start + 4 > self.size:
            return int(super().read_int())
        self.start, self.position = start, start + 4
        value: int = _INT.unpack_from(self.view, start)[0]
        return value

    def begin_object(self) -> Any:
        start = self.position
        if start + 8 > self.size:
            return super().begin_object()
        tag, number = _TAG_AND_INT.unpack_from(self.view, start)
        if tag == _STRING and 0 <= number <= self.size - start - 8:
            self.position = end = start + 8 + number
            return self.data[start + 8 : end]
        self.start, self.position = start, start + 4
        return self.begin_tagged(tag)

    def fill_table(self, table: LuaTable, count: int) -> Steps:
        view, last = self.view, self.size - _PAIR_BYTES
        for _ in range(count):
            start = self.position
            pair = _KEY_TAG_INT.get(_LONG.unpack_from(view, start)[0]) if start <= last else None
            if pair is None:  # not a short string as key, or too near to the end of the file: the long way
                key = self.begin_object()
                if type(key) is GeneratorType:
                    key = yield key
                self.check_key(key, start)
                value = self.begin_object()
            else:
                key, tag, number = pair.unpack_from(view, start + 8)
                start += pair.size  # 8 more than the key, as are before it
                if tag == _NUMBER:
                    self.position = start + 12
                    value = lua_number(_DOUBLE.unpack_from(view, start + 4)[0])
                elif tag == _BOOLEAN:
                    self.position = start + 8
                    value = number == 1
                else:
                    self.start, self.position = start, start + 4
                    value = self.begin_tagged(tag)
            if type(value) is GeneratorType:
                value = yield value
            if value is None:
                table.pop(key, None)
            elif type(key) is bytes:
                dict.__setitem__(table, key, value)  # as LuaTable does with bytes
            else:
                table[key] = value
        return table

    def read_class(self) -> tuple[str, int]:
        start = self.position
        end = start + len(self.tensor_header)
        if self.data[start:end] == self.tensor_header:
            self.position = end
            return self.tensor_class
        class_name, version = super().read_class()
        if class_name.endswith("Tensor"):
            self.tensor_header, self.tensor_class = self.data[start : self.position], (class_name, version)
        return class_name, version
