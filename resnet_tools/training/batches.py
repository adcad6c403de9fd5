"""Samples -> the batches of an epoch, decided by (seed, epoch) alone, so that a stopped run goes on as it would have.

Each epoch has its own order of all samples, cut into batches; each batch is split among the processes. The random
numbers of an image's augmentation depend on (seed, epoch, position) and not on who loads it or when.

Shapes: B images in a batch over all processes, n of them in this one.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_tools.data.loading import attempt, load_ahead
from resnet_tools.data.samples import Samples
from resnet_tools.errors import ImageError, TrainingError

Positions = NDArray[np.int64]
Load = Callable[[Any, np.random.Generator], Tensor]  # an image's path or pixels, random numbers -> (3, H, W)
THREADS_AT_MOST = 4  # more loaders are processes: the interpreter's lock would keep threads waiting
AHEAD_BATCHES = 3
_ORDER = 1 << 62  # beyond every position: the stream of random numbers that shuffles


@dataclass(frozen=True)
class TrainingBatch:
    """`images` (n, 3, H, W) float32 and `targets` (n,), or None if none of them could be read.

    `errors`: path and reason of each that could not.
    """

    images: Tensor | None
    targets: Tensor
    errors: list[tuple[str, str]]


def random_numbers(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The stream of random numbers of one sample in one epoch."""
    key = np.array([seed % (1 << 64), (epoch << 40) ^ position], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def mixing_seed(seed: int, epoch: int, number: int, rank: int) -> int:
    """The seed of what is drawn for a whole batch, in one process."""
    return int(random_numbers(seed, epoch, _ORDER + (number << 20) + rank + 1).integers(1 << 62))


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int, processes: int = 1) -> list[Positions]:
    """The positions of each batch of an epoch, shuffled; the last batch holds what is left.

    A last batch with fewer images than processes is joined to the one before: every process needs an image.
    """
    order = random_numbers(seed, epoch, _ORDER).permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) < processes:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def share_of(batch: Positions, rank: int, processes: int) -> Positions:
    """The part of a batch that process `rank` computes: contiguous, the first ones a longer part."""
    return np.array_split(batch, processes)[rank]


@dataclass(frozen=True)
class BatchLoader:
    """Loads one batch; a plain value, so that loader processes can have a copy."""

    samples: Samples
    load: Load
    seed: int
    epoch: int

    def image(self, position: int) -> Tensor:
        """Raises: ImageError."""
        return self.load(self.samples.images[position], random_numbers(self.seed, self.epoch, position))

    def collate(self, positions: Sequence[int], images: Sequence[Tensor | ImageError]) -> TrainingBatch:
        good = [k for k, image in enumerate(images) if isinstance(image, Tensor)]
        errors = [
            (self.samples.name(position), str(image))
            for position, image in zip(positions, images, strict=True)
            if isinstance(image, ImageError)
        ]
        targets = torch.tensor([self.samples.targets[positions[k]] for k in good], dtype=torch.int64)
        stacked = torch.stack([image for image in images if isinstance(image, Tensor)]) if good else None
        return TrainingBatch(stacked, targets, errors)

    def batch(self, positions: Positions) -> TrainingBatch:
        numbers = positions.tolist()
        return self.collate(numbers, [attempt(self.image, position) for position in numbers])


def loaded(loader: BatchLoader, batches: Sequence[Positions], *, workers: int, pin: bool) -> Iterator[TrainingBatch]:
    """The batches in their order, loaded ahead by threads or, if `workers` are many, by processes.

    pin: in page-locked memory, from which copies to a GPU overlap with its work.
    """
    if workers > THREADS_AT_MOST:
        made = _by_processes(loader, batches, workers)
    else:
        made = _by_threads(loader, batches, workers)
    yield from _prefetched(map(_pinned, made)) if pin else made


def _by_threads(loader: BatchLoader, batches: Sequence[Positions], workers: int) -> Iterator[TrainingBatch]:
    positions = np.concatenate(batches).tolist() if batches else []
    ahead = AHEAD_BATCHES * max(map(len, batches), default=1)
    images = load_ahead(positions, loader.image, workers=workers, ahead=ahead)
    for numbers in batches:
        yield loader.collate(numbers.tolist(), [image for _, image in islice(images, len(numbers))])


def _by_processes(loader: BatchLoader, batches: Sequence[Positions], workers: int) -> Iterator[TrainingBatch]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of more processes than cores, which somebody asked for
        processes = torch.utils.data.DataLoader(
            _Batches(loader, batches),
            batch_size=None,
            shuffle=False,
            num_workers=workers,
            prefetch_factor=AHEAD_BATCHES - 1,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
        )
        iterator = iter(processes)
    try:
        yield from iterator
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            "a loader process ended, mostly for want of shared memory or memory; give fewer --workers (at most "
            f"{THREADS_AT_MOST} are threads, which need none), or a container more of it (docker run --shm-size 8g)"
        ) from error


@dataclass(frozen=True)
class _Batches(torch.utils.data.Dataset[TrainingBatch]):
    loader: BatchLoader
    batches: Sequence[Positions]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> TrainingBatch:
        return self.loader.batch(self.batches[number])


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the run decides what happens
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _prefetched(batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    """The same, each made by another thread while the one before is used."""
    with ThreadPoolExecutor(1, "prefetch") as pool:
        waiting = pool.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = pool.submit(next, batches, None)
            yield batch


def _pinned(batch: TrainingBatch) -> TrainingBatch:
    if batch.images is None:
        return batch
    return TrainingBatch(batch.images.pin_memory(), batch.targets.pin_memory(), batch.errors)
