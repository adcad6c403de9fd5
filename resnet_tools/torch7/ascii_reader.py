"""Bytes of a .t7 file in ascii mode -> Lua objects. The layout is described in `t7.py`.

Only the form of numbers, strings and elements differs from the binary reader. A number is followed by white
space and a string by a newline even at the end of the file, so a file that was cut is always noticed.
"""

from __future__ import annotations

import mmap
import re
from typing import Any, ClassVar

import numpy as np

from resnet_tools.torch7.lua import T7Storage
from resnet_tools.torch7.reader import T7Reader

_TOKEN = re.compile(rb"\s*(\S{1,64})")
_INTEGER = re.compile(rb"[-+]?[0-9]{1,19}")
_DECIMAL = re.compile(rb"[-+]?([0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?|inf|nan)", re.IGNORECASE)
_NEWLINE = 10


class AsciiReader(T7Reader):
    smallest_pair_bytes = 5  # of a table: "5\n0\n" as key, "0" as value
    integer_bits: ClassVar[dict[str, int]] = {"i": 32, "q": 64}

    def __init__(self, data: mmap.mmap | bytes, name: str) -> None:
        super().__init__(data, name)

    def _read(self, format: str) -> tuple[Any, ...]:
        token = self.take_token()
        bits = self.integer_bits.get(format)
        if bits is None:
            if not _DECIMAL.fullmatch(token):
                raise self.error("a decimal number", repr(token))
            return (float(token),)
        if not _INTEGER.fullmatch(token) or not -(2 ** (bits - 1)) <= int(token) < 2 ** (bits - 1):
            raise self.error(f"an integer of {bits} bits", repr(token))
        return (int(token),)

    def read_longs(self, count: int) -> tuple[int, ...]:
        return tuple(self._read("q")[0] for _ in range(count))

    def take_token(self) -> bytes:
        self.start = self.position
        found = _TOKEN.match(self.data, self.position)
        if found is None or found.end() == len(self.data):
            raise self.ends_early("a number and white space after it", len(self.data) - self.position)
        self.start, end = found.start(1), found.end()
        self.position = end + (self.data[end] == _NEWLINE)
        return found[1]

    def take(self, size: int) -> int:
        start = super().take(size)
        if size == 0:
            return start
        if self.position == len(self.data):
            raise self.ends_early("a newline at the end", 0)
        if self.data[self.position] != _NEWLINE:
            raise self.error(f"a newline after {size} bytes", self.data[self.position : self.position + 1])
        self.position += 1
        return start

    def read_elements(self, dtype: np.dtype[Any], count: int) -> T7Storage:
        if dtype.itemsize == 1:
            return super().read_elements(dtype, count)
        if dtype.kind == "i":
            values = np.fromiter((self._read("q")[0] for _ in range(count)), np.int64, count)
            limits = np.iinfo(dtype)
            if count and not limits.min <= values.min() <= values.max() <= limits.max:
                raise self.error(f"elements from {limits.min} to {limits.max}", f"{values.min()} to {values.max()}")
        else:
            values = np.fromiter((self._read("d")[0] for _ in range(count)), np.float64, count)
        with np.errstate(all="ignore"):  # beyond the largest float is infinite, as in C
            storage = values.astype(dtype).view(T7Storage)
        storage.flags.writeable = False
        return storage

    def smallest_element_bytes(self, dtype: np.dtype[Any]) -> int:
        return 1
