"""Logits and targets -> how many predictions are wrong; the counts of batches add up to those of the whole set.

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
    """Counts over `images` images: where the true class is not first, where it is not in the top 5; summed losses."""

    images: int = 0
    top1_wrong: int = 0
    top5_wrong: int = 0
    loss_sum: float = 0.0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.images + other.images,
            self.top1_wrong + other.top1_wrong,
            self.top5_wrong + other.top5_wrong,
            self.loss_sum + other.loss_sum,
        )

    @property
    def top1_error(self) -> float:
        """Top-1 error in percent; nan if there are no images."""
        return 100 * self.top1_wrong / self.images if self.images else float("nan")

    @property
    def top5_error(self) -> float:
        """Top-5 error in percent, with k = min(5, K); nan if there are no images."""
        return 100 * self.top5_wrong / self.images if self.images else float("nan")

    @property
    def loss(self) -> float:
        """Mean loss; nan if there are no images."""
        return self.loss_sum / self.images if self.images else float("nan")


def counts_of_ranks(ranks: Tensor, num_classes: int, loss: float = 0.0) -> ErrorCounts:
    """The counts of images whose true class has the `ranks` (N,) among `num_classes`; loss: their mean."""
    top1_wrong, top5_wrong = wrong_of_ranks(ranks, num_classes).tolist()
    return ErrorCounts(len(ranks), top1_wrong, top5_wrong, loss * len(ranks))


def wrong_of_ranks(ranks: Tensor, num_classes: int) -> Tensor:
    """(2,): how many of the images are not first, and not in the top 5, on the device of `ranks`."""
    return torch.stack([ranks >= 1, ranks >= min(TOP_K, num_classes)]).sum(1)


def ranks_of(logits: Tensor, targets: Tensor) -> Tensor:
    """How many classes rank before the true one: (N, K), (N,) -> (N,), 0 where it is first. A nan ranks first."""
    truth = logits.gather(1, targets[:, None])  # (N, 1)
    numbers = torch.arange(logits.shape[1], device=logits.device)
    earlier = (logits == truth) & (numbers < targets[:, None])
    return (~(logits <= truth) | earlier).sum(1) - torch.isnan(truth[:, 0]).long()


def best_classes(scores: Tensor, top_k: int) -> Tensor:
    """The `top_k` best classes of each image, or all, the best first: (N, K) -> (N, k). Of equal ones the first.

    `topk` orders equal ones by chance, and a stable sort of 1000 classes takes 25 times as long, so that only images
    with equal scores among the best are sorted.
    """
    best = scores.topk(min(top_k + 1, scores.shape[1]), dim=1)  # one more: the last may be equal to the next
    indices = best.indices[:, :top_k]
    unclear = ~(best.values[:, :-1] > best.values[:, 1:]).all(1)  # of nan too
    if unclear.any():
        indices[unclear] = scores[unclear].sort(stable=True, dim=1, descending=True).indices[:, :top_k]
    return indices
