"""Image file -> decoded RGB pixels, as the original's `image.load(path, 3, 'float')` sees them.

In: the path of a JPEG, PNG, WebP, GIF (first frame), BMP, PPM/PGM/PBM or TIFF file, or of any other format that the
installed Pillow decodes by itself; its first bytes decide; its name counts only for formats without a signature. Out:
an (H, W, 3) array of uint8, or of uint16 where the file holds 16 bits per sample. Gray is copied to three channels,
alpha is dropped and not blended, colour profiles are ignored, CMYK is converted. EXIF orientation is ignored unless
asked for; a TIFF's own orientation is always applied, by Pillow.

Source: torch/image 5aa1881, init.lua. Pillow decodes; simplejpeg, where it is installed, decodes plain JPEGs to the
same pixels in two thirds of the time and leaves every doubtful file to Pillow.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from resnet_tools.data.image_formats import HEAD_BYTES, Plugin, plugin_of
from resnet_tools.errors import ImageError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
ImagePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

MAX_FILE_BYTES = 1 << 30  # refuses endless devices; no larger file could be decoded within Pillow's limit

EXIF_ORIENTATION = 0x0112
ROWS_REVERSED, COLUMNS_REVERSED = (3, 4, 7, 8), (2, 3, 6, 7)  # by orientation
PNG_RAWMODES = {  # PNG colour type -> the raw modes of Pillow that together hold both bytes of 16-bit samples
    2: ("RGB", "RGB;16B", "RGB;16L"),
    6: ("RGBA", "RGBA;16B", "RGBA;16L"),
}


class FetchedImage(str):
    """The name of an image that is not a file; `fetch` gets its bytes. Otherwise it is handled like any name."""

    def fetch(self, max_bytes: int) -> bytes:
        """Raises: ImageError."""
        raise NotImplementedError


def load_image(source: ImagePath, *, exif: bool = False) -> Pixels:
    """The pixels of an image file, (H, W, 3): uint8 in 0..255, or uint16 in 0..65535 for 16-bit files.

    With `exif` the picture is turned upright as its EXIF orientation says; the published nets were trained without.

    Raises ImageError, and nothing else, for a file that is missing, unreadable, too large, damaged or not an image.
    """
    return read_image(source).pixels(exif=exif)


@dataclass(frozen=True)
class ImageFile:
    """The content of an image file, which is not decoded yet."""

    path: str
    data: bytes
    plugin: Plugin

    def pixels(self, *, exif: bool = False) -> Pixels:
        """What `load_image` gives. Raises: ImageError."""
        with _faults_explained(self.path):
            return _decode(self.data, self.plugin, exif)

    def jpeg_head(self, *, exif: bool = False) -> tuple[int, int, int] | None:
        """Height and width of a JPEG, and its orientation (1 without `exif`), by which these are turned; None if it is
        no JPEG, or decoding it would be an error."""
        try:
            with self._opened_jpeg() as image:
                check_size(*image.size)
                found = _orientation(image) if exif else 1
                orientation = found if isinstance(found, int) and found in range(1, 9) else 1
                height, width = (image.width, image.height) if orientation > 4 else (image.height, image.width)
                return height, width, orientation
        except Exception:  # whoever decodes it says what is wrong
            return None

    def reduced_pixels(self, reduction: int, orientation: int = 1) -> Pixels | None:
        """Those of a JPEG with one half, a quarter or an eighth of its sides, rounded up, turned upright: each is the
        mean of what it covers, from the coefficients in the file. None if there is a fault in the file."""
        try:
            with self._opened_jpeg() as image:
                width, height = (-(-side // reduction) for side in image.size)
                pixels: Pixels | None = _decode_plain_jpeg(self.data, height, width, reduction)
                if pixels is None:
                    image.draft(None, (image.width // reduction, image.height // reduction))
                    pixels = _decode_with_pillow(image, b"")
                if pixels.shape[:2] != (height, width):
                    return None
                pixels = _upright(pixels, orientation)
                return pixels if pixels.flags.c_contiguous else pixels.copy()
        except Exception:  # whoever decodes all of it says what is wrong
            return None

    def _opened_jpeg(self) -> Image.Image:
        if self.plugin is not JpegImagePlugin.JpegImageFile:
            raise ValueError("no JPEG")
        return self.plugin(io.BytesIO(self.data))


def read_image(source: ImagePath) -> ImageFile:
    """Raises ImageError for a file that is missing, unreadable, too large or not an image."""
    path = os.fsdecode(source)
    with _faults_explained(path):
        return ImageFile(path, *_read(path))


@contextmanager
def _faults_explained(path: str) -> Iterator[None]:
    """Raises ImageError for whatever is raised."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except OSError as error:
        # Pillow's own OSErrors have a text and no errno: "image file is truncated (15 bytes not processed)"
        reason = error.strerror or f"damaged or truncated image ({error}); get it again"
        raise ImageError(f"{path}: {reason}") from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory to decode it") from error
    except SyntaxError as error:  # Pillow's own, for a header that makes no sense
        raise ImageError(f"{path}: damaged image ({_header_fault(error)}); get it again") from error
    except Exception as error:  # decoders meet hostile bytes with struct.error, KeyError, zlib.error, ...
        raise ImageError(f"{path}: damaged image ({type(error).__name__}: {error}); get it again") from error


def _header_fault(error: SyntaxError) -> str:
    """What Pillow says of it, unless that is only where its decoder failed, or that the file is of another kind."""
    said = "" if error.__cause__ or error.msg == "not identified by this driver" else error.msg
    return said or "its header is cut or damaged"


def image_head(source: ImagePath) -> tuple[int, int, int] | None:
    """Height, width and EXIF orientation (1 to 8) as an image file states them; None if it cannot be read."""
    try:
        data, plugin = _read(os.fsdecode(source))
        with plugin(io.BytesIO(data)) as image:
            found = _orientation(image) if image.format != "TIFF" else 1  # Pillow turns those by itself
            return image.height, image.width, found if isinstance(found, int) and 1 <= found <= 8 else 1
    except Exception:  # whoever decodes it says what is wrong
        return None


def _read(path: str) -> tuple[bytes, Plugin]:
    if isinstance(path, FetchedImage):
        data = path.fetch(MAX_FILE_BYTES)
        if not data:
            raise ImageError("empty")
        return data, plugin_of(data[:HEAD_BYTES], path)
    with Path(path).open("rb") as file:
        head = file.read(HEAD_BYTES)
        if not head:
            raise ImageError("empty file")
        plugin = plugin_of(head, path)
        # not more than there is: `read` first allocates what it is asked for
        data = head + file.read(min(os.fstat(file.fileno()).st_size, MAX_FILE_BYTES) or MAX_FILE_BYTES)
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"more than {MAX_FILE_BYTES >> 20} MiB; no usable image is that large")
    return data, plugin


def _decode(data: bytes, plugin: Plugin, exif: bool) -> Pixels:
    pixels: Pixels | None = _decode_plain_jpeg(data) if plugin is JpegImagePlugin.JpegImageFile else None
    if pixels is not None and not exif:
        return pixels
    with plugin(io.BytesIO(data)) as image:
        check_size(*image.size)
        if pixels is None:
            pixels = _decode_with_pillow(image, data)
        if exif:
            pixels = _upright(pixels, _orientation(image))
    return pixels if pixels.flags.c_contiguous else pixels.copy()


def check_size(width: int, height: int) -> None:
    """Raises ImageError for a header that announces no pixels, or more than Pillow's MAX_IMAGE_PIXELS."""
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width} x {height} pixels")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{width} x {height} pixels are more than the limit of {limit} (a decompression bomb?); "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


@functools.cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except (ImportError, ValueError):  # ValueError: built for another numpy
        return None
    return simplejpeg


def _decode_plain_jpeg(
    data: bytes, min_height: int = 0, min_width: int = 0, reduction: int = 1
) -> NDArray[np.uint8] | None:
    """The pixels of an 8-bit gray or YCbCr JPEG without the slightest fault, else None."""
    codec = _simplejpeg()
    if codec is None:
        return None
    try:
        height, width, colorspace, _ = codec.decode_jpeg_header(data)
        if colorspace not in ("Gray", "YCbCr"):
            return None
        check_size(width, height)
        pixels: NDArray[np.uint8] = codec.decode_jpeg(
            data, "RGB", min_height=min_height, min_width=min_width, min_factor=reduction, strict=True
        )
    except Exception:  # whatever happened, Pillow decides
        return None
    return pixels


def pillow_pixels(image: Image.Image, *, exif: bool = False) -> Pixels:
    """The pixels of a PIL image, which is changed by it. Raises: ImageError, and what decoding it raises."""
    pixels = _decode_with_pillow(image, b"")
    if exif:
        pixels = _upright(pixels, _orientation(image))
    return pixels if pixels.flags.c_contiguous else pixels.copy()


def _decode_with_pillow(image: Image.Image, data: bytes) -> Pixels:
    """data: the file of the image, for what Pillow leaves out of it."""
    image.load()
    if data and image.format == "PNG" and data[12:16] == b"IHDR" and data[24] == 16 and data[25] in (2, 4, 6):
        return _decode_wide_png(image.size, data)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        gray = np.asarray(image).astype(np.uint16)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageError("32-bit samples have no defined white; convert the image to 8 or 16 bits")
    image.info.pop("transparency", None)  # else convert() turns it into alpha or warns
    straight = image.convert("RGBA") if image.mode == "RGBa" else image
    return np.array(straight.convert("RGB"))


def _decode_wide_png(size: tuple[int, int], data: bytes) -> NDArray[np.uint16]:
    """The 16-bit samples of a colour or gray + alpha PNG, of which Pillow keeps the high bytes only.

    Pillow inflates and unfilters the data twice, unpacking the high and then the low bytes. Gray + alpha goes as
    RGBA of 8 bits, which has as many bytes per pixel: high and low byte of gray, high and low byte of alpha.
    """
    packed, colour_type, interlaced = _png_image_data(data), data[25], data[28]
    if colour_type == 4:
        both = np.asarray(Image.frombytes("RGBA", size, packed, "zip", "RGBA", interlaced)).astype(np.uint16)
        return np.repeat(both[:, :, :1] << 8 | both[:, :, 1:2], 3, axis=2)
    mode, *rawmodes = PNG_RAWMODES[colour_type]
    high, low = (
        np.asarray(Image.frombytes(mode, size, packed, "zip", rawmode, interlaced))[:, :, :3].astype(np.uint16)
        for rawmode in rawmodes
    )
    wide: NDArray[np.uint16] = np.bitwise_or(high << 8, low)
    return wide


def _png_image_data(data: bytes) -> bytes:
    """The IDAT chunks of a PNG joined: one zlib stream. A chunk is length (4 bytes), kind (4), content, CRC (4)."""
    parts, start = [], 8
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if kind == b"IDAT":
            parts.append(data[start + 8 : start + 8 + length])
        elif parts:
            break
        start += 12 + length
    return b"".join(parts)


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # EXIF data that cannot be read say nothing about the orientation
        return None


def _upright(pixels: Pixels, orientation: object) -> Pixels:
    """The picture as it should be seen: orientations 5..8 are 1..4 stored with rows and columns exchanged."""
    if orientation not in (2, 3, 4, 5, 6, 7, 8):
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in ROWS_REVERSED:
        pixels = pixels[::-1]
    if orientation in COLUMNS_REVERSED:
        pixels = pixels[:, ::-1]
    return pixels
