"""First bytes and name of an image file -> what decodes it: the formats that Pillow decodes by itself."""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Callable
from typing import Any, cast

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


@functools.cache
def image_endings() -> tuple[str, ...]:
    """The endings of the file formats that are decoded, as Pillow registers them: `.jpg`, `.jfif`, `.avif`, ..."""
    formats = {*_other_formats(), *_signed_formats()}
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in formats))


def plugin_of(head: bytes, path: str) -> Plugin:
    """What opens the file of this name that begins with `head`. Raises: ImageError if nothing does."""
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
