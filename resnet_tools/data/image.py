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
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from resnet_tools.errors import ImageError

Plugin = Callable[[io.BytesIO], ImageFile.ImageFile]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]
ImagePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

MAX_FILE_BYTES = 1 << 30  # refuses endless devices; no larger file could be decoded within Pillow's limit

# The plugins by signature. Opening them directly in place of through Image.open keeps out the formats that run other
# programs (EPS) or have no signature, and its DecompressionBombWarning, which no thread can silence on its own.
PLUGINS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"GIF87a": GifImagePlugin.GifImageFile,
    b"GIF89a": GifImagePlugin.GifImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"MM\0+": TiffImagePlugin.TiffImageFile,
    **{b"P%d" % kind: PpmImagePlugin.PpmImageFile for kind in range(1, 7)},
}
HEAD_BYTES = 16  # as many as Pillow shows to a format that is asked whether a file is its own
# Formats that Pillow registers, but leaves to other programs (EPS) or cannot decode alone (MPEG, IPTC); those that are
# only stubs for a program's own handler (HDF5, GRIB, BUFR, WMF) are told by their class.
LEFT_OUT = {"EPS", "MPEG", "IPTC"}

EXIF_ORIENTATION = 0x0112
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
    path = os.fsdecode(source)
    try:
        data, plugin = _read(path)
        return _decode(data, plugin, exif)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except OSError as error:
        # Pillow's own OSErrors have a text and no errno: "image file is truncated (15 bytes not processed)"
        reason = error.strerror or f"damaged or truncated image ({error}); get it again"
        raise ImageError(f"{path}: {reason}") from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory to decode it") from error
    except Exception as error:  # decoders meet hostile bytes with struct.error, SyntaxError, KeyError, zlib.error, ...
        raise ImageError(f"{path}: damaged image ({type(error).__name__}: {error}); get it again") from error


def image_head(source: ImagePath) -> tuple[int, int, int] | None:
    """Height, width and EXIF orientation (1 to 8) as an image file states them; None if it cannot be read."""
    try:
        data, plugin = _read(os.fsdecode(source))
        with plugin(io.BytesIO(data)) as image:
            found = _orientation(image) if image.format != "TIFF" else 1  # Pillow turns those by itself
            return image.height, image.width, found if isinstance(found, int) and 1 <= found <= 8 else 1
    except Exception:  # whoever decodes it says what is wrong
        return None


@functools.cache
def image_endings() -> tuple[str, ...]:
    """The endings of the file formats that are decoded, as Pillow registers them: `.jpg`, `.jfif`, `.avif`, ..."""
    formats = {*_other_formats(), *_signed_formats()}
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in formats))


@functools.cache
def _signed_formats() -> set[str]:
    return {plugin.format for plugin in PLUGINS.values() if plugin.format}


@functools.cache
def _other_formats() -> dict[str, tuple[Any, Any]]:
    """The formats that are not in PLUGINS: what opens each, and what tells its files by their head, or None."""
    Image.init()
    return {
        name: (factory, accept)
        for name, (factory, accept) in Image.OPEN.items()
        if name not in LEFT_OUT | _signed_formats()
        and not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
    }


def _read(path: str) -> tuple[bytes, Plugin]:
    if isinstance(path, FetchedImage):
        data = path.fetch(MAX_FILE_BYTES)
        if not data:
            raise ImageError("empty")
        return data, _plugin(data[:HEAD_BYTES], path)
    with Path(path).open("rb") as file:
        head = file.read(HEAD_BYTES)
        if not head:
            raise ImageError("empty file")
        plugin = _plugin(head, path)
        # not more than there is: `read` first allocates what it is asked for
        data = head + file.read(min(os.fstat(file.fileno()).st_size, MAX_FILE_BYTES) or MAX_FILE_BYTES)
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"more than {MAX_FILE_BYTES >> 20} MiB; no usable image is that large")
    return data, plugin


def _plugin(head: bytes, path: str) -> Plugin:
    for signature, plugin in PLUGINS.items():
        if head.startswith(signature) and (signature != b"RIFF" or head[8:12] == b"WEBP"):
            return plugin
    said = Image.registered_extensions().get(os.path.splitext(path)[1].lower()) if _other_formats() else None
    # Some signatures are short (a TGA may begin like a CUR), so the format that the name suggests is asked first.
    for name, (factory, accept) in sorted(_other_formats().items(), key=lambda item: item[0] != said):
        # A format without a signature accepts any file, so the name must say that it is one.
        if _accepts(accept, head) if accept else name == said:
            return cast(Plugin, factory)
    found = "an HTML or XML page" if head.lstrip()[:1] == b"<" else f"the file begins with {head[:8]!r}"
    raise ImageError(
        f"not an image; expected JPEG, PNG, WebP, GIF, BMP, PPM, PGM, TIFF or another format of Pillow, but {found}"
    )


def _accepts(accept: Callable[[bytes], Any], head: bytes) -> bool:
    try:
        return accept(head) is True
    except (struct.error, IndexError, ValueError):  # a file shorter than what is looked at
        return False


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


def _decode_plain_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """The pixels of an 8-bit gray or YCbCr JPEG without the slightest fault, else None."""
    codec = _simplejpeg()
    if codec is None:
        return None
    try:
        height, width, colorspace, _ = codec.decode_jpeg_header(data)
        if colorspace not in ("Gray", "YCbCr"):
            return None
        check_size(width, height)
        pixels: NDArray[np.uint8] = codec.decode_jpeg(data, "RGB", strict=True)
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
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
