"""A file that is written whole or not at all.

`written_whole` is for files that one process writes, `write_shared` for those that several may write at once.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The path of a partial file beside `path`, which takes its place, synced to the disk, when the block ends well.

    If the block raises, the partial file is removed and an earlier `path` is untouched. Both have the same ending, and
    the partial one's name depends on `path` alone, as torch writes it into the file; so the next process overwrites
    what a killed one left. A link stays a link: the file that it names is written.

    Raises: OSError if a folder, a device or a pipe has the name; none of them could be replaced by a file.
    """
    check_target(path)
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


PARTIAL_ENDING = ".partial"  # of what `write_shared` leaves if its process is killed: `.NAME.TOKEN.partial`


def write_shared(path: Path, content: bytes) -> None:
    """The last of those that write `path` at once leaves its content. The partial file of each has a name of its own,
    which nobody can foresee, and is synced; the name of `path` is not, as whoever finds none can write it again.

    Raises: OSError.
    """
    partial = path.with_name(f".{path.name}.{os.urandom(8).hex()}{PARTIAL_ENDING}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Raises: OSError if there is something at `path`, or where it links to, that is no file."""
    if _is_open_stream(path):  # the file behind it would be replaced, with what others wrote to it
        raise OSError(errno.EINVAL, "an open stream has this name; give the name of a file", os.fspath(path))
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or what is there says so when it is written
        return
    kinds = {"folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "device": stat.S_ISCHR, "disk": stat.S_ISBLK}
    kind = next((kind for kind, test in kinds.items() if test(mode)), None if stat.S_ISREG(mode) else "socket")
    if kind:
        raise OSError(errno.EINVAL, f"a {kind} has this name; give the name of a file", os.fspath(path))


def _is_open_stream(path: Path) -> bool:
    """Whether it is /dev/stdout or its like: a link into the list of what a process has open."""
    target = os.path.abspath(path)
    if os.path.islink(target):
        target = os.path.join(os.path.dirname(target), os.readlink(target))
    return target.startswith(("/proc/", "/dev/fd/"))


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; where folders cannot be opened (Windows), the system does that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
