"""Arrays that view a mapped file -> memory of their own, at the speed of reading the file.

Contiguous float32 is read straight from the file into its place, neighbours in one system call, by two threads: no page
of the map is touched, so nothing counts twice in memory. The rest (other types, strides) is converted through the map,
whose pages are given back.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from resnet_tools.errors import T7Error
from resnet_tools.large_arrays import for_each_in_two_threads

Array = np.ndarray[Any, Any]
MAX_BUFFERS = 1024  # of one preadv: IOV_MAX of Linux
_PIECE_BYTES = 8 << 20  # one call reads whole arrays until it has this much


class MappedFile(mmap.mmap):
    """A read-only map that keeps its file open for reading past the map."""

    name: str
    file: int

    @classmethod
    def open(cls, name: str) -> MappedFile:
        """Raises OSError if there is no such file, ValueError if it is empty."""
        file = os.open(name, os.O_RDONLY)
        try:
            mapped = cls(file, 0, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(file)
            raise
        mapped.name, mapped.file = name, file
        return mapped

    def __del__(self) -> None:
        if "file" in self.__dict__:
            os.close(self.file)


@dataclass
class _Run:
    """Arrays that lie one after another in a file."""

    file: MappedFile
    start: int
    end: int
    targets: list[Array] = field(default_factory=list)

    def takes(self, file: MappedFile, start: int) -> bool:
        """Whether an array that begins there may follow: without a gap, and if one call may take it too."""
        full = len(self.targets) == MAX_BUFFERS or self.end - self.start >= _PIECE_BYTES
        return self.file is file and self.end == start and not full


def copy_all(pairs: Sequence[tuple[Array, Array]]) -> None:
    """Copy each (source, target): targets are contiguous float32 in memory, of the source's shape.

    Raises: T7Error if a file has become shorter than its map.
    """
    direct: list[tuple[MappedFile, int, Array]] = []
    for source, target in pairs:
        file = _file_behind(source)
        plain = source.dtype == np.float32 and source.flags.c_contiguous
        if plain and isinstance(file, MappedFile) and hasattr(os, "preadv"):
            direct.append((file, _offset_in(file, source), target))
        else:
            np.copyto(target, source, casting="same_kind")
            release(source)
    for_each_in_two_threads(_read, _runs(direct))


def _runs(items: list[tuple[MappedFile, int, Array]]) -> Iterator[_Run]:
    run: _Run | None = None
    for file, start, target in sorted(items, key=lambda item: (id(item[0]), item[1])):
        if run is None or not run.takes(file, start):
            if run is not None:
                yield run
            run = _Run(file, start, start)
        run.targets.append(target)
        run.end += target.nbytes
    if run is not None:
        yield run


def _read(run: _Run) -> None:
    position = run.start
    buffers = [target.data.cast("B") for target in run.targets]
    while buffers:
        count = os.preadv(run.file.file, buffers, position)
        if count == 0:
            raise T7Error(f"{run.file.name}: byte {position}: the file has become shorter while it was read")
        position += count
        # The system may read less than was asked for: drop the full buffers and go on inside the next one.
        while buffers and count >= len(buffers[0]):
            count -= len(buffers.pop(0))
        if buffers:
            buffers[0] = buffers[0][count:]


def release(array: Array) -> None:
    """Tell the system that the file's pages behind `array` need not stay in memory; they are read again on access.

    After weights are copied out, this keeps them from counting twice. The range grows to whole pages, which costs a
    neighbour at most a second read from the page cache. A tensor's own pages; `release(tensor.storage)` for all.
    Nothing happens for arrays that are not views of a file, and on systems without madvise.
    """
    file = _file_behind(array)
    if file is None or array.size == 0 or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = _offset_in(file, array)
    spans = (stride * (size - 1) for stride, size in zip(array.strides, array.shape, strict=True))
    lowest, highest = 0, 0
    for span in spans:
        lowest, highest = lowest + min(span, 0), highest + max(span, 0)
    start = (first + lowest) // mmap.PAGESIZE * mmap.PAGESIZE
    with contextlib.suppress(OSError):  # pages locked in memory stay
        file.madvise(mmap.MADV_DONTNEED, start, first + highest + array.itemsize - start)


def _file_behind(array: Any) -> mmap.mmap | None:
    while isinstance(array, np.ndarray | memoryview):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return array if isinstance(array, mmap.mmap) else None


def _offset_in(file: mmap.mmap, array: Array) -> int:
    """Where in the file the first element of an array lies."""
    return int(array.ctypes.data - np.frombuffer(file, np.uint8, 1).ctypes.data)
