"""A data set as everything else sees it: images, their classes, and the class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LazyImage:
    """An image that is loaded when it is used; its place among others is `position`."""

    position: int

    def load(self) -> Any:
        """A path, or pixels (H, W, 3). Raises: ImageError."""
        raise NotImplementedError


Source = str | NDArray[np.uint8] | LazyImage  # the path of an image, its pixels (H, W, 3), or what gives one of them


@dataclass(frozen=True)
class Samples:
    """N labelled images. `images[k]` is a path, or pixels (H, W, 3) uint8; `targets[k]` its class, from 0.

    `class_names`: the K names in the order of the net's outputs. `images` may be one array (N, H, W, 3), or hold
    `LazyImage`s.
    """

    images: Sequence[str] | Sequence[LazyImage] | NDArray[Any]
    targets: Sequence[int]
    class_names: Sequence[str]

    def __len__(self) -> int:
        return len(self.targets)

    def name(self, k: int) -> str:
        """What image k is called in messages and reports: its path, or its number in the file of a data set."""
        image = self.images[k]
        return image if isinstance(image, str) else f"image {k}"
