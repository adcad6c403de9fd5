"""Logits and targets -> how many images are wrong, counted so that counts of parts add up to the count of the whole.

Shapes: N images, K classes. Error rates are in percent, as the original reports them.
Source: fb.resnet.torch 985e569, train.lua (computeScore); there k of top-5 must not exceed the number of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOP_K = 5


@dataclass(frozen=True)
class ErrorCounts:
    """Of `images` images: how many have the truth not first, or not among the five best; the sum of their losses."""

    images: int = 0
    top1_errors: int = 0
    top5_errors: int = 0
    loss_sum: float = 0.0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.images + other.images,
            self.top1_errors + other.top1_errors,
            self.top5_errors + other.top5_errors,
            self.loss_sum + other.loss_sum,
        )

    @property
    def top1(self) -> float:
        """Top-1 error in percent; nan without images."""
        return 100 * self.top1_errors / self.images if self.images else float("nan")

    @property
    def top5(self) -> float:
        """Top-5 error in percent, of the k = min(5, K) best; nan without images."""
        return 100 * self.top5_errors / self.images if self.images else float("nan")

    @property
    def loss(self) -> float:
        """Mean loss; nan without images."""
        return self.loss_sum / self.images if self.images else float("nan")


def error_counts(logits: Tensor, targets: Tensor, loss: float = 0.0) -> ErrorCounts:
    """The counts of a batch: logits (N, K), or (N, 10, K) for ten crops, whose raw outputs are summed; targets (N,).

    loss: the mean over the batch. Equal logits: the class of the lower number is taken to be better.
    """
    if logits.ndim == 3:
        logits = logits.sum(1)
    return counts_of_ranks(ranks_of(logits, targets), logits.shape[1], loss)


def counts_of_ranks(ranks: Tensor, num_classes: int, loss: float = 0.0) -> ErrorCounts:
    """The counts of images whose truth is at `ranks` (N,) among that many classes; `loss` is their mean."""
    wrong = torch.stack([ranks >= 1, ranks >= min(TOP_K, num_classes)]).sum(1).tolist()
    return ErrorCounts(len(ranks), wrong[0], wrong[1], loss * len(ranks))


def ranks_of(logits: Tensor, targets: Tensor) -> Tensor:
    """How many classes come before the truth: (N, K), (N,) -> (N,), 0 where the truth is first. A nan comes first."""
    truth = logits.gather(1, targets[:, None])  # (N, 1)
    numbers = torch.arange(logits.shape[1], device=logits.device)
    earlier = (logits == truth) & (numbers < targets[:, None])
    return (~(logits <= truth) | earlier).sum(1) - torch.isnan(truth[:, 0]).long()
