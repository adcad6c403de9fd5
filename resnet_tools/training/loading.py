"""The images of batches, loaded ahead by one set of threads or processes for the whole run.

The processes get the samples in shared memory; validation uses the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

import numpy as np
import torch

from resnet_tools.compute.loader_processes import MAX_THREADS, LoaderProcesses, loading_error
from resnet_tools.compute.transfer import ahead_on_device
from resnet_tools.data.loading import load_ahead
from resnet_tools.data.samples import Samples
from resnet_tools.errors import LoadingError, TrainingError
from resnet_tools.training.batches import EpochDataset, Positions, TrainingBatch
from resnet_tools.training.shared_samples import shared
from resnet_tools.training.transforms import Transform, normalised_batch

AHEAD_BATCHES = 3
CPU = torch.device("cpu")


class BatchLoader:
    """Loads the batches of one epoch after another; `close` it in the end.

    workers: threads, or, if more than MAX_THREADS, processes, which are `processes`. device: where the batches are to
    be; on a GPU the next one is copied there while the current one is used.
    """

    def __init__(
        self, samples: Samples, transform: Transform, seed: int, *, workers: int, device: torch.device = CPU
    ) -> None:
        self.samples, self.transform, self.seed = samples, transform, seed
        self.workers, self.device = workers, device
        self._processes: LoaderProcesses | None = None

    @property
    def processes(self) -> LoaderProcesses | None:
        """None if threads load."""
        if self._processes is None and self.workers > MAX_THREADS:
            context = _Context(shared(self.samples), self.transform, self.seed)
            self._processes = LoaderProcesses(self.workers, context, module=__name__)
        return self._processes

    def epoch(self, epoch: int, batches: Sequence[Positions]) -> Iterator[TrainingBatch]:
        """The batches in their order; images are float32. Raises: TrainingError if they cannot be loaded."""
        load = self._by_processes if self.workers > MAX_THREADS else self._by_threads
        for batch in ahead_on_device(_failures_explained(load(epoch, batches)), self.device):
            if batch.images is not None:
                batch = replace(batch, images=normalised_batch(batch.images, self.transform))
            yield batch

    def close(self) -> None:
        """End the processes."""
        if self._processes is not None:
            self._processes.close()
        self._processes = None

    def _by_threads(self, epoch: int, batches: Sequence[Positions]) -> Iterator[TrainingBatch]:
        dataset = EpochDataset(self.samples, self.transform, self.seed, epoch)
        positions = np.concatenate(batches).tolist() if batches else []
        ahead = AHEAD_BATCHES * max(map(len, batches), default=1)
        images = load_ahead(positions, dataset.image, workers=self.workers, ahead=ahead)
        for numbers in batches:
            yield dataset.collate(numbers.tolist(), [image for _, image in islice(images, len(numbers))])

    def _by_processes(self, epoch: int, batches: Sequence[Positions]) -> Iterator[TrainingBatch]:
        processes = cast(LoaderProcesses, self.processes)
        return processes.results([_BatchTask(epoch, positions) for positions in batches])


@dataclass(frozen=True)
class _Context:
    """What every process has; `samples` in shared memory."""

    samples: Samples
    transform: Transform
    seed: int


@dataclass(frozen=True)
class _BatchTask:
    epoch: int
    positions: Positions

    def __call__(self, context: _Context) -> TrainingBatch:
        dataset = EpochDataset(context.samples, context.transform, context.seed, self.epoch)
        return dataset.batch(self.positions)


def _failures_explained(batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    """Raises: TrainingError for what threads and processes raise."""
    try:
        yield from batches
    except LoadingError as error:
        raise TrainingError(str(error)) from error
    except RuntimeError as error:
        raise TrainingError(str(loading_error(error))) from error
