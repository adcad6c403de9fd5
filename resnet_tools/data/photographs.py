"""An image -> no more of its pixels than a view of it needs.

A JPEG of a camera has a hundred times the pixels of a net's input. libjpeg decodes one half, a quarter or an eighth of
its sides in half of the time; the smallest of these is taken that still has twice the pixels of the view in each
direction. What is drawn at random is drawn on the image in its own size, and the part that is cut out of the smaller
one lies between its pixels where it must, so a view shows the same with fewer or more pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from resnet_tools.data.image import COLUMNS_REVERSED, ROWS_REVERSED, ImageFile
from resnet_tools.data.taps import Span

REDUCTIONS = (8, 4, 2)  # that libjpeg has fast code for
ENOUGH = 2  # pixels in each direction for each one of the view

Part = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Scaled:
    """Pixels (h, w, 3) of an image. In each direction, `scale`: how many there are for each of the image; `start`: how
    many from the edge the image begins.
    """

    pixels: NDArray[Any]
    scale: tuple[float, float] = (1.0, 1.0)
    start: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Photograph:
    """An image of which it is known how large it is; `decoded` gives its pixels with 1 / n of the sides, or more."""

    height: int
    width: int
    decoded: Callable[[int], Scaled]

    def part(self, part: Part, size: tuple[int, int]) -> tuple[NDArray[Any], tuple[Span, Span] | None]:
        """What becomes the part of the image when it is scaled to `size`: pixels and spans, as `resample` takes them.

        Raises: ImageError.
        """
        top, left, height, width = part
        found = self.decoded(reduction_for((height, width), size))
        if found.scale == (1, 1):
            return found.pixels[top : top + height, left : left + width], None
        (down, along), (y, x) = found.scale, found.start
        return found.pixels, (_span(top, height, down, y), _span(left, width, along, x))

    def scaled(self, height: int, width: int) -> Scaled:
        """The whole image, with enough pixels to be scaled to this size. Raises: ImageError."""
        return self.decoded(reduction_for((self.height, self.width), (height, width)))


def reduction_for(part: tuple[int, int], size: tuple[int, int]) -> int:
    """The largest n for which 1 / n of the sides of a part has enough pixels for `size`."""
    fits = (n for n in REDUCTIONS if all(side >= n * ENOUGH * wanted for side, wanted in zip(part, size, strict=True)))
    return next(fits, 1)


def photograph(file: ImageFile, *, exif: bool = False) -> Photograph:
    """Raises: ImageError, now or when it is decoded: the same as for all of its pixels."""
    head = file.jpeg_head(exif=exif)
    if head is None:
        return whole_photograph(file.pixels(exif=exif))
    height, width, _ = head
    return Photograph(height, width, lambda n: _reduced(file, head, n) or Scaled(file.pixels(exif=exif)))


def whole_photograph(pixels: NDArray[Any]) -> Photograph:
    """One that is decoded."""
    height, width = pixels.shape[:2]
    return Photograph(height, width, lambda _: Scaled(pixels))


def _reduced(file: ImageFile, head: tuple[int, int, int], reduction: int) -> Scaled | None:
    height, width, orientation = head
    pixels = file.reduced_pixels(reduction, orientation) if reduction > 1 else None
    if pixels is None:
        return None
    # The last pixel of a side reaches beyond the image if the side is no multiple; turned around, it is the first.
    down = len(pixels) - height / reduction if orientation in ROWS_REVERSED else 0.0
    along = pixels.shape[1] - width / reduction if orientation in COLUMNS_REVERSED else 0.0
    return Scaled(pixels, (1 / reduction, 1 / reduction), (down, along))


def _span(first: int, length: int, scale: float, start: float) -> Span:
    """Pixel k covers k to k + 1 and has its middle at k + 1/2, in each size of the image."""
    return start + (first + 0.5) * scale - 0.5, start + (first + length - 0.5) * scale - 0.5
