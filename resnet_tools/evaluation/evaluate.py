"""A net and labelled images -> what the net made of each image, and the error rates, on one process or many.

Batches hold the same images whatever the number of processes (`inference.own_batches`), so every image counts once and
the figures are the same to the last digit.

Shapes: N samples, K classes.
Source: fb.resnet.torch 985e569, train.lua (Trainer:test).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from resnet_tools.compute.inference import Average, Loading, logits_of, own_batches
from resnet_tools.compute.processes import ALONE, Processes
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError, ImageError
from resnet_tools.metrics import ErrorCounts, counts_of_ranks, ranks_of
from resnet_tools.nets.resnet import ResNet

UNREAD = -1
T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """What a net made of N samples: arrays (N,) in their order, with UNREAD where the image could not be read.

    `ranks`: how many classes came before the truth. `predictions`: the best class, `probabilities`: its probability.
    `errors`: position -> why the image could not be read. `average`: what of ten crops was averaged.
    """

    samples: Samples
    ranks: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    losses: NDArray[np.float64]
    errors: dict[int, str]
    average: Average = "outputs"

    @cached_property
    def counts(self) -> ErrorCounts:
        """Of the images that could be read."""
        read = self.ranks != UNREAD
        loss = math.fsum(self.losses[read]) / max(1, read.sum())
        return counts_of_ranks(torch.from_numpy(self.ranks[read]), len(self.samples.class_names), loss)


@dataclass(frozen=True)
class _Records:
    """The same of a batch, for the images that could be read, as plain values that processes can exchange."""

    ranks: list[int] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def evaluate(
    model: ResNet,
    samples: Samples,
    loading: Loading,
    *,
    average: Average = "outputs",
    on_error: Literal["skip", "fail"] = "skip",
    processes: Processes = ALONE,
    progress: Callable[[int, list[str]], None] = lambda *_: None,
) -> Evaluation:
    """The whole evaluation, in every process; `samples.targets` are the model's outputs.

    average: see `logits_of`. progress: called with the number of files done and messages on unreadable ones.
    Raises: ImageError with on_error=fail, DataError if no image could be read.
    """
    targets = torch.tensor(samples.targets)
    done: list[tuple[int, _Records, dict[int, str]]] = []
    for start, batch in own_batches(samples.images, loading, processes):
        errors = {start + at: str(error) for at, error in enumerate(batch.errors) if error is not None}
        if errors and on_error == "fail":
            raise ImageError(f"{next(iter(errors.values()))} (--on-error fail)")
        good = [start + at for at, error in enumerate(batch.errors) if error is None]
        records = _Records()
        if batch.images is not None:
            records = _records(logits_of(model, batch.images, average), targets[good])
        done.append((start, records, errors))
        progress(len(batch.paths), list(errors.values()))
    return _merged(samples, _flat(processes.gather(done)), average)


def _records(logits: Tensor, targets: Tensor) -> _Records:
    """Of N images: logits (N, K), targets (N,)."""
    best = logits.argmax(1)  # the first of equal ones, as `ranks_of` orders them
    probabilities = logits.softmax(1).gather(1, best[:, None])[:, 0]
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return _Records(
        ranks_of(logits, targets).tolist(), best.tolist(), probabilities.double().tolist(), losses.double().tolist()
    )


def _merged(samples: Samples, done: list[tuple[int, _Records, dict[int, str]]], average: Average) -> Evaluation:
    done = sorted(done, key=lambda batch: batch[0])
    errors = {position: reason for _, _, found in done for position, reason in found.items()}
    if len(errors) == len(samples):
        first = f": {next(iter(errors.values()))}" if errors else ""
        raise DataError(f"none of the {len(samples)} images could be read{first}")
    read = np.ones(len(samples), bool)
    read[list(errors)] = False

    def whole(name: str, kind: type) -> NDArray[Any]:
        values: NDArray[Any] = np.full(len(samples), UNREAD, kind)
        values[read] = _flat([getattr(records, name) for _, records, _ in done])
        return values

    return Evaluation(
        samples,
        whole("ranks", np.int64),
        whole("predictions", np.int64),
        whole("probabilities", np.float64),
        whole("losses", np.float64),
        errors,
        average,
    )


def _flat(lists: list[list[T]]) -> list[T]:
    return [value for values in lists for value in values]
