"""Command line arguments -> image paths.

An argument is a file (taken as it is, whatever its ending), a folder (searched with its subfolders for the endings of
images) or a pattern with `*`, `?`, `[...]` or `**` that names no file itself. `-` is an image on stdin, and where that
is allowed http:// and https:// addresses are images too. Paths stay the strings that were given:
DIR gives DIR/SUB/FILE. Names that are not UTF-8 pass through as surrogates, as Python's `os` makes them.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from resnet_tools.data.fetched import StdinImage, WebImage, is_address
from resnet_tools.data.image_formats import image_endings
from resnet_tools.errors import ImageError
from resnet_tools.text import counted, printable

NO_IMAGES = "holds no images (.jpg .png .webp .tif and the other extensions that Pillow decodes)"
STDIN = "-"
MAX_ENDINGS = 5  # in a message


def image_files(
    arguments: Iterable[str], *, allow_urls: bool = False, skipped: Counter[str] | None = None
) -> list[str]:
    """The paths of all images that the arguments name, in the order of the arguments; within each, in byte order.

    skipped: counts the extensions of files in folders that were left out because of these.
    Raises ImageError that lists every argument that names nothing, one per line.
    """
    skipped = Counter() if skipped is None else skipped
    paths: list[str] = []
    problems: list[str] = []
    for argument in arguments:
        try:
            paths += _files_of(argument, skipped, allow_urls)
        except ImageError as error:
            problems.append(str(error))
        except OSError as error:  # a folder that may not be read
            problems.append(f"{error.filename}: {error.strerror}")
    if problems:
        raise ImageError(*problems)
    return paths


def _files_of(argument: str, skipped: Counter[str], allow_urls: bool) -> list[str]:
    if argument == STDIN:
        return [StdinImage(argument)]
    if is_address(argument):
        if not allow_urls:
            raise ImageError(f"{argument}: this is an address; give --allow-urls to fetch images from the network")
        return [WebImage(argument)]
    if os.path.isdir(argument):
        found = images_below(argument, skipped)
        if not found:
            raise ImageError(f"{argument}: {NO_IMAGES}{skipped_text(skipped, ' Left out: ')}")
    elif os.path.exists(argument):
        return [argument]
    elif any(sign in argument for sign in "*?["):
        found = [path for path in _matches(argument) if not os.path.isdir(path)]
        if not found:
            raise ImageError(f"{argument}: no file matches")
    else:
        raise ImageError(f"{argument or repr(argument)}: no such file or folder")
    return sorted(found, key=os.fsencode)


def images_below(folder: str, skipped: Counter[str] | None = None, left_out: list[str] | None = None) -> list[str]:
    """The paths of all images in a folder and its subfolders, in byte order; maybe none. Raises OSError.

    skipped: gets the endings of the other files, and how often, but of hidden ones; `left_out` their paths.
    """
    skipped = Counter() if skipped is None else skipped
    others: list[str] = []
    found = [path for inside in _folders(folder) for path in _images_in(inside, others)]
    skipped.update(os.path.splitext(path)[1].lower() for path in others)
    if left_out is not None:
        left_out += sorted(others, key=os.fsencode)
    return sorted(found, key=os.fsencode)


def images_in(folder: str) -> list[str]:
    """The paths of the images directly in a folder, in byte order. Raises OSError."""
    return sorted(_images_in(folder, []), key=os.fsencode)


def skipped_text(skipped: Counter[str], before: str = "") -> str:
    """What was left out, in a sentence: `3 files without an image extension: .txt (2), .heic (1).`"""
    if not skipped:
        return ""
    kinds = ", ".join(f"{ending or 'no ending'} ({count})" for ending, count in skipped.most_common(MAX_ENDINGS))
    more = ", ..." if len(skipped) > MAX_ENDINGS else ""
    count = skipped.total()
    files = f"{counted(count, 'file')} without an image extension"
    return printable(f"{before}{files}: {kinds}{more}.")


def _folders(top: str) -> Iterator[str]:
    """`top` and all folders below it except hidden ones. Links are followed, but not to a folder that contains them."""
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
    """The paths of the folders in a folder except hidden ones, in no order. Raises: OSError.

    Links are among them, but not those to the folder itself or to one that contains it: they lead back to its siblings.
    """
    return [
        path
        for path, entry in _entries(folder)
        if _is(entry, path, os.DirEntry.is_dir, os.path.isdir)
        and not (entry.is_symlink() and _contains(path, folder or os.curdir))
    ]


def _contains(outer: str, inner: str) -> bool:
    """Whether a folder is, links followed, the other one or above it."""
    target = os.path.realpath(outer)
    return os.path.commonpath([target, os.path.realpath(inner)]) == target


def _images_in(folder: str, others: list[str]) -> Iterator[str]:
    """The image files directly in a folder; `others` gets the other files.

    A link to nowhere counts: its loading says what is wrong.
    """
    endings = image_endings()
    for path, entry in _entries(folder):
        ending = os.path.splitext(path)[1].lower()
        if ending in endings:
            is_broken_link = entry.is_symlink() and not os.path.exists(path)
            if is_broken_link or _is(entry, path, os.DirEntry.is_file, os.path.isfile):
                yield path
        elif _is(entry, path, os.DirEntry.is_file, os.path.isfile):
            others.append(path)


def _entries(folder: str) -> list[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder or os.curdir) as entries:
        return [(os.path.join(folder, entry.name), entry) for entry in entries if not entry.name.startswith(".")]


def _is(
    entry: os.DirEntry[str],
    path: str,
    known: Callable[[os.DirEntry[str]], bool],
    asked: Callable[[str], bool],
) -> bool:
    """What the folder listing says at no cost, or what the file system says about the target of a link."""
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
