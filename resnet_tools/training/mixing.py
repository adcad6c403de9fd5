"""Mixup and CutMix of a batch, and reproducible random numbers for torchvision's transforms.

Sources: Zhang et al. 2017 (arXiv:1710.09412), Yun et al. 2019 (arXiv:1905.04899); torchvision.transforms.v2.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from resnet_tools.training.recipe import Recipe

# torch draws from Beta distributions in float32, where an alpha beyond these is 0 or infinite, and refused.
MIN_ALPHA, MAX_ALPHA = 1e-30, 1e30
_LOCK = threading.Lock()  # torchvision draws from torch's one generator


def mixed(images: Tensor, targets: Tensor, recipe: Recipe, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W), (N,) -> images mixed in pairs, and the share of each class, (N, K); unchanged without mixing.

    `recipe.mixup` and `recipe.cutmix` are the alphas of their Beta distributions; if both are above 0, one of them is
    chosen for each batch with probability 1/2.
    """
    if len(images) < 2 or num_classes < 2 or recipe.mixup + recipe.cutmix == 0:
        return images, targets
    from torchvision.transforms import v2

    choices: list[v2.Transform] = []
    if recipe.mixup:
        choices.append(v2.MixUp(alpha=_drawable(recipe.mixup), num_classes=num_classes))
    if recipe.cutmix:
        choices.append(v2.CutMix(alpha=_drawable(recipe.cutmix), num_classes=num_classes))
    with seeded(seed):
        mixed_images, shares = v2.RandomChoice(choices)(images, targets)
    return mixed_images, shares


def _drawable(alpha: float) -> float:
    return min(max(alpha, MIN_ALPHA), MAX_ALPHA)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block torch's CPU generator starts from `seed`; afterwards it continues as if nothing was drawn."""
    with _LOCK:
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)
