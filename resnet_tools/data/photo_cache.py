"""Large images -> smaller copies in a folder, made once, out of which the views of a training are cut.

`--cache FOLDER`. A copy has the image upright, with `side_px` pixels on its shorter side, as a JPEG of quality 95
without subsampling. A view is cut out of what that JPEG decodes to, also when it has just been made or cannot be kept,
so it is the same whether the copy was there or not.

A copy is a file FOLDER/HASH.copy. HASH is BLAKE2b, 16 bytes in hexadecimal, of b"1", side_px, a space, whether EXIF
is followed (True or False), a space and the absolute path. Its bytes:
  0  32  BLAKE2b of HASH.copy and of all that follows
 32   8  size of the image's file
 40   8  time of its last change, in nanoseconds
 48   4  height and
 52   4  width of the image, upright
 56      the JPEG
All numbers are little-endian. A copy of another size or time, a damaged one and one that is no JPEG of the size that
follows from height and width are made again. Processes and runs share a folder; with what it holds already, it takes no
more than half of the room that is there when a run begins. The folder may be removed at any time.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin

from resnet_tools.data.image import ImageFile, Pixels, check_size, read_image
from resnet_tools.data.photographs import Photograph, Scaled, photograph
from resnet_tools.errors import DataError, ImageError, ResnetToolsError
from resnet_tools.reading import read_bounded
from resnet_tools.writing import PARTIAL_ENDING, write_shared

WORTH = 1.5  # a copy of an image with less than 1.5 times its side would save little and take as much room
QUALITY = 95
MAX_COPY_BYTES = 1 << 28
VERSION = b"1"
DIGEST_BYTES = 32
HEADER = struct.Struct("<QqII")
README = "README.txt"
FIRST_LINE = b"Smaller copies of images, made by `resnet train --cache`.\n"
REST = b"They are made again where they are missing: this folder can be removed at any time, also during a training.\n"
OWN_NAME = re.compile(rf"[0-9a-f]{{32}}\.copy|\.(?:[0-9a-f]{{32}}\.copy|{re.escape(README)})\.[0-9a-f]+\.partial")


@dataclass(frozen=True)
class PhotoCache:
    """`side_px`: the shorter side of copies. exif: turn images as their EXIF data says. leave_free: bytes of the disk
    that are not used. A plain value, which worker processes can copy.
    """

    folder: Path
    side_px: int
    exif: bool
    leave_free: int
    problems: list[str] = field(default_factory=list, compare=False)

    def photograph(self, path: str) -> Photograph:
        """The image, of which no more is decoded than its copy. Raises: ImageError, the same as without a cache."""
        try:
            found = os.stat(path)
        except OSError:
            return photograph(read_image(path), exif=self.exif)  # says why
        name = self._name(path)
        kept = self._kept(name, found)
        if kept is not None:
            return kept
        file = read_image(path)
        image = photograph(file, exif=self.exif)
        if min(image.height, image.width) < WORTH * self.side_px:
            return image
        copy = _copy(image, self.side_px)
        if copy is None:
            return image
        head = HEADER.pack(found.st_size, found.st_mtime_ns, image.height, image.width)
        self._keep(name, _digest(name, head + copy) + head + copy)
        return _photograph_of(name, copy, image.height, image.width, self.side_px)

    def problem(self) -> str | None:
        """Why a copy could not be kept, if any could not since this was asked."""
        found = self.problems[-1] if self.problems else None
        self.problems.clear()
        return found

    def _name(self, path: str) -> str:
        of = f"{self.side_px} {self.exif} ".encode() + os.fsencode(os.path.abspath(path))
        return f"{hashlib.blake2b(VERSION + of, digest_size=16).hexdigest()}.copy"

    def _kept(self, name: str, found: os.stat_result) -> Photograph | None:
        try:
            content = read_bounded(self.folder / name, MAX_COPY_BYTES)
            rest = content[DIGEST_BYTES:]
            size, changed_ns, height, width = HEADER.unpack_from(rest)
            if content[:DIGEST_BYTES] != _digest(name, rest) or (size, changed_ns) != (
                found.st_size,
                found.st_mtime_ns,
            ):
                return None
            check_size(width, height)
            return _photograph_of(name, rest[HEADER.size :], height, width, self.side_px)
        except (ResnetToolsError, struct.error):  # it is not there, or was not written by this
            return None

    def _keep(self, name: str, content: bytes) -> None:
        try:
            if shutil.disk_usage(self.folder).free - len(content) < self.leave_free:
                raise OSError(errno.ENOSPC, "half of the free space on its disk is used")
            write_shared(self.folder / name, content)
        except OSError as error:
            # A partial file may be taken for what a killed process left, by a run that begins; the folder is there.
            if not self.folder.is_dir():
                self.problems.append("the folder is gone")
            elif error.errno != errno.ENOENT:
                self.problems.append(error.strerror or str(error))


def open_cache(folder: Path, side_px: int, *, exif: bool, first: bool = True) -> PhotoCache:
    """The cache in a folder, which is made if it is not there. first: remove what killed processes left in it.

    Raises: DataError if it cannot be written to or holds anything else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_marked(folder):
            other = next((name for name in os.listdir(folder) if not OWN_NAME.fullmatch(name)), None)
            if other is not None and not _is_marked(folder):  # another process may have marked it meanwhile
                raise DataError(f"--cache {folder}: holds other files, such as {other}; give a folder of its own")
            with suppress(FileNotFoundError):  # another process that begins took it for what a killed one left
                write_shared(folder / README, FIRST_LINE + REST)
        if first:
            for name in os.listdir(folder):
                if OWN_NAME.fullmatch(name) and name.endswith(PARTIAL_ENDING):
                    with suppress(OSError):
                        (folder / name).unlink()
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return PhotoCache(folder.absolute(), side_px, exif, (shutil.disk_usage(folder).free + _held(folder)) // 2)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"--cache {folder}: {reason}; give a folder that can be written to") from error


def _held(folder: Path) -> int:
    """The bytes of the copies that are there, which a run before has taken of the same room."""
    held = 0
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            held += os.stat(folder / name).st_size
    return held


def _is_marked(folder: Path) -> bool:
    try:
        return read_bounded(folder / README, 1 << 16).startswith(FIRST_LINE)
    except ResnetToolsError:
        return False


def _digest(name: str, rest: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + rest, digest_size=DIGEST_BYTES).digest()


def _size_of_copy(height: int, width: int, side_px: int) -> tuple[int, int]:
    shorter = min(height, width)
    return (height * side_px + shorter // 2) // shorter, (width * side_px + shorter // 2) // shorter


def _copy(image: Photograph, side_px: int) -> bytes | None:
    """The JPEG; None for an image that a JPEG cannot hold: of more than 8 bits, or longer than 65,535 pixels."""
    height, width = _size_of_copy(image.height, image.width, side_px)
    found = image.scaled(height // 2, width // 2)  # the copy already has twice the pixels of a view
    if found.pixels.dtype != np.uint8 or max(height, width) > 65_500:
        return None
    (down, along), (y, x) = found.scale, found.start
    box = (x, y, min(x + image.width * along, found.pixels.shape[1]), min(y + image.height * down, len(found.pixels)))
    scaled = Image.fromarray(found.pixels).resize((width, height), Image.Resampling.LANCZOS, box)
    copy = io.BytesIO()
    scaled.save(copy, "JPEG", quality=QUALITY, subsampling=0)
    return copy.getvalue()


def _photograph_of(name: str, copy: bytes, height: int, width: int, side_px: int) -> Photograph:
    """The image whose copy this is. Raises: ImageError if it is none of an image of that size."""
    file = ImageFile(name, copy, JpegImagePlugin.JpegImageFile)
    head, size = file.jpeg_head(), _size_of_copy(height, width, side_px)
    if head is None or head[:2] != size:
        raise ImageError(f"{name}: no copy of an image of {width} x {height} pixels")
    pixels: Pixels = file.pixels()
    scaled = Scaled(pixels, (size[0] / height, size[1] / width))
    return Photograph(height, width, lambda _: scaled)
