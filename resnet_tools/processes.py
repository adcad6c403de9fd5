"""This process alone, or one of several that `torchrun` started, on one machine or many.

torchrun tells each process its number in the environment (RANK, LOCAL_RANK, WORLD_SIZE).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    `wait` returns when all have called it; `gather` gives, in every process, the plain values of all, by rank.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], object] = lambda: None
    gather: Callable[[Any], list[Any]] = lambda value: [value]


ALONE = Processes()


@contextmanager
def joined_processes(backend: str = "gloo") -> Iterator[Processes]:
    """The processes of this job; `backend` is `gloo`, or `nccl` when tensors on GPUs are exchanged."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    import torch.distributed as distributed

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * count
        distributed.all_gather_object(values, value)
        return values

    distributed.init_process_group(backend)
    try:
        yield Processes(distributed.get_rank(), count, distributed.barrier, gather)
    finally:
        distributed.destroy_process_group()


def own_device(device: str) -> str:
    """`auto` and `cuda` become the GPU of this process's number on its machine, when torchrun started several."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or device not in ("auto", "cuda"):
        return device
    import torch

    return f"cuda:{int(local) % torch.cuda.device_count()}" if torch.cuda.is_available() else device
