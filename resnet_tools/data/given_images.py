"""An image in any form that Python programs have -> its pixels, (H, W, 3).

- the path of a file, or the content of one: bytes, or anything with `read`;
- a PIL image;
- an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, or floats between 0 and 1, or what becomes one;
- a torch tensor (3, H, W), (1, H, W), (4, H, W) or (H, W) of the same types.

Gray is copied to three channels, and the fourth, alpha, is dropped, as when a file is read.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnet_tools.data.image import MAX_FILE_BYTES, FetchedImage, check_size, load_image, pillow_pixels
from resnet_tools.errors import ImageError

EXPECTED = (
    "expected a path, the bytes of an image file, an open file, a PIL image, an array (H, W) or (H, W, 3), or a tensor "
    "(3, H, W)"
)
CHANNELS = (1, 3, 4)


class GivenFile(FetchedImage):
    """The content of an image file that is in memory."""

    content: bytes

    def fetch(self, max_bytes: int) -> bytes:
        """Raises: ImageError."""
        if len(self.content) > max_bytes:
            raise ImageError(f"more than {max_bytes >> 20} MiB; no usable image is that large")
        return self.content


def given_pixels(image: Any, *, exif: bool = False, name: str = "image") -> NDArray[Any]:
    """The pixels of an image in any form: (H, W, 3) uint8, uint16 or float from 0 to 1.

    exif: turn a file upright as its EXIF orientation says; a PIL image too, if it still has its EXIF data.
    name: what an image without a path is called in messages. Raises: ImageError.
    """
    if isinstance(image, (str, os.PathLike)):
        return load_image(image, exif=exif)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return load_image(_given_file(bytes(image), name), exif=exif)
    if isinstance(image, Image.Image):
        return _of_pillow(image, exif, name)
    if hasattr(image, "read"):
        return load_image(_given_file(_content(image, name), name), exif=exif)
    if _is_tensor(image):
        return _checked(_of_tensor(image, name), name)
    return _checked(_of_array(image, name), name)


def _given_file(content: bytes, name: str) -> GivenFile:
    file = GivenFile(name)
    file.content = content
    return file


def _content(file: Any, name: str) -> bytes:
    try:
        content = file.read(MAX_FILE_BYTES + 1)
    except Exception as error:  # whatever the file is
        raise ImageError(f"{name}: cannot be read: {error}") from error
    if not isinstance(content, bytes):
        raise ImageError(f"{name}: reading gives {type(content).__name__}; open the file in binary mode ('rb')")
    return content


def _of_pillow(image: Image.Image, exif: bool, name: str) -> NDArray[Any]:
    try:
        check_size(*image.size)
        return pillow_pixels(image.copy(), exif=exif)  # a copy, as what is decoded changes it
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # it is decoded only now, from whatever it was opened
        raise ImageError(f"{name}: damaged image ({type(error).__name__}: {error})") from error


def _is_tensor(image: Any) -> bool:
    """Without importing torch: who has a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _of_tensor(image: Any, name: str) -> NDArray[Any]:
    values = image.detach().cpu()
    if values.dtype.is_floating_point:
        values = values.float()  # bfloat16 has no array
    array: NDArray[Any] = np.asarray(values.numpy())
    if array.ndim == 2:
        return array
    if array.ndim == 3 and array.shape[0] in CHANNELS:
        return np.moveaxis(array, 0, 2)
    raise ImageError(f"{name}: a tensor of shape {tuple(array.shape)}; expected (3, H, W), (1, H, W) or (H, W)")


def _of_array(image: Any, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(image)
    except Exception as error:  # such as rows of different lengths
        raise ImageError(f"{name}: {type(image).__name__}; {EXPECTED}") from error
    if array.dtype.kind not in "biuf":
        raise ImageError(f"{name}: {type(image).__name__}; {EXPECTED}")
    return array


def _checked(array: NDArray[Any], name: str) -> NDArray[Any]:
    """(H, W) or (H, W, C) of an allowed type -> (H, W, 3)."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS or array.size == 0:
        raise ImageError(f"{name}: pixels of shape {array.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not 0 <= low <= high <= 1:  # false for NaN
            raise ImageError(
                f"{name}: floats from {low:.6g} to {high:.6g}; expected 0 (black) to 1 (white). Divide by 255, or give "
                "uint8"
            )
        array = array.astype(np.float32, copy=False)  # what nets compute in
    elif array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: pixels are {array.dtype}; expected uint8, uint16, or floats from 0 to 1")
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])
