"""Command line arguments -> image paths.

An argument is a file (taken as it is, whatever its ending), a folder (searched with its subfolders for the endings
below) or a pattern with `*`, `?`, `[...]` or `**` that names no file itself. Paths stay the strings that were given:
DIR gives DIR/SUB/FILE. Names that are not UTF-8 pass through as surrogates, as Python's `os` makes them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator

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
        found = images_below(argument)
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


def images_below(folder: str) -> list[str]:
    """The paths of all images in a folder and its subfolders, in byte order; maybe none. Raises OSError."""
    found = [path for inside in _folders(folder) for path in _images_in(inside)]
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
        pending += [(path, inside) for path in subfolders(folder)]


def subfolders(folder: str) -> list[str]:
    """The paths of the folders in a folder but hidden ones, in no order; links to folders too. Raises OSError."""
    return [path for path, entry in _entries(folder) if _is(entry, path, os.DirEntry.is_dir, os.path.isdir)]


def _images_in(folder: str) -> Iterator[str]:
    """The image files directly in a folder. A link to nowhere counts: its loading says what is wrong."""
    for path, entry in _entries(folder):
        if path.lower().endswith(IMAGE_ENDINGS):
            is_broken_link = entry.is_symlink() and not os.path.exists(path)
            if is_broken_link or _is(entry, path, os.DirEntry.is_file, os.path.isfile):
                yield path


def _entries(folder: str) -> list[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder or os.curdir) as entries:
        return [(os.path.join(folder, entry.name), entry) for entry in entries if not entry.name.startswith(".")]


def _is(
    entry: os.DirEntry[str],
    path: str,
    known: Callable[[os.DirEntry[str]], bool],
    asked: Callable[[str], bool],
) -> bool:
    """What the listing of the folder tells at no cost, or what the file system says of the target of a link."""
    return asked(path) if entry.is_symlink() else known(entry)


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
