"""This process alone, or one of several that `torchrun` started, on one machine or many.

torchrun tells each process its number, and where the others are, in the environment: RENDEZVOUS and LOCAL_RANK.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from resnet_tools.errors import ProcessError

if TYPE_CHECKING:
    from torch import nn


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


RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = timedelta(days=30)  # a process may wait for one that has much more to do, or that writes the output
POLL_SECONDS = 0.02
FAILED_FIRST_SECONDS = 1  # until what started the processes has seen which of them ended first
GRACE_SECONDS = 5
SIGNALLED = 128  # and above: the exit codes of what a signal ended


@contextmanager
def joined_processes(backend: str = "gloo") -> Iterator[Processes]:
    """The processes of this job; `backend` is `gloo`, or `nccl` when tensors on GPUs are exchanged.

    Raises: ProcessError if the others cannot be reached, or when one of them ends while this one waits for it.
    """
    if any(name not in os.environ for name in RENDEZVOUS) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    import torch.distributed as distributed

    try:
        distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise ProcessError(f"the processes that torchrun started cannot find each other: {error}") from error
    count = distributed.get_world_size()

    def wait() -> None:
        with lost_processes():
            work = distributed.barrier(async_op=True)
            while not work.is_completed():  # so that signals are heard
                time.sleep(POLL_SECONDS)
            work.wait()

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * count
        with lost_processes():
            distributed.all_gather_object(values, value)
        return values

    yield Processes(distributed.get_rank(), count, wait, gather)
    distributed.destroy_process_group()  # not after an error: it might wait for processes that are gone


@contextmanager
def lost_processes() -> Iterator[None]:
    """Turns what torch raises when a partner has ended into a ProcessError, after that one had time to say why."""
    try:
        yield
    except RuntimeError as error:  # such as "Connection closed by peer"
        if not any(word in str(error) for word in ("onnection", "peer", "gloo", "NCCL", "rocessGroup")):
            raise
        time.sleep(FAILED_FIRST_SECONDS)
        raise ProcessError("another process of this job ended; its own message says why") from error


def broadcast_buffers(model: nn.Module, processes: Processes) -> None:
    """Give every process the running statistics of process 0, which are those that are saved."""
    if processes.count > 1:
        import torch.distributed as distributed

        with lost_processes():
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)


def run_processes(command: Sequence[str], count: int) -> int:
    """Run `command` in `count` processes of one job on this machine; the exit code of the first that failed, or 0.

    The others are ended then. SIGINT and SIGTERM are passed on, once. What process 0 prints is shown; of the others,
    what one wrote to stderr that failed of itself.
    """
    with socket.socket() as probe:  # a port that is free now
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    with ExitStack() as files:
        errors = [None, *(files.enter_context(TemporaryFile()) for _ in range(1, count))]
        running = [
            subprocess.Popen(
                command,
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=errors[rank],
                start_new_session=True,  # a signal to the whole group would reach them twice
            )
            for rank in range(count)
        ]
        codes = _exit_codes(running)
        culprits = [rank for rank, code in enumerate(codes) if code not in (0, ProcessError.exit_code, -signal.SIGKILL)]
        file = errors[culprits[0]] if culprits else None
        if file is not None and codes[culprits[0]] < SIGNALLED:
            file.seek(0)
            sys.stderr.buffer.write(file.read())
    code = codes[culprits[0]] if culprits else max(codes, key=abs)
    return code if code >= 0 else SIGNALLED - code


def _exit_codes(running: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all; when one fails, the others get GRACE_SECONDS to end, unless a signal asked all to stop."""
    asked: list[int] = []

    def pass_on(number: int, _: object) -> None:
        asked.append(number)
        for process in running:
            process.send_signal(number)

    earlier = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    deadline = float("inf")
    try:
        while any(process.poll() is None for process in running):
            if deadline == float("inf") and not asked and any(process.poll() for process in running):
                deadline = time.monotonic() + GRACE_SECONDS
            if time.monotonic() > deadline:
                for process in running:
                    process.kill()
            time.sleep(POLL_SECONDS)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    return [process.wait() for process in running]


def own_device(device: str) -> str:
    """`auto` and `cuda` become the GPU of this process's number on its machine, when torchrun started several."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or device not in ("auto", "cuda"):
        return device
    import torch

    return f"cuda:{int(local) % torch.cuda.device_count()}" if torch.cuda.is_available() else device
