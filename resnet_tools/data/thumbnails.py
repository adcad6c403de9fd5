"""Image file -> a small picture of it, and the lines below it, for sheets and pages that people look at."""

from __future__ import annotations

import os
from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from resnet_tools.data.image import load_image
from resnet_tools.data.transforms import white_of
from resnet_tools.errors import ImageError

MAX_CHARACTERS = 200  # no more than these fit; measuring a longer text only takes time
Font = ImageFont.FreeTypeFont


def thumbnail(path: str, side_px: int, *, exif: bool = False) -> Image.Image:
    """The image scaled so that its longer side has `side_px` pixels; small ones are enlarged without smoothing.

    The path may come from a file that nobody checked: only a regular file is opened, so no device and no pipe.
    Raises: ImageError.
    """
    if "\0" in path or not os.path.isfile(path):
        raise ImageError(f"{path}: there is no such file")
    return scaled(load_image(path, exif=exif), side_px)


def scaled(pixels: NDArray[Any], side_px: int) -> Image.Image:
    """Pixels (H, W, 3) of any type as such a picture."""
    shades = pixels if pixels.dtype == np.uint8 else (255 * np.clip(pixels / white_of(pixels), 0, 1)).astype(np.uint8)
    image = Image.fromarray(shades)
    scale = side_px / max(image.size)
    kind = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return image.resize([max(1, round(side * scale)) for side in image.size], kind, reducing_gap=3.0)


def in_square(path: str, side_px: int, *, exif: bool = False) -> Image.Image:
    """The same, centred in a square, which stays empty if the image is gone or damaged."""
    try:
        return centred(thumbnail(path, side_px, exif=exif), side_px)
    except ImageError:
        return centred(None, side_px)


def centred(image: Image.Image | None, side_px: int) -> Image.Image:
    """The picture in a square; without one an empty square."""
    square = Image.new("RGB", (side_px, side_px), "#ececec")
    if image is not None:
        square.paste(image, ((side_px - image.width) // 2, (side_px - image.height) // 2))
    return square


def fitting(text: str, end: str, font: Font, width_px: int) -> str:
    """The text, shortened if it does not fit, and its end, which is never shortened."""
    if len(text) <= MAX_CHARACTERS and font.getlength(text + end) <= width_px:
        return text + end
    text = text[:MAX_CHARACTERS]
    too_long = bisect_left(range(len(text)), True, key=lambda kept: font.getlength(f"{text[:kept]}…{end}") > width_px)
    return f"{text[: max(0, too_long - 1)].rstrip()}…{end}"
