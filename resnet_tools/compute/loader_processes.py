"""Processes that load images for this one, the same ones for as long as they are needed.

They are started by a server that has nothing of this process but what it is sent: forks of a process that uses CUDA,
NCCL or threads may hang. What they load comes back in shared memory. They end when this process does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_tools.compute.device import is_out_of_memory
from resnet_tools.data.loading import MAX_THREADS as MAX_THREADS
from resnet_tools.errors import LoadingError

AHEAD_BATCHES = 2  # of each process
START_METHOD = "spawn" if sys.platform == "win32" else "forkserver"
SERVER = "resnet_tools.compute.loader_server"
DIED = ("killed by signal", "exited unexpectedly", "Bus error")  # what torch says of a process that is gone
# Python's process that frees what a killed one held takes over these options; it would tell users that it did its work.
QUIET_TRACKER = "ignore:resource_tracker:UserWarning"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # only its size is looked at

Task = Callable[[Any], Any]  # the context -> what was loaded


class LoaderProcesses:
    """`workers` processes, started when they are first used; `close` them in the end.

    context: what every task is called with. It is sent once to each process, so large parts belong in shared memory.
    module: the name of the module that the tasks come from; it is imported once for all processes.
    """

    def __init__(self, workers: int, context: Any = None, *, module: str = __name__) -> None:
        self.workers, self.context, self.module = workers, context, module
        self._tasks: list[Task] = []  # what the processes load next
        self._loader: Any = None

    def results(self, tasks: Sequence[Task]) -> Iterator[Any]:
        """What each task gives, in their order; tensors of dataclasses come in shared memory.

        Raises: LoadingError if a task fails, whatever it raised, or a process dies.
        """
        self._tasks[:] = tasks
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about more workers than cores, which the user asked for
            if self._loader is None:
                self._loader = self._started()
            results = iter(self._loader)
        try:
            for result in results:
                if isinstance(result, _Failure):
                    raise LoadingError(f"the images cannot be loaded: {result.reason}")
                yield result
        except RuntimeError as error:
            raise loading_error(error) from error

    def close(self) -> None:
        """End the processes."""
        self._loader = None

    def _started(self) -> Any:
        """A loader of torch's, which takes its next tasks from the list whenever it is iterated over."""
        if QUIET_TRACKER not in sys.warnoptions:
            sys.warnoptions.append(QUIET_TRACKER)
        context = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            context.set_forkserver_preload([self.module, SERVER])
        return torch.utils.data.DataLoader(
            _Tasks(self.context),
            batch_size=None,
            sampler=self._tasks,
            num_workers=self.workers,
            prefetch_factor=AHEAD_BATCHES,
            persistent_workers=True,
            multiprocessing_context=context,
            generator=torch.Generator(),  # not the one of the run
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
        )


def loading_error(error: Exception) -> LoadingError:
    """What a RuntimeError of torch or of a library means to the user."""
    if not any(words in str(error) for words in DIED):
        return LoadingError(f"the images cannot be loaded: {_described(error)}")
    return LoadingError(
        "a data-loading process died, most likely for lack of memory or shared memory; give fewer --workers (up to "
        f"{MAX_THREADS} are threads, which need no shared memory), or the container more (docker run --shm-size 8g)"
    )


def free_shared_memory() -> float:
    """Bytes of shared memory that can still be used; infinite where the system does not show it."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return float("inf")
    return float(found.f_bavail * found.f_frsize)


@dataclass(frozen=True)
class _Failure:
    """Why a process could not load something: raised in it, an error would come back with its stack."""

    reason: str


@dataclass(frozen=True)
class _Tasks(torch.utils.data.Dataset[Any]):
    """What a process has."""

    context: Any

    def __getitem__(self, task: Task) -> Any:
        try:
            return _shared(task(self.context))
        except Exception as error:
            return _Failure(_described(error))


def _shared(result: Any) -> Any:
    """Put the tensors of a dataclass into shared memory here, where too little of it is an error that can be told."""
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Tensor):
            value.share_memory_()  # type: ignore[no-untyped-call]
    return result


def _described(error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"{reason}. Give fewer --workers or a smaller --batch-size" if is_out_of_memory(error) else reason


def _as_it_is(result: Any) -> Any:
    return result


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; only the main one decides what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in ("SIGHUP", "SIGQUIT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """torch's own watch is on the server, which lives as long as one of its processes does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
