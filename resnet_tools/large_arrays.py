"""Hundreds of megabytes of numbers, handled at the speed of memory: in one block, and by two threads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

T = TypeVar("T")
_ALIGNED_BYTES = 64  # as torch aligns its own


def in_one_block(shapes: Sequence[tuple[int, ...]], dtype: DTypeLike = np.float32) -> list[NDArray[Any]]:
    """Arrays of these shapes without values, each aligned, in one piece of memory, which lives as long as one of them.

    The system hands out a large piece in large pages, for half of the time that small pages take.
    """
    kind = np.dtype(dtype)
    step = _ALIGNED_BYTES // kind.itemsize
    sizes = [-(-math.prod(shape) // step) * step for shape in shapes]
    block = np.empty(sum(sizes) + step, kind)
    start = -block.ctypes.data % _ALIGNED_BYTES // kind.itemsize
    arrays = []
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(block[start : start + math.prod(shape)].reshape(shape))
        start += size
    return arrays


def for_each_in_two_threads(function: Callable[[T], object], items: Iterable[T]) -> None:
    """Call the function with each item; it must release the GIL, as NumPy and the system do, to gain from two threads.

    One thread cannot copy, or look at, numbers as fast as memory allows. Where no thread can be started, this one does
    it all. Raises what the function raises; the items that are left are left out then.
    """
    left = deque(items)

    def work() -> None:
        try:
            while left:
                try:
                    item = left.popleft()
                except IndexError:  # the other thread has taken the last one
                    return
                function(item)
        except BaseException:
            left.clear()
            raise

    with ThreadPoolExecutor(1) as pool:
        try:
            other = pool.submit(work)
        except RuntimeError:  # a limit on processes
            other = None
        work()
        if other is not None:
            other.result()
