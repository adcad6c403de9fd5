"""Image -> a random view of it, normalised, as the original trained on it.

In: the path of an image, or its pixels, and a random generator. Out: a (C, crop_px, crop_px) float32 tensor. The steps
are the original's, in its order and without clamping; numbers are drawn in its order too, so a view depends on nothing
but the image and the generator. All steps on colours are linear: jitter, lighting and normalisation of one image are
one C x 3 matrix and a bias. Only the pixels of the crop are scaled, and a flip costs nothing. For a net of gray images
(C = 1) the matrix ends with the gray of the colours, which is what the steps would make of the gray image.

Source: fb.resnet.torch 985e569, datasets/transforms.lua, imagenet.lua and cifar10.lua.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_tools.data.image import ImagePath
from resnet_tools.data.photographs import Photograph, whole_photograph
from resnet_tools.data.resample import resample
from resnet_tools.data.transforms import (
    GRAY,
    Preprocessing,
    center_crop_offset,
    normalised,
    pixels_of,
    scale_size,
    white_of,
)

Crop = Literal["sized", "padded", "center"]
Matrix = NDArray[np.float64]

GRAY_WEIGHTS = np.array(GRAY)
# The principal components of ImageNet's colours (one component per column) and their variances, as Lighting has them.
PCA_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
PCA_VALUES = np.array([0.2175, 0.0188, 0.0045])
SIZED_ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """What is drawn at random for a training image.

    crop: `sized` is a part of the image with `min_area` to all of its area, scaled to crop_px (RandomSizedCrop);
    `padded` is a crop of the scaled, normalised image with `padding_px` zeros around (RandomCrop); `center` draws
    nothing and is evaluation's crop. brightness, contrast, saturation: factors within 1 +- the number, in random order.
    lighting: standard deviation of PCA lighting. flip: mirror every second image.

    Raises ValueError for numbers with which no image could be made.
    """

    crop: Crop
    min_area: float = 0.08
    padding_px: int = 4
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    lighting: float = 0.0

    def __post_init__(self) -> None:
        if self.crop not in get_args(Crop):
            raise ValueError(f"crop is {self.crop!r}; expected one of {', '.join(get_args(Crop))}")
        if not 0 < self.min_area <= 1:
            raise ValueError(f"min_area is {self.min_area!r}; expected a part of the image, above 0 and at most 1")
        if type(self.padding_px) is not int or not 0 <= self.padding_px <= 1024:
            raise ValueError(f"padding_px is {self.padding_px!r}; expected a whole number from 0 to 1024")
        for name in (*JITTER, "lighting"):
            strength = getattr(self, name)
            if not 0 <= strength <= 10:
                raise ValueError(f"{name} is {strength!r}; expected a number from 0 to 10")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as a checkpoint stores them; `Augmentation(**values)` is the inverse."""
        return asdict(self)


JITTER = ("brightness", "contrast", "saturation")  # in the order that the random permutation counts them
ORIGINAL_IMAGENET = Augmentation("sized", brightness=0.4, contrast=0.4, saturation=0.4, lighting=0.1)
ORIGINAL_CIFAR = Augmentation("padded")
LIGHT = Augmentation("sized", min_area=0.35)
NO_AUGMENTATION = Augmentation("center", flip=False)


def augmented(
    image: ImagePath | NDArray[Any] | Photograph,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    generator: np.random.Generator,
) -> Tensor:
    """A random view of an image, (C, crop_px, crop_px) float32, normalised.

    `image` is a path, or pixels (H, W, 3): uint8, uint16, or floats from 0 to 1; of a `Photograph` no more pixels are
    decoded than its view needs. Raises ImageError.
    """
    if not isinstance(image, Photograph):
        image = whole_photograph(pixels_of(image, preprocessing.exif_orientation))
    crop = preprocessing.crop_px
    # The order of these draws is the original's; so the same generator gives the same view.
    part, (h, w) = _drawn_part(image, preprocessing, augmentation, generator)
    colours = _drawn_colours(augmentation, generator)
    mirrored = augmentation.flip and generator.uniform(0, 1) < 0.5
    y, x = _drawn_start(h, w, crop, augmentation, generator)
    if mirrored and augmentation.crop == "padded":
        x = w - crop - x  # the original crops the image that is already mirrored
    (rows, to_rows), (columns, to_columns) = _overlap(y, crop, h), _overlap(x, crop, w)
    pixels, spans = image.part(part, (h, w))
    if colours is None and augmentation.crop != "sized":  # few sizes: the sums that scale and normalise are kept
        seen = normalised(pixels, (h, w), [rows], [columns], preprocessing, mirrored=mirrored, spans=spans)
    else:
        scaled = resample(pixels, (h, w), [rows], [columns], mirrored=mirrored, spans=spans)
        seen = _recoloured(scaled, white_of(pixels), colours or Colours([], np.zeros(3)), preprocessing)
    # RandomCrop may reach beyond the image: there the view stays 0, as the padding is added after normalisation.
    if seen.shape[1:] == (crop, crop):
        return seen
    view = seen.new_zeros(len(seen), crop, crop)
    if mirrored:
        to_columns = slice(crop - to_columns.stop, crop - to_columns.start)
    view[:, to_rows, to_columns] = seen
    return view


def _drawn_part(
    image: Photograph, preprocessing: Preprocessing, augmentation: Augmentation, generator: np.random.Generator
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """The part of the image that is scaled, (top, left, height, width), and its size then."""
    height, width = image.height, image.width
    scale_px = preprocessing.resize_px
    if augmentation.crop == "sized":
        scale_px = preprocessing.crop_px
        box = sized_box(height, width, augmentation.min_area, generator)
        if box is not None:
            return box, (scale_px, scale_px)
    return (0, 0, height, width), scale_size(height, width, scale_px)


def sized_box(
    height: int, width: int, min_area: float, generator: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """The part that RandomSizedCrop cuts out: (top, left, height, width), or None after ten that do not fit."""
    for _ in range(SIZED_ATTEMPTS):
        area = generator.uniform(min_area, 1) * (height * width)
        aspect = generator.uniform(3 / 4, 4 / 3)
        # At least one pixel: the original fails on images so small that a side rounds to zero.
        w = max(1, math.floor(math.sqrt(area * aspect) + 0.5))
        h = max(1, math.floor(math.sqrt(area / aspect) + 0.5))
        if generator.uniform(0, 1) < 0.5:
            w, h = h, w
        if h <= height and w <= width:
            top = int(generator.integers(0, height - h, endpoint=True))
            left = int(generator.integers(0, width - w, endpoint=True))
            return top, left, h, w
    return None


def _drawn_start(
    h: int, w: int, crop_px: int, augmentation: Augmentation, generator: np.random.Generator
) -> tuple[int, int]:
    """Where the crop starts in the scaled image, (y, x); RandomCrop may start in the padding around it."""
    if augmentation.crop != "padded":
        return center_crop_offset(h, crop_px), center_crop_offset(w, crop_px)
    padding_px = augmentation.padding_px
    if padding_px >= crop_px:
        raise ValueError(f"a padding of {padding_px} pixels leaves crops of {crop_px} without the image")
    if h + 2 * padding_px == crop_px == w + 2 * padding_px:
        return 0, 0  # nothing to choose, and nothing is drawn
    x = int(generator.integers(0, w + 2 * padding_px - crop_px, endpoint=True)) - padding_px
    y = int(generator.integers(0, h + 2 * padding_px - crop_px, endpoint=True)) - padding_px
    return y, x


def _overlap(start: int, length: int, side: int) -> tuple[range, slice]:
    """The pixels of a side within start ... start + length, and their place in that range."""
    first, last = max(start, 0), min(start + length, side)
    return range(first, last), slice(first - start, last - start)


@dataclass(frozen=True)
class Colours:
    """Jitter steps in their order, each with the weight of the image in its blend, and what lighting adds to RGB."""

    steps: Sequence[tuple[str, float]]
    light: Matrix


def _drawn_colours(augmentation: Augmentation, generator: np.random.Generator) -> Colours | None:
    """None where colours stay as they are."""
    steps: list[tuple[str, float]] = []
    light = np.zeros(3)
    if names := [name for name in JITTER if getattr(augmentation, name)]:
        for which in generator.permutation(len(names)):
            strength = getattr(augmentation, names[which])
            steps.append((names[which], 1 + generator.uniform(-strength, strength)))
    if augmentation.lighting:
        light = PCA_VECTORS @ (generator.normal(0, augmentation.lighting, 3) * PCA_VALUES)
    return Colours(steps, light) if names or augmentation.lighting else None


def _recoloured(image: Tensor, white: float, colours: Colours, preprocessing: Preprocessing) -> Tensor:
    """Jitter, lighting and normalisation of a (3, h, w) image with colours from 0 to `white`: (C, h, w)."""
    flat = image.view(3, -1)
    has_contrast = any(name == "contrast" for name, _ in colours.steps)
    gray_mean = float(GRAY_WEIGHTS @ flat.mean(1).numpy()) / white if has_contrast else 0.0
    matrix, bias = colour_matrix(colours, gray_mean)
    if preprocessing.channels == 1:
        matrix, bias = GRAY_WEIGHTS[None] @ matrix, GRAY_WEIGHTS[None] @ bias
    std = np.array(preprocessing.std)
    matrix *= (preprocessing.pixel_max / std / white)[:, None]
    bias = (bias * preprocessing.pixel_max - preprocessing.mean) / std
    seen = torch.addmm(torch.from_numpy(bias).float()[:, None], torch.from_numpy(matrix).float(), flat)
    return seen.view(-1, *image.shape[1:])


def colour_matrix(colours: Colours, gray_mean: float) -> tuple[Matrix, Matrix]:
    """All steps as one: colours x of an image with this mean of gray become matrix @ x + bias.

    After any steps of the jitter, colours are own * x + gray * (gray of x) + white, the same for the three channels.
    """
    own, gray, white = 1.0, 0.0, 0.0
    for name, weight in colours.steps:
        if name == "saturation":  # a blend with the gray image; the gray of gray is gray
            own, gray = weight * own, gray + (1 - weight) * own
        else:  # a blend with the mean of the gray image, or with black
            mean = (own + gray) * gray_mean + white if name == "contrast" else 0.0
            own, gray, white = weight * own, weight * gray, weight * white + (1 - weight) * mean
    return own * np.eye(3) + gray * GRAY_WEIGHTS, white + colours.light
