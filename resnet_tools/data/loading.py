"""Files, or positions of a data set -> loaded items in the same order, decoded ahead by a few threads.

Decoding and resampling release the interpreter lock, so threads overlap with the model, and what is loaded ahead is
bounded: memory does not grow with the number of files.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from resnet_tools.errors import ImageError

MAX_THREADS = 4  # more workers than these are processes: the interpreter's lock would keep threads waiting
S = TypeVar("S")
T = TypeVar("T")


def load_ahead(
    sources: Sequence[S], load: Callable[[S], T], *, workers: int, ahead: int
) -> Iterator[tuple[S, T | ImageError]]:
    """Each source with what `load` gives for it, or the ImageError it raised, in the order of `sources`.

    workers: threads that load. ahead: how many items may wait to be taken, and up to half as many again.
    """
    if workers < 1 or len(sources) == 1:
        yield from ((source, attempt(load, source)) for source in sources)
        return
    # A thread takes several at once, as each handover costs time and the interpreter lock.
    together = max(1, min(ahead, len(sources)) // (2 * workers))
    remaining = iter(sources)
    groups = iter(lambda: list(islice(remaining, together)), [])
    # torch settles this thread's number at its first use, and takes for it what was set last, by whatever thread.
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "load", initializer=_compute_alone)
    waiting: deque[Future[list[tuple[S, T | ImageError]]]] = deque()
    try:
        waiting.extend(pool.submit(_attempts, load, group) for group in islice(groups, max(1, ahead // together)))
        while waiting:
            loaded = waiting.popleft().result()
            waiting.extend(pool.submit(_attempts, load, group) for group in islice(groups, 1))
            yield from loaded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _compute_alone() -> None:
    """If torch is used, it uses no threads of its own in this one."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _attempts(load: Callable[[S], T], sources: Sequence[S]) -> list[tuple[S, T | ImageError]]:
    return [(source, attempt(load, source)) for source in sources]


def attempt(load: Callable[[S], T], source: S) -> T | ImageError:
    """What `load` gives, or the ImageError that it raised."""
    try:
        return load(source)
    except ImageError as error:
        return error
