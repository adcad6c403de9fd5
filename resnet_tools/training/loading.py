"""The images of batches, loaded ahead by one set of threads or processes for the whole run.

Processes are started by a server that has nothing of this one but what it is sent: forks of a process that uses CUDA,
NCCL or threads may hang. The samples reach them in shared memory, the batches come back in it. They end when this
process does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from resnet_tools.compute.device import is_out_of_memory
from resnet_tools.data.loading import load_ahead
from resnet_tools.data.samples import Samples
from resnet_tools.errors import TrainingError
from resnet_tools.training.batches import EpochDataset, Positions, TrainingBatch
from resnet_tools.training.shared_samples import shared
from resnet_tools.training.transforms import Transform

MAX_THREADS = 4  # more workers than these are processes: the interpreter's lock would keep threads waiting
AHEAD_BATCHES = 3
START_METHOD = "spawn" if sys.platform == "win32" else "forkserver"
PRELOADED = [__name__]  # by the server, once for all processes
DIED = ("killed by signal", "exited unexpectedly", "Bus error")  # what torch says of a process that is gone


class BatchLoader:
    """Loads the batches of one epoch after another; `close` it in the end.

    workers: threads, or, if more than MAX_THREADS, processes. pin: give batches in page-locked memory, from which
    copies to a GPU overlap with computation.
    """

    def __init__(self, samples: Samples, transform: Transform, seed: int, *, workers: int, pin: bool = False) -> None:
        self.samples, self.transform, self.seed = samples, transform, seed
        self.workers, self.pin = workers, pin
        self._plan: list[tuple[int, Positions]] = []  # what the processes load next: epoch and positions of each batch
        self._processes: Any = None

    def epoch(self, epoch: int, batches: Sequence[Positions]) -> Iterator[TrainingBatch]:
        """The batches in their order. Raises: TrainingError if they cannot be loaded."""
        load = self._by_processes if self.workers > MAX_THREADS else self._by_threads
        loaded = _failures_explained(load(epoch, batches))
        yield from _prefetched(map(_pinned, loaded)) if self.pin else loaded

    def close(self) -> None:
        """End the processes."""
        self._processes = None

    def _by_threads(self, epoch: int, batches: Sequence[Positions]) -> Iterator[TrainingBatch]:
        dataset = EpochDataset(self.samples, self.transform, self.seed, epoch)
        positions = np.concatenate(batches).tolist() if batches else []
        ahead = AHEAD_BATCHES * max(map(len, batches), default=1)
        images = load_ahead(positions, dataset.image, workers=self.workers, ahead=ahead)
        for numbers in batches:
            yield dataset.collate(numbers.tolist(), [image for _, image in islice(images, len(numbers))])

    def _by_processes(self, epoch: int, batches: Sequence[Positions]) -> Iterator[TrainingBatch]:
        self._plan[:] = [(epoch, positions) for positions in batches]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about more workers than cores, which the user asked for
            if self._processes is None:
                self._processes = self._started()
            batches_loaded = iter(self._processes)
        for loaded in batches_loaded:
            if isinstance(loaded, _Failure):
                raise TrainingError(f"the images cannot be loaded: {loaded.reason}")
            yield loaded

    def _started(self) -> Any:
        """A loader of torch's, which takes its next batches from the plan whenever it is iterated over."""
        dataset = _BatchDataset(shared(self.samples), self.transform, self.seed)
        context = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=None,
            sampler=self._plan,
            num_workers=self.workers,
            prefetch_factor=AHEAD_BATCHES - 1,
            persistent_workers=True,
            multiprocessing_context=context,
            generator=torch.Generator(),  # not the one of the run
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
        )


@dataclass(frozen=True)
class _Failure:
    """Why a process could not load a batch: raised in it, an error would come back with its stack."""

    reason: str


@dataclass(frozen=True)
class _BatchDataset(torch.utils.data.Dataset["TrainingBatch | _Failure"]):
    """What a process has: `samples` in shared memory. It is asked for (epoch, positions)."""

    samples: Samples
    transform: Transform
    seed: int

    def __getitem__(self, asked: tuple[int, Positions]) -> TrainingBatch | _Failure:
        epoch, positions = asked
        try:
            batch = EpochDataset(self.samples, self.transform, self.seed, epoch).batch(positions)
            if batch.images is not None:
                batch.images.share_memory_()  # type: ignore[no-untyped-call]  # here, where too little of it is an error that can be told
        except Exception as error:
            return _Failure(_described(error))
        return batch


def _described(error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"{reason}. Give fewer --workers or a smaller --batch-size" if is_out_of_memory(error) else reason


def _failures_explained(batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    """Raises: TrainingError instead of torch's RuntimeError."""
    try:
        yield from batches
    except RuntimeError as error:
        if not any(words in str(error) for words in DIED):
            raise TrainingError(f"the images cannot be loaded: {_described(error)}") from error
        raise TrainingError(
            "a data-loading process died, most likely for lack of memory or shared memory; give fewer --workers (up to "
            f"{MAX_THREADS} are threads, which need no shared memory), or the container more (docker run --shm-size 8g)"
        ) from error


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; only the training decides what to do
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


def _prefetched(batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    """The same batches; another thread makes the next one while the current one is used."""
    with ThreadPoolExecutor(1, "prefetch") as pool:
        waiting = pool.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = pool.submit(next, batches, None)
            yield batch


def _pinned(batch: TrainingBatch) -> TrainingBatch:
    if batch.images is None:
        return batch
    return TrainingBatch(batch.images.pin_memory(), batch.targets.pin_memory(), batch.errors)
