"""The counts of the batches of an epoch: they stay on the device until they are printed, saved or exchanged.

Reading a number from a GPU waits until all that was asked of it before is done; meanwhile nothing new is asked. Whether
a loss is finite is therefore looked at when the counts are read, which is always before something is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from resnet_tools.errors import TrainingError
from resnet_tools.metrics import ErrorCounts, ranks_of, wrong_of_ranks


@dataclass(frozen=True)
class BatchCounts:
    """The counts of a batch, which may still be computed. `values` (3,): top-1 wrong, top-5 wrong, summed loss."""

    images: int
    values: Tensor

    def read(self) -> ErrorCounts:
        """Waits for the device."""
        return read_counts([self])[0]


def batch_counts(logits: Tensor, labels: Tensor, loss_sum: Tensor) -> BatchCounts:
    """Of the images of a batch, without waiting for the device: (N, K), (N,), ()."""
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    wrong = wrong_of_ranks(ranks_of(logits, labels), logits.shape[1])
    return BatchCounts(len(labels), torch.cat([wrong.to(exact), loss_sum.to(exact)[None]]))


def read_counts(batches: Sequence[BatchCounts]) -> list[ErrorCounts]:
    """The counts of batches, brought from the device together."""
    if not batches:
        return []
    values = torch.stack([batch.values for batch in batches]).tolist()
    return [
        # The mean is what is printed; its sum is rounded as that of an evaluation.
        ErrorCounts(batch.images, int(top1), int(top5), loss_sum / batch.images * batch.images)
        for batch, (top1, top5, loss_sum) in zip(batches, values, strict=True)
    ]


@dataclass
class EpochCounts:
    """The counts of this process since the epoch began, and of the last batch, as far as they have been read."""

    epoch: ErrorCounts = field(default_factory=ErrorCounts)
    last: ErrorCounts = field(default_factory=ErrorCounts)
    unread: list[tuple[BatchCounts | None, str, float]] = field(default_factory=list)

    def add(self, batch: BatchCounts | None, where: str, lr: float) -> None:
        """None: of a batch without an image that could be read. where, lr: what to say if the loss is not finite."""
        self.unread.append((batch, where, lr))

    def read(self) -> None:
        """Waits for the device. Raises: TrainingError if a loss is not finite."""
        read = iter(read_counts([batch for batch, _, _ in self.unread if batch is not None]))
        for batch, where, lr in self.unread:
            self.last = ErrorCounts() if batch is None else next(read)
            check_loss(self.last, where, lr)
            self.epoch += self.last
        self.unread.clear()


def check_loss(counts: ErrorCounts, where: str, lr: float) -> None:
    """Raises: TrainingError if the loss is not finite."""
    if not abs(counts.loss_sum) < float("inf"):  # true for nan too
        raise TrainingError(
            f"{where}: the loss is {counts.loss_sum} at a learning rate of {lr:g}. Training has diverged: try a tenth "
            "of --lr, a longer --warmup-epochs, or --precision single. The checkpoints of earlier epochs are kept"
        )
