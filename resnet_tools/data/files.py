"""Command line arguments -> image paths.

An argument is a file (taken as it is, whatever its ending), a folder (searched with its subfolders for the endings
below) or a pattern with `*`, `?`, `[...]` or `**` that names no file itself. Paths stay the strings that were given:
DIR gives DIR/SUB/FILE. Names that are not UTF-8 pass through as surrogates, as Python's `os` makes them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator

from resnet_tools.errors import ImageError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def image_files(arguments: Iterable[str]) -> list[str]:
    """The paths of all images that the arguments name, in the arguments' order; within one, in byte order.

    Raises ImageError that lists every argument that names nothing, one a line.
    """
    paths: list[str] = []
    problems: list[str] = []
    for argument in arguments:
        try:
            paths += _files_of(argument)
        except ImageError as error:
            problems.append(str(error))
        except OSError as error:  # a folder that may not be read
            problems.append(f"{error.filename}: {error.strerror}")
    if problems:
        raise ImageError("\n".join(problems))
    return paths


def _files_of(argument: str) -> list[str]:
    if os.path.isdir(argument):
        found = [path for folder in _folders(argument) for path in _images_in(folder)]
        if not found:
            raise ImageError(f"{argument}: holds no images ({' '.join(IMAGE_ENDINGS)})")
    elif os.path.exists(argument):
        return [argument]
    elif any(sign in argument for sign in "*?["):
        found = [path for path in _matches(argument) if not os.path.isdir(path)]
        if not found:
            raise ImageError(f"{argument}: no file matches")
    else:
        raise ImageError(f"{argument}: no such file or folder")
    return sorted(found, key=os.fsencode)


def _folders(top: str) -> Iterator[str]:
    """`top` and all folders below it but hidden ones. Links are followed, but not to a folder they lie in."""
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while pending:
        folder, ancestors = pending.pop()
        status = os.stat(folder or os.curdir)
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            continue
        yield folder
        inside = ancestors | {identity}
        pending += [(path, inside) for path in _entries(folder) if os.path.isdir(path)]


def _images_in(folder: str) -> Iterator[str]:
    """The image files directly in a folder. A link to nowhere counts: its loading says what is wrong."""
    for path in _entries(folder):
        is_broken_link = os.path.islink(path) and not os.path.exists(path)
        if path.lower().endswith(IMAGE_ENDINGS) and (os.path.isfile(path) or is_broken_link):
            yield path


def _entries(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in os.listdir(folder or os.curdir) if not name.startswith(".")]


def _matches(pattern: str) -> set[str]:
    """The paths that match. `**` stands for any folders, and at the end for all that is in them.

    `glob` itself would follow links in circles at `**`, so that part is walked here.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        return set(glob.glob(pattern))
    at = parts.index("**")
    above, below = "/".join(parts[:at]), "/".join(parts[at + 1 :]) or "*"
    tops = glob.glob(f"{above}/") if at else [""]
    return {
        path for top in tops for folder in _folders(top) for path in _matches(os.path.join(glob.escape(folder), below))
    }
