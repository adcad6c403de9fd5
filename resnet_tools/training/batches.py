"""Samples -> the batches of an epoch, which depend only on (seed, epoch), so that a resumed run sees the same ones.

Each epoch has its own order of all samples, cut into batches; each batch is split among the processes. The random
numbers of an image's augmentation depend on (seed, epoch, position), not on which worker loads it or when.

Shapes: B images in a batch over all processes, n of them in this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_tools.data.loading import attempt
from resnet_tools.data.samples import Samples
from resnet_tools.errors import ImageError
from resnet_tools.training.transforms import Transform, uncached

Positions = NDArray[np.int64]
_ORDER = 1 << 62  # beyond every position: the stream of random numbers that shuffles


@dataclass(frozen=True)
class TrainingBatch:
    """`images` (n, 3, H, W) float32, or None if no image could be read; `targets` (n,).

    `errors`: path and reason of each image that could not be read. `uncached`: why the cache did not take an image.
    """

    images: Tensor | None
    targets: Tensor
    errors: list[tuple[str, str]]
    uncached: str | None = None


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


def step_of(plan: Sequence[Positions], number: int, accumulate: int) -> tuple[int, bool]:
    """The images of the step that batch `number` (from 1) is part of, and whether it is the last batch of it."""
    first = (number - 1) // accumulate * accumulate
    group = plan[first : first + accumulate]
    return sum(map(len, group)), number == first + len(group)


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
        return TrainingBatch(stacked, targets, errors, uncached(self.transform))

    def batch(self, positions: Positions) -> TrainingBatch:
        numbers = positions.tolist()
        return self.collate(numbers, [attempt(self.image, position) for position in numbers])
