"""The name of an augmentation -> what turns an image of the training set into the net's input."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_tools.data.augment import LIGHT, NO_AUGMENTATION, ORIGINAL_CIFAR, ORIGINAL_IMAGENET, Augmentation, augmented
from resnet_tools.data.image import read_image
from resnet_tools.data.photo_cache import PhotoCache
from resnet_tools.data.photographs import ENOUGH, photograph
from resnet_tools.data.transforms import Preprocessing, loaded
from resnet_tools.training.mixing import seeded
from resnet_tools.training.recipe import AugmentationName

Transform = Callable[[Any, np.random.Generator], Tensor]  # an image's path or pixels, random numbers -> (3, H, W)


@dataclass(frozen=True)
class TrainingTransform:
    """What turns an image of the training set into (C, crop, crop); a plain value, which worker processes can copy.

    as_bytes: give uint8 pixels, for `normalised_batch` to normalise where they are computed with: a quarter of the
    bytes on their way to a GPU. The pixels are rounded, as those of other trainers are; `trivial` does so anyway.
    reduced: decode no more of a JPEG than its view needs. cache: smaller copies of large images, which views are cut
    out of.
    """

    name: AugmentationName
    augmentation: Augmentation
    preprocessing: Preprocessing
    as_bytes: bool = False
    reduced: bool = False
    cache: PhotoCache | None = None

    def __call__(self, image: Any, generator: np.random.Generator) -> Tensor:
        image = self._photograph(loaded(image)) if self.reduced or self.cache else image
        if self.name != "trivial" and not self.as_bytes:
            return augmented(image, self.preprocessing, self.augmentation, generator)
        crop = augmented(image, _plain(self.preprocessing), self.augmentation, generator)
        pixels = crop.round().clamp(0, 255).to(torch.uint8)
        if self.name == "trivial":
            pixels = _trivially_changed(pixels, generator)
        return pixels if self.as_bytes else normalised_batch(pixels, self)

    def _photograph(self, image: Any) -> Any:
        """Of a file; anything else as it is."""
        if not isinstance(image, (str, os.PathLike)):
            return image
        if self.cache is not None:
            return self.cache.photograph(os.fspath(image))
        return photograph(read_image(image), exif=self.preprocessing.exif_orientation)


def training_transform(
    name: AugmentationName,
    dataset: str,
    preprocessing: Preprocessing,
    *,
    as_bytes: bool = False,
    reduced: bool = False,
) -> TrainingTransform:
    """Without a cache; `replace` gives it one, whose copies are as large as `copies_side_px` says."""
    return TrainingTransform(name, augmentation(name, dataset), preprocessing, as_bytes, reduced)


def copies_side_px(transform: TrainingTransform) -> int:
    """The shorter side of the copies in a cache: twice the crop, or all that the crop is cut out of.

    The smallest crops of `trivial`, 8 % of an image, are enlarged by a half from them, a sixth of all by less. Of parts
    of 15 photographs (240 pixels, crop 48, 10 epochs of `modern`, no EMA), 34.6 % were mistaken without copies and 35.0
    with them: means of 8 seeds, over which the standard deviation was 3.3.
    """
    twice = ENOUGH * transform.preprocessing.crop_px
    return twice if transform.augmentation.crop == "sized" else max(twice, transform.preprocessing.resize_px)


def uncached(transform: Transform) -> str | None:
    """Why a copy could not be kept in the cache, if any could not since this was asked."""
    cache = transform.cache if isinstance(transform, TrainingTransform) else None
    return cache.problem() if cache is not None else None


def normalised_batch(images: Tensor, transform: Transform) -> Tensor:
    """([N,] C, H, W): uint8 pixels become the net's float32 input, on their device; floats are it already."""
    if images.dtype != torch.uint8 or not isinstance(transform, TrainingTransform):
        return images
    preprocessing = transform.preprocessing
    white = 255 / preprocessing.pixel_max
    mean, std = (_per_channel(values, images.device) for values in (preprocessing.mean, preprocessing.std))
    return (images / white - mean) / std


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1). Kept, because to bring it to a GPU for each batch would be to wait for the GPU each time."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def augmentation(name: AugmentationName, dataset: str) -> Augmentation:
    """What is drawn for a training image. `trivial` has one more operation, see `_trivially_changed`."""
    if name == "none":
        return NO_AUGMENTATION
    if dataset != "imagenet":
        return ORIGINAL_CIFAR
    return {"original": ORIGINAL_IMAGENET, "light": LIGHT, "trivial": replace(LIGHT, min_area=0.08)}[name]


def _plain(preprocessing: Preprocessing) -> Preprocessing:
    """With it, pixels stay between 0 and 255."""
    channels = preprocessing.channels
    return replace(preprocessing, mean=(0.0,) * channels, std=(1.0,) * channels, pixel_max=255.0)


def _trivially_changed(pixels: Tensor, generator: np.random.Generator) -> Tensor:
    """One random operation of TrivialAugment (arXiv:2103.10158). torchvision's operations need bytes."""
    from torchvision.transforms import v2

    with seeded(int(generator.integers(1 << 62))):
        changed: Tensor = v2.TrivialAugmentWide()(pixels)
    return changed
