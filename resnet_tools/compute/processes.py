"""This process alone, or one of several of a job, on one machine or many: torchrun's, `--n-gpu`'s or SLURM's."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from resnet_tools.compute.job import place_of
from resnet_tools.compute.launcher import end_with_launcher
from resnet_tools.compute.rendezvous import join
from resnet_tools.errors import ProcessError, ResnetToolsError
from resnet_tools.text import counted

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    `wait` returns when all have called it; `gather` returns the plain values of all by rank, in every process.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], object] = lambda: None
    gather: Callable[[Any], list[Any]] = lambda value: [value]


ALONE = Processes()


LONGEST_WAIT = timedelta(days=30)  # a process may wait for one that has much more work, or that writes the output
POLL_SECONDS = 0.02
FAILED_FIRST_SECONDS = 1  # until what started the processes has seen which of them ended first
REASON_CHARACTERS = 300
COALESCED_BYTES = 1 << 28  # as DistributedDataParallel broadcasts its buffers
OF_A_PARTNER = ("onnection", "peer", "gloo", "emote process", "rocess group")
OF_NCCL = ("NCCL", "nccl")
NCCL_LOST = ("ncclRemoteError", "onnection", "emote process", "timeout", "timed out", "aborted")


@contextmanager
def joined_processes(backend: str = "gloo") -> Iterator[Processes]:
    """The processes of this job; `backend` is `gloo`, or `nccl` when tensors on GPUs are exchanged.

    Raises: ProcessError if the others cannot be reached, or when one of them ends while this one waits for it.
    """
    end_with_launcher()
    place = place_of(os.environ)
    if place is None:
        yield ALONE
        return
    import torch.distributed as distributed

    try:
        join(place, backend)
        # Only waits for each other may be long; an exchange on GPUs that takes minutes has failed.
        waits: Any = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise ProcessError(
            f"the processes of this job cannot find each other: {_reason(error)}. On several machines, all must reach "
            "MASTER_ADDR at MASTER_PORT; GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network interface to use"
        ) from error

    def wait() -> None:
        with lost_processes():
            work: Any = distributed.barrier(group=waits, async_op=True)
            while not work.is_completed():  # so that signals are handled
                time.sleep(POLL_SECONDS)
            work.wait()

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * place.count
        with lost_processes():
            distributed.all_gather_object(values, value, group=waits)
        return values

    yield Processes(place.rank, place.count, wait, gather)
    distributed.destroy_process_group()  # not after an error: it might wait for processes that are gone


@contextmanager
def lost_processes() -> Iterator[None]:
    """Turn torch's error for a partner that ended into a ProcessError, after the partner had time to say why.

    Raises: ResnetToolsError if the GPUs cannot exchange anything for a reason of their own, such as two processes on
    one of them: then no other process has a better one.
    """
    try:
        yield
    except RuntimeError as error:  # such as "Connection closed by peer"
        text = str(error)
        of_nccl = any(word in text for word in OF_NCCL)
        if "out of memory" in text or not (of_nccl or any(word in text for word in OF_A_PARTNER)):
            raise
        if of_nccl and not any(word in text for word in NCCL_LOST):
            raise ResnetToolsError(f"the GPUs of this job cannot exchange data: {_reason(error)}") from error
        time.sleep(FAILED_FIRST_SECONDS)
        raise ProcessError(
            f"another process of this job ended; its own message says why (seen here: {_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """Torch's message without its stack; of an NCCL error the last line, which names the cause."""
    text = re.sub(r"\s*(Exception raised from|C\+\+ CapturedTraceback|This is typically caused)[\s\S]*", "", str(error))
    text = re.sub(r"^\[[^\]]*\]\s*", "", text)  # of the source file in torch
    _, _, last = text.partition("Last error:")
    return " ".join((last.strip() or text).split())[:REASON_CHARACTERS].rstrip(".")


def broadcast_buffers(model: nn.Module, processes: Processes) -> None:
    """Give every process the running statistics of process 0, which are those that are saved."""
    if processes.count > 1:
        import torch.distributed as distributed

        with lost_processes():
            buffers = list(model.buffers())
            group: Any = distributed.group.WORLD
            distributed._broadcast_coalesced(group, buffers, COALESCED_BYTES, 0)  # type: ignore[attr-defined]


def own_device(device: str) -> str:
    """For one of several processes, `auto` and `cuda` become the GPU with its number on its machine.

    Raises: ResnetToolsError if there are fewer GPUs than processes on this machine, or if all were to share one.
    """
    place = place_of(os.environ)
    local = os.environ.get("LOCAL_RANK") if place is None else str(place.local_rank)
    if local is None or not local.isdecimal() or device in ("cpu", "mps"):
        return device
    if device not in ("auto", "cuda"):
        if place is not None and place.local_count > 1:
            raise ResnetToolsError(
                f"--device {device}: {place.local_count} processes of this machine would share it; leave --device "
                "out, and each takes a GPU of its own, or give --device cpu"
            )
        return device
    import torch

    if not torch.cuda.is_available():
        return device
    found, needed = torch.cuda.device_count(), max(int(local) + 1, place.local_count if place else 1)
    if found == 1 and place is not None and place.address is not None:
        return "cuda:0"  # SLURM shows each task its own
    if needed > found:
        raise ResnetToolsError(
            f"{counted(needed, 'process')} on this machine, which has {counted(found, 'GPU')}; "
            "start as many processes as GPUs, or give "
            "--device cpu"
        )
    return f"cuda:{local}"
