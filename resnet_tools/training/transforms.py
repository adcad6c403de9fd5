"""The name of an augmentation -> what turns an image of the training set into the net's input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_tools.data.augment import LIGHT, NO_AUGMENTATION, ORIGINAL_CIFAR, ORIGINAL_IMAGENET, Augmentation, augmented
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.training.mixing import seeded
from resnet_tools.training.recipe import AugmentationName

Transform = Callable[[Any, np.random.Generator], Tensor]  # an image's path or pixels, random numbers -> (3, H, W)


def training_transform(name: AugmentationName, dataset: str, preprocessing: Preprocessing) -> Transform:
    """What turns an image of the training set into (3, crop, crop); a plain value, which worker processes can copy."""
    view = _trivial_view if name == "trivial" else _view
    return partial(view, preprocessing=preprocessing, augmentation=augmentation(name, dataset))


def augmentation(name: AugmentationName, dataset: str) -> Augmentation:
    """What is drawn for a training image. `trivial` has one more operation, see `_trivial_view`."""
    if name == "none":
        return NO_AUGMENTATION
    if dataset != "imagenet":
        return ORIGINAL_CIFAR
    return {"original": ORIGINAL_IMAGENET, "light": LIGHT, "trivial": replace(LIGHT, min_area=0.08)}[name]


def _view(
    image: Any, generator: np.random.Generator, *, preprocessing: Preprocessing, augmentation: Augmentation
) -> Tensor:
    return augmented(image, preprocessing, augmentation, generator)


def _trivial_view(
    image: Any, generator: np.random.Generator, *, preprocessing: Preprocessing, augmentation: Augmentation
) -> Tensor:
    """A crop with one random operation of TrivialAugment (arXiv:2103.10158), normalised."""
    from torchvision.transforms import v2

    # torchvision's operations need bytes, so the crop is normalised after them.
    channels = preprocessing.channels
    plain = replace(preprocessing, mean=(0.0,) * channels, std=(1.0,) * channels, pixel_max=255.0)
    crop = augmented(image, plain, augmentation, generator)
    with seeded(int(generator.integers(1 << 62))):
        changed = v2.TrivialAugmentWide()(crop.round().clamp(0, 255).to(torch.uint8))
    white = 255 / preprocessing.pixel_max
    mean, std = (torch.tensor(values).view(channels, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    normalised: Tensor = (changed / white - mean) / std
    return normalised
