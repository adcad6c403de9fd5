"""Images in any form that Python has, one or many -> what the loaders take, each with a name.

One image: the path of a file, its bytes, an open file, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4), a tensor
(3, H, W). Several: a folder or a pattern, a batch as one array (N, H, W, 3) or tensor (N, 3, H, W), and any iterable of
these. An image without a path is called `image K` by its place in what was given, from 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from resnet_tools.data.fetched import is_address
from resnet_tools.data.files import STDIN, image_files
from resnet_tools.data.given_images import EXPECTED, given_pixels
from resnet_tools.data.samples import LazyImage
from resnet_tools.errors import ImageError

ADDRESS = "this is an address; fetch it and give its bytes"


@dataclass(frozen=True)
class GivenImage(LazyImage):
    """An image in memory, or the error that takes the place of one that is not there."""

    position: int
    name: str
    image: Any
    exif: bool = False

    def __str__(self) -> str:
        return self.name

    def load(self) -> Any:
        """Its pixels (H, W, 3). Raises: ImageError."""
        if isinstance(self.image, ImageError):
            raise self.image
        return given_pixels(self.image, exif=self.exif, name=self.name)


@dataclass(frozen=True)
class GivenImages:
    """N images. `sources` are what the loaders take; `single`: one image was given, and not a list of one."""

    names: list[str]
    sources: Sequence[Any]
    single: bool

    @property
    def paths(self) -> list[str] | None:
        """The names, if every image is a file."""
        return self.names if all(isinstance(source, str) for source in self.sources) else None


def given_images(images: Any, *, exif: bool = False) -> GivenImages:
    """The images that were given. exif: turn them upright as their EXIF data says.

    One that is missing among several becomes an error when it is loaded.
    Raises: ImageError if nothing was given, or a single path leads nowhere.
    """
    single = is_single(images)
    found: list[Any] = []
    for image in [images] if single else _several(images):
        found += _files(image, single) if isinstance(image, (str, os.PathLike)) else [image]
    if not found:
        raise ImageError(f"no images: the list is empty; {EXPECTED}, or several of them")
    alone = single and (not isinstance(images, (str, os.PathLike)) or found == [os.fsdecode(images)])
    if all(type(image) is str for image in found):
        return GivenImages(found, found, alone)
    names = [image if isinstance(image, str) else _name(image, k, alone) for k, image in enumerate(found)]
    sources = [GivenImage(k, names[k], image, exif) for k, image in enumerate(found)]
    return GivenImages(names, sources, alone)


def is_single(images: Any) -> bool:
    """Whether this is one image, or one path, and not several of them."""
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)) or hasattr(images, "read"):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(images, torch.Tensor):
        return bool(images.ndim != 4)
    if isinstance(images, np.ndarray):
        return images.ndim != 4 and images.dtype.kind in "biuf"
    return not isinstance(images, Iterable)


def _several(images: Iterable[Any]) -> Iterable[Any]:
    if isinstance(images, dict):
        raise ImageError(f"dict; {EXPECTED}, or several of them in a list")
    return images


def _files(path: str | os.PathLike[str], single: bool) -> list[Any]:
    """What a path names: itself, the files in a folder, those that match. Raises: ImageError if it is `single`."""
    name = os.fsdecode(path)
    try:
        if is_address(name):
            raise ImageError(f"{name}: {ADDRESS}")
        return [f"./{STDIN}"] if name == STDIN else [str(file) for file in image_files([name])]
    except ImageError as error:
        if single:
            raise
        if not (os.path.isdir(name) or is_address(name) or any(sign in name for sign in "*?[")):
            return [name]  # its loading says what is wrong, and it stays a file among files
        return [_Missing(name, error)]


class _Missing(ImageError):
    """The error of a path among several."""

    def __init__(self, path: str, error: ImageError) -> None:
        super().__init__(*error.args)
        self.path = path


def _name(image: Any, position: int, alone: bool) -> str:
    if isinstance(image, _Missing):
        return image.path
    name = getattr(image, "filename", None) or getattr(image, "name", None)  # of Pillow; of an open file
    if isinstance(name, str) and name:
        return name
    return "image" if alone else f"image {position}"
