"""Numbers, strings and arrays -> the bytes of a .t7 file, binary or ascii. The layout is described in `t7.py`."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, Any]


class BinaryOutput:
    """Writes numbers and bytes as in a binary file. Numbers are named by struct's letters; `long` is that of a long."""

    def __init__(self, file: IO[bytes], long_bytes: int = 8) -> None:
        self.file, self.long_bytes, self.long = file, long_bytes, "q" if long_bytes == 8 else "i"

    def put(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left.nbytes:  # a file without a buffer may take a part only
            count: int | None = self.file.write(left)
            left = left[left.nbytes if count is None else count :]

    def put_numbers(self, letter: str, *values: float) -> None:
        self.put(struct.pack(f"<{len(values)}{letter}", *values))

    def put_elements(self, chunks: Iterable[Array]) -> None:
        for chunk in chunks:
            self.put(chunk.view(np.uint8).data)

    def put_string(self, value: bytes) -> None:
        self.put_numbers("i", len(value))
        self.put(value)


class AsciiOutput(BinaryOutput):
    """The same in an ascii file: an array that is not empty is a line."""

    def put_numbers(self, letter: str, *values: float) -> None:
        struct.pack(f"<{len(values)}{letter}", *values)  # fails for what is too large
        self.put_elements([np.array(values, letter)])

    def put_elements(self, chunks: Iterable[Array]) -> None:
        after = b""
        for chunk in filter(len, chunks):
            if chunk.itemsize == 1:
                self.put(chunk.view(np.uint8).data)
            else:
                format = "%d" if chunk.dtype.kind == "i" else "%.17g" if chunk.itemsize == 8 else "%.9g"
                self.put(after and b" ")
                self.put(" ".join([_decimal(format, element) for element in chunk.tolist()]).encode())
            after = b"\n"
        self.put(after)

    def put_string(self, value: bytes) -> None:
        super().put_string(value)
        self.put(value and b"\n")


def _decimal(format: str, value: float) -> str:
    """As C's printf, which shows the sign of a NaN."""
    return "-nan" if value != value and math.copysign(1, value) < 0 else format % value
