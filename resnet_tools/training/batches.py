"""Samples -> the batches of an epoch, which depend only on (seed, epoch), so that a resumed run sees the same ones.

Each epoch has its own order of all samples, cut into batches; each batch is split among the processes. The random
numbers of an image's augmentation depend on (seed, epoch, position), not on which worker loads it or when.

Shapes: B images in a batch over all processes, n of them in this one.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
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
from resnet_tools.training.transforms import Transform

Positions = NDArray[np.int64]
MAX_THREADS = 4  # more workers than these are processes: the interpreter's lock would keep threads waiting
AHEAD_BATCHES = 3
_ORDER = 1 << 62  # beyond every position: the stream of random numbers that shuffles


@dataclass(frozen=True)
class TrainingBatch:
    """`images` (n, 3, H, W) float32, or None if no image could be read; `targets` (n,).

    `errors`: path and reason of each image that could not be read.
    """

    images: Tensor | None
    targets: Tensor
    errors: list[tuple[str, str]]


def random_numbers(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The stream of random numbers of one sample in one epoch."""
    key = np.array([seed % (1 << 64), (epoch << 40) ^ position], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def mixing_seed(seed: int, epoch: int, number: int, rank: int) -> int:
    """The seed of what is drawn once for a batch in one process: mixup and CutMix."""
    return int(random_numbers(seed, epoch, _ORDER + (number << 20) + rank + 1).integers(1 << 62))


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int, processes: int = 1) -> list[Positions]:
    """The positions of each batch of an epoch, shuffled; the last batch holds what is left.

    A last batch with fewer images than processes is joined to the one before, as every process needs an image.
    """
    order = random_numbers(seed, epoch, _ORDER).permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) < processes:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def share_of(batch: Positions, rank: int, processes: int) -> Positions:
    """The part of a batch that process `rank` computes: contiguous; the first processes may have one image more."""
    return np.array_split(batch, processes)[rank]


@dataclass(frozen=True)
class EpochDataset:
    """The transformed images of one epoch; a plain value, which worker processes can copy."""

    samples: Samples
    transform: Transform
    seed: int
    epoch: int

    def image(self, position: int) -> Tensor:
        """Raises: ImageError."""
        return self.transform(self.samples.images[position], random_numbers(self.seed, self.epoch, position))

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


def load_batches(
    dataset: EpochDataset, batches: Sequence[Positions], *, workers: int, pin: bool
) -> Iterator[TrainingBatch]:
    """The batches in their order, loaded ahead by threads or, with more than MAX_THREADS workers, by processes.

    pin: return them in page-locked memory, from which copies to a GPU overlap with computation.
    """
    load = _by_processes if workers > MAX_THREADS else _by_threads
    loaded = load(dataset, batches, workers)
    yield from _prefetched(map(_pinned, loaded)) if pin else loaded


def _by_threads(dataset: EpochDataset, batches: Sequence[Positions], workers: int) -> Iterator[TrainingBatch]:
    positions = np.concatenate(batches).tolist() if batches else []
    ahead = AHEAD_BATCHES * max(map(len, batches), default=1)
    images = load_ahead(positions, dataset.image, workers=workers, ahead=ahead)
    for numbers in batches:
        yield dataset.collate(numbers.tolist(), [image for _, image in islice(images, len(numbers))])


def _by_processes(dataset: EpochDataset, batches: Sequence[Positions], workers: int) -> Iterator[TrainingBatch]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about more workers than cores, which the user asked for
        processes = torch.utils.data.DataLoader(
            _BatchDataset(dataset, batches),
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
            "a data-loading process died, most likely for lack of memory or shared memory; give fewer --workers (up to "
            f"{MAX_THREADS} are threads, which need no shared memory), or the container more (docker run --shm-size 8g)"
        ) from error


@dataclass(frozen=True)
class _BatchDataset(torch.utils.data.Dataset[TrainingBatch]):
    dataset: EpochDataset
    batches: Sequence[Positions]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> TrainingBatch:
        return self.dataset.batch(self.batches[number])


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; only the training decides what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


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
