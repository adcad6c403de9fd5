"""Features and their classes -> a linear classifier: multinomial logistic regression with an L2 penalty.

The features are scaled by one number, so that the penalties mean the same for every net; the penalty is the one that
does best on a part of each class that is left out. L-BFGS finds the minimum, from zeros, so nothing is random but the
part that is left out.

Shapes: N rows of D features, K classes.
Source of the method: Kornblith et al. 2019 (arXiv:1805.08974), appendix A.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the sum of squared weights, beside the mean loss
LEFT_OUT = 0.2  # of each class
MIN_LEFT_OUT = 10  # with fewer rows left out, no penalty can be told from another
DEFAULT_PENALTY = 1e-3
ITERATIONS = 200


@dataclass(frozen=True)
class LinearClassifier:
    """logits = features @ weight.T + bias; (K, D) and (K,) float32. `penalty`: the one that was chosen."""

    weight: Tensor
    bias: Tensor
    penalty: float

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return features @ self.weight.T + self.bias


def fit_linear_classifier(
    features: NDArray[np.float32],
    targets: NDArray[np.int64],
    num_classes: int,
    *,
    seed: int = 0,
) -> LinearClassifier:
    """features (N, D), targets (N,)."""
    rows, classes = torch.from_numpy(np.ascontiguousarray(features, np.float32)), torch.from_numpy(targets)
    scale = float(rows.square().mean().sqrt()) or 1.0
    rows = rows / scale
    left_out = torch.from_numpy(_left_out(targets, seed))
    penalty = DEFAULT_PENALTY
    if int(left_out.sum()) >= MIN_LEFT_OUT:
        losses = {}
        start = None
        for candidate in reversed(PENALTIES):  # from smooth to sharp, each from where the one before ended
            start = _fitted(rows[~left_out], classes[~left_out], num_classes, candidate, start)
            losses[candidate] = float(cross_entropy(_logits(start, rows[left_out]), classes[left_out]))
        penalty = min(losses, key=lambda candidate: losses[candidate])
    weight, bias = _split(_fitted(rows, classes, num_classes, penalty, None))
    return LinearClassifier(weight / scale, bias, penalty)


def _left_out(targets: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """A part of each class; a class of one row stays whole."""
    generator = np.random.default_rng(seed)
    left_out = np.zeros(len(targets), bool)
    for target in np.unique(targets):
        members = np.flatnonzero(targets == target)
        count = min(len(members) - 1, round(LEFT_OUT * len(members)))
        left_out[generator.permutation(members)[:count]] = True
    return left_out


def _fitted(rows: Tensor, classes: Tensor, num_classes: int, penalty: float, start: Tensor | None) -> Tensor:
    """(K, D + 1): weights and bias."""
    values = torch.zeros(num_classes, rows.shape[1] + 1) if start is None else start.clone()
    values.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [values], max_iter=ITERATIONS, history_size=10, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = cross_entropy(_logits(values, rows), classes) + penalty * values[:, :-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return values.detach()


def _logits(values: Tensor, rows: Tensor) -> Tensor:
    weight, bias = _split(values)
    return rows @ weight.T + bias


def _split(values: Tensor) -> tuple[Tensor, Tensor]:
    return values[:, :-1], values[:, -1]
