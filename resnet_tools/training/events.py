"""What happens in a run, as plain values: `Run.train` yields them, and the command line turns them into text.

Batches and epochs count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from resnet_tools.evaluation.evaluate import EvaluatedBatch
from resnet_tools.history.history import Epoch
from resnet_tools.metrics import ErrorCounts


@dataclass(frozen=True)
class EpochStarted:
    epoch: int


@dataclass(frozen=True)
class BatchTrained:
    """Every batch. `counts`: those of this process that were read last, of this batch or an earlier one;
    `epoch_seconds`: since the epoch began, also in an earlier process.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    counts: ErrorCounts
    batch_size: int
    epoch_seconds: float


@dataclass(frozen=True)
class BatchLogged:
    """One batch in `log_every`, and the last one. `counts`: over all processes."""

    epoch: int
    batch: int
    batches: int
    seconds: float
    data_seconds: float
    counts: ErrorCounts


@dataclass(frozen=True)
class Notice:
    """What the user should know, once; one line. A `Note` if nothing is wrong."""

    text: str
    category: type[UserWarning] = UserWarning


@dataclass(frozen=True)
class BatchValidated:
    """`images`: of the whole validation set."""

    epoch: int
    evaluated: EvaluatedBatch
    images: int


@dataclass(frozen=True)
class EpochFinished:
    """`val`: the whole validation set; `best`: its top-1 error is lower than in every epoch before."""

    figures: Epoch
    val: ErrorCounts
    best: bool


@dataclass(frozen=True)
class RunFinished:
    """The error rates in percent of the best epoch."""

    best_top1_error: float
    best_top5_error: float


Event = EpochStarted | BatchTrained | BatchLogged | Notice | BatchValidated | EpochFinished | RunFinished
