"""A net and labelled images -> its prediction for each image, and the error rates, in one process or several.

`evaluate_batches` is the one loop: `evaluate` gathers all that it yields, validation in a training only the counts.
Batches hold the same images whatever the number of processes (`inference.own_batches`), so every image counts once and
the figures are the same to the last digit.

Shapes: N samples, K classes.
Source: fb.resnet.torch 985e569, train.lua (Trainer:test).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from resnet_tools.checkpoints.runnable import Net
from resnet_tools.compute.inference import Average, Loading, device_of, logits_of, own_batches
from resnet_tools.compute.predictions import WHY_NOT_FINITE
from resnet_tools.compute.processes import ALONE, Processes
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DataError, ImageError
from resnet_tools.metrics import TOP_K, ErrorCounts, best_classes, counts_of_ranks, ranks_of
from resnet_tools.text import counted

if TYPE_CHECKING:
    from typing_extensions import Unpack

UNREAD = -1
OnError = Literal["skip", "fail"]


class BatchOptions(TypedDict, total=False):
    """The options of `evaluate_batches`."""

    average: Average
    on_error: OnError
    processes: Processes
    autocast: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class ImageScores:
    """A net's results for N images, as plain values that processes can exchange.

    `ranks`: how many classes rank before the truth. `best`: the min(5, K) best classes of each image, the best first;
    `probabilities`: theirs.
    """

    ranks: list[int]
    best: list[list[int]]
    probabilities: list[list[float]]
    losses: list[float]


NO_SCORES = ImageScores([], [], [], [])


@dataclass(frozen=True)
class EvaluatedBatch:
    """One batch of this process: `size` samples from position `start` on. `number` of `batches` counts from 1.

    `scores` and `counts` cover the images that could be read; `errors`: sample position -> why it could not.
    `so_far`: the counts of all batches of this process up to this one. `seconds`: for the whole batch;
    `data_seconds`: the part spent waiting for its images.
    """

    number: int
    batches: int
    start: int
    size: int
    scores: ImageScores
    errors: dict[int, str]
    counts: ErrorCounts
    so_far: ErrorCounts
    seconds: float
    data_seconds: float


def evaluate_batches(
    model: Net,
    samples: Samples,
    loading: Loading,
    *,
    average: Average = "outputs",
    on_error: OnError = "skip",
    processes: Processes = ALONE,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[EvaluatedBatch]:
    """The batches of this process, one after the other; `samples.targets` are the model's outputs.

    average: see `logits_of`. autocast: the context in which the net computes.
    Raises: ImageError with on_error=fail; DeviceMemoryError.
    """
    if isinstance(model, torch.nn.Module):  # other engines know no training
        model.eval()
    batches = -(-len(samples) // loading.batch_size)
    so_far, clock = ErrorCounts(), time.monotonic()
    for start, batch in own_batches(samples.images, loading, processes, device_of(model)):
        data_seconds = time.monotonic() - clock
        errors = {k: str(error) for k, error in enumerate(batch.errors, start) if error is not None}
        if errors and on_error == "fail":
            raise ImageError(f"{next(iter(errors.values()))}. Remove or replace the image, or give --on-error skip")
        scores, counts = NO_SCORES, ErrorCounts()
        # A batch without a readable image still yields a record, so that callers see each batch once.
        if batch.images is not None:
            with autocast():
                logits = logits_of(model, batch.images, average)  # (n, K) float32
            read = [k for k, error in enumerate(batch.errors, start) if error is None]
            scores = _scores(logits, torch.tensor([samples.targets[k] for k in read]))
            counts = _counts(scores, logits.shape[1])
        so_far += counts
        seconds, clock = time.monotonic() - clock, time.monotonic()
        yield EvaluatedBatch(
            start // loading.batch_size + 1,
            batches,
            start,
            len(batch.paths),
            scores,
            errors,
            counts,
            so_far,
            seconds,
            data_seconds,
        )


def _scores(logits: Tensor, targets: Tensor) -> ImageScores:
    """Of n images: logits (n, K), targets (n,)."""
    best = best_classes(logits, TOP_K)  # which orders equal ones as `ranks_of` does
    probabilities = logits.softmax(1).gather(1, best)
    losses = cross_entropy(logits, targets, reduction="none")
    return ImageScores(
        ranks_of(logits, targets).tolist(), best.tolist(), probabilities.double().tolist(), losses.double().tolist()
    )


def _counts(scores: ImageScores, num_classes: int) -> ErrorCounts:
    loss = math.fsum(scores.losses) / max(1, len(scores.losses))
    return counts_of_ranks(torch.tensor(scores.ranks, dtype=torch.int64), num_classes, loss)


def total_counts(batches: Sequence[tuple[int, ErrorCounts]], processes: Processes) -> ErrorCounts:
    """The counts of all processes, from (number, counts) of the batches of this one.

    Added in the order of the batches, so that the loss does not depend on the number of processes.
    """
    gathered = sorted((pair for part in processes.gather(list(batches)) for pair in part), key=lambda pair: pair[0])
    return sum((counts for _, counts in gathered), ErrorCounts())


@dataclass(frozen=True)
class Evaluation:
    """A net's results for N samples: arrays in their order, with UNREAD for images that could not be read.

    `ranks` and `losses` (N,), `best` and `best_probabilities` (N, min(5, K)) are as in `ImageScores`. `errors`:
    position -> why the image could not be read. `average`: what was averaged over ten crops.
    """

    samples: Samples
    ranks: NDArray[np.int64]
    best: NDArray[np.int64]
    best_probabilities: NDArray[np.float64]
    losses: NDArray[np.float64]
    errors: dict[int, str]
    average: Average = "outputs"

    @cached_property
    def counts(self) -> ErrorCounts:
        """Of the images that could be read."""
        read = self.ranks != UNREAD
        loss = math.fsum(self.losses[read]) / max(1, read.sum())
        return counts_of_ranks(torch.from_numpy(self.ranks[read]), len(self.samples.class_names), loss)

    @property
    def not_finite(self) -> int:
        """How many images the net gave NaN or infinite numbers for; then the loss is none either."""
        return int((~np.isfinite(self.losses)).sum())

    @property
    def predictions(self) -> NDArray[np.int64]:
        """(N,): the best class."""
        return self.best[:, 0]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N,): that of the best class."""
        return self.best_probabilities[:, 0]

    @property
    def truth_probabilities(self) -> NDArray[np.float64]:
        """(N,): that of the true class."""
        return np.where(self.ranks == UNREAD, UNREAD, np.exp(-self.losses))


def evaluate(
    model: Net,
    samples: Samples,
    loading: Loading,
    *,
    progress: Callable[[int, list[str]], None] = lambda *_: None,
    **options: Unpack[BatchOptions],
) -> Evaluation:
    """The whole evaluation, in every process.

    progress: called with the number of images done and the reasons for those that could not be read.
    Warns of images for which the net gives no finite numbers; process 0 does, where there are several.
    Raises: ImageError with on_error=fail, DataError if no image could be read.
    """
    done: list[tuple[int, ImageScores, dict[int, str]]] = []
    for batch in evaluate_batches(model, samples, loading, **options):
        done.append((batch.start, batch.scores, batch.errors))
        progress(batch.size, list(batch.errors.values()))
    processes = options.get("processes", ALONE)
    gathered = sorted((item for part in processes.gather(done) for item in part), key=lambda item: item[0])
    found = _merged(samples, gathered, options.get("average", "outputs"))
    if found.not_finite and processes.rank == 0:
        warnings.warn(
            f"the net gives NaN or infinite outputs for {found.not_finite} of {counted(len(samples), 'image')}, whose "
            f"errors mean nothing; {WHY_NOT_FINITE}",
            stacklevel=2,
        )
    return found


def _merged(samples: Samples, done: Sequence[tuple[int, ImageScores, dict[int, str]]], average: Average) -> Evaluation:
    errors = {position: reason for _, _, found in done for position, reason in found.items()}
    if len(errors) == len(samples):
        first = f": {next(iter(errors.values()))}" if errors else ""
        raise DataError(f"none of the {counted(len(samples), 'image')} could be read{first}")
    read = np.ones(len(samples), bool)
    read[list(errors)] = False

    def whole(name: str, kind: type) -> NDArray[Any]:
        found: NDArray[Any] = np.array([value for _, scores, _ in done for value in getattr(scores, name)], kind)
        values: NDArray[Any] = np.full((len(samples), *found.shape[1:]), UNREAD, kind)
        values[read] = found
        return values

    ranks, best, losses = whole("ranks", np.int64), whole("best", np.int64), whole("losses", np.float64)
    return Evaluation(samples, ranks, best, whole("probabilities", np.float64), losses, errors, average)
