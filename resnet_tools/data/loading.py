"""Files -> loaded items in the same order, decoded ahead by a few threads.

Decoding and resampling release the interpreter lock, so threads overlap with the model, and what is loaded ahead is
bounded: memory does not grow with the number of files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from resnet_tools.errors import ImageError

T = TypeVar("T")


def load_ahead(
    paths: Sequence[str], load: Callable[[str], T], *, workers: int, ahead: int
) -> Iterator[tuple[str, T | ImageError]]:
    """Each path with what `load` gives for it, or the ImageError it raised, in the order of `paths`.

    workers: threads that load. ahead: how many items may wait to be taken.
    """
    if workers < 1 or len(paths) == 1:
        yield from ((path, _attempt(load, path)) for path in paths)
        return
    pool = ThreadPoolExecutor(workers, "load", initializer=torch.set_num_threads, initargs=(1,))
    remaining = iter(paths)
    waiting: deque[tuple[str, Future[T | ImageError]]] = deque()
    try:
        first = islice(remaining, min(ahead, len(paths)))
        waiting.extend((path, pool.submit(_attempt, load, path)) for path in first)
        while waiting:
            path, item = waiting.popleft()
            yield path, item.result()
            waiting.extend((path, pool.submit(_attempt, load, path)) for path in islice(remaining, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(load: Callable[[str], T], path: str) -> T | ImageError:
    try:
        return load(path)
    except ImageError as error:
        return error
