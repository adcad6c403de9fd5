"""Mixup, CutMix and reproducible draws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.training.mixing import mixed, seeded
from resnet_tools.training.recipe import make_recipe


@settings(deadline=None)  # the first example imports torchvision
@given(st.integers(2, 9), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**62))
def test_mixed_targets_are_shares_that_sum_to_one(count, mixup, cutmix, seed):
    images, targets = torch.rand(count, 3, 8, 8), torch.arange(count) % 4
    made = make_recipe("original", "imagenet", mixup=mixup, cutmix=cutmix)
    mixed_images, shares = mixed(images, targets, made, 4, seed)
    if mixup + cutmix == 0:
        assert shares is targets
        return
    assert mixed_images.shape == images.shape
    assert shares.shape == (count, 4)
    assert torch.allclose(shares.sum(1), torch.ones(count))
    again, _ = mixed(images, targets, made, 4, seed)
    assert torch.equal(mixed_images, again)


def test_seeded_draws_leave_no_trace():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("alpha", [1e-320, 1e-45, 1e-9, 1e6, 1e38, 1e300, math.inf])
def test_alphas_that_float32_cannot_hold_are_no_error(alpha):
    images, targets = torch.rand(4, 3, 8, 8), torch.arange(4)
    _, shares = mixed(images, targets, make_recipe("original", "imagenet", mixup=alpha, cutmix=alpha), 4, 1)
    assert torch.allclose(shares.sum(1), torch.ones(4))
