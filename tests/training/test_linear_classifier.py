"""The classifier on fixed features is the minimum of its loss, and its penalty is chosen on rows that are left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from resnet_tools.training import linear_classifier
from resnet_tools.training.linear_classifier import PENALTIES, fit_linear_classifier


def blobs(count: int, classes: int = 3, features: int = 8, noise: float = 1.0, seed: int = 0):
    draw = np.random.default_rng(seed)
    centers = draw.normal(size=(classes, features)) * 2
    targets = np.arange(count) % classes
    rows = centers[targets] + noise * draw.normal(size=(count, features))
    return rows.astype(np.float32), targets.astype(np.int64)


def test_clear_classes_are_told_apart_whatever_the_scale():
    rows, targets = blobs(300, noise=0.3)
    for scale in (1.0, 1e-3, 1e4):
        found = fit_linear_classifier(rows * scale, targets, 3)
        logits = found.logits(torch.from_numpy(rows * scale))
        assert (logits.argmax(1).numpy() == targets).all()
        assert found.penalty in PENALTIES


def test_the_gradient_is_zero_at_the_end():
    rows, targets = blobs(200, noise=2.0)
    found = fit_linear_classifier(rows, targets, 3)
    scale = float(np.sqrt(np.square(rows).mean()))
    weight = (found.weight * scale).requires_grad_()
    bias = found.bias.clone().requires_grad_()
    logits = torch.from_numpy(rows / scale) @ weight.T + bias
    loss = cross_entropy(logits, torch.from_numpy(targets)) + found.penalty * weight.square().sum()
    loss.backward()
    assert float(weight.grad.abs().max()) < 1e-3
    assert float(bias.grad.abs().max()) < 1e-3


def test_noise_asks_for_a_stronger_penalty():
    draw = np.random.default_rng(1)
    targets = (np.arange(120) % 2).astype(np.int64)
    noise = draw.normal(size=(120, 60)).astype(np.float32)
    clear = noise + 3 * targets[:, None].astype(np.float32)
    assert fit_linear_classifier(noise, targets, 2).penalty == max(PENALTIES)
    assert fit_linear_classifier(clear, targets, 2).penalty < max(PENALTIES)


def test_a_fifth_of_each_class_is_left_out_and_a_single_row_never():
    left_out = linear_classifier._left_out(np.array([0] * 40 + [1] * 10 + [2]), 0)
    assert [left_out[:40].sum(), left_out[40:50].sum(), left_out[50]] == [8, 2, False]
    assert not linear_classifier._left_out(np.array([0, 1, 2]), 0).any()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_rows_is_enough(count):
    rows, targets = blobs(count, classes=max(1, count))
    found = fit_linear_classifier(rows, targets, 7)
    assert found.weight.shape == (7, 8)
    assert found.bias.isfinite().all()
    assert (found.logits(torch.from_numpy(rows)).argmax(1).numpy() == targets).all()
