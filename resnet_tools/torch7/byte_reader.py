"""Bytes of a mapped binary .t7 file -> numbers, strings and arrays, in order; the layout is described in `t7.py`.

Everything is read by one primitive, `take`, that knows where it is and what was wanted. Anything unreadable is a
T7Error that gives the byte, what was being read there, what was expected and what was found.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torchfile

from resnet_tools.errors import T7Error
from resnet_tools.torch7.lua import T7Storage

_PLAIN = ("nn.", "cudnn.", "torch.", "tds.")  # classes whose format is known
_FORMAT_HINT = "; the class may have a format of its own, which cannot be read"


class FileEndsEarly(T7Error):
    """More bytes are needed than the file has left."""


class ByteReader(torchfile.T7Reader):  # type: ignore[misc]
    """torchfile's reader made safe, the lower half: bounded, and explicit in its byte order.

    Of torchfile remain the tags, the objects read so far, read_int, read_boolean and read_double, on our `_read`.
    """

    # torchfile names its formats by these letters and means the machine's own byte order.
    numbers: ClassVar[dict[str, struct.Struct]] = {"i": struct.Struct("<i"), "d": struct.Struct("<d")}

    def __init__(self, data: mmap.mmap | bytes, name: str, long_bytes: int = 8) -> None:
        super().__init__(data)
        self.data, self.size, self.name, self.long_bytes = data, len(data), name, long_bytes
        self.view = memoryview(data)
        self.position = self.start = 0  # of the next byte; of what was read last
        self.what = "a type tag"  # is being read
        self.classes: list[str] = []  # of the objects being read, outermost first
        self.longs: list[tuple[int, ...]] = []  # all that were read

    def take(self, size: int) -> int:
        """The offset of the next `size` bytes, which exist; reading continues after them."""
        self.start = start = self.position
        end = start + size
        if end > self.size:
            raise self.ends_early(f"{size} bytes", self.size - start)
        self.position = end
        return start

    def ends_early(self, expected: str, left: int) -> T7Error:
        found = f"{left} left: the file ends early (an incomplete download?)"
        return self.error(expected, found, kind=FileEndsEarly)

    def error(
        self, expected: str, found: object, *, at: int | None = None, what: str = "", kind: type[T7Error] = T7Error
    ) -> T7Error:
        start = self.start if at is None else at
        inside = f" in {' > '.join(self.classes[-3:])}" if self.classes else ""
        hint = "" if not self.classes or self.classes[-1].startswith(_PLAIN) else _FORMAT_HINT
        return kind(f"{self.name}: byte {start}: {what or self.what}{inside}: expected {expected}, found {found}{hint}")

    def _read(self, format: str) -> tuple[Any, ...]:
        number = self.numbers[format]
        return number.unpack_from(self.view, self.take(number.size))

    def read_longs(self, count: int) -> tuple[int, ...]:
        format = _longs_format(self.long_bytes, count)
        values = format.unpack_from(self.view, self.take(format.size))
        self.longs.append(values)
        return values

    def read_long(self) -> int:
        return self.read_longs(1)[0]

    def read_count(self, read: Callable[[], int], item_bytes: int) -> int:
        """A number of things that take at least `item_bytes` each."""
        count = read()
        if count < 0:
            raise self.error("0 or more", count)
        left = self.size - self.position
        if count * item_bytes > left:
            raise self.ends_early(f"{count} times {item_bytes} bytes or more", left)
        return count

    def read_string(self, what: str) -> bytes:
        self.what = what
        return self.read_bytes(self.read_int())

    def read_bytes(self, size: int) -> bytes:
        if size < 0:
            raise self.error("a length of 0 or more", size)
        start = self.take(size)
        return self.data[start : start + size]

    def read_elements(self, dtype: np.dtype[Any], count: int) -> T7Storage:
        start = self.take(count * dtype.itemsize)
        storage: T7Storage = np.ndarray.__new__(T7Storage, (count,), dtype, self.data, start)
        return storage

    def smallest_element_bytes(self, dtype: np.dtype[Any]) -> int:
        return dtype.itemsize

    def longs_look_shorter(self, error: T7Error) -> bool:
        """Whether longs may have 4 bytes. A file with longs of 8 that was cut short fails only by ending early."""
        two_in_one = any(value >> 32 for values in self.longs for value in values)
        return two_in_one or (bool(self.longs) and not isinstance(error, FileEndsEarly))


@lru_cache(2 * 64)  # a file has few different counts, and each often
def _longs_format(long_bytes: int, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{'q' if long_bytes == 8 else 'i'}")
