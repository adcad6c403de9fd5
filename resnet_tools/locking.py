"""One writer at a time in a folder.

The lock ends with its holder, however that ends; other machines see it if the file system shares locks. Without `fcntl`
a holder that was killed may leave the file `lock`; the error says to remove it.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_tools.errors import LockedError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_NAME = "lock"
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}  # what file systems without locks answer


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the folder, which must exist, by its file `lock`. A file system without locks lets everyone in.

    Raises: LockedError if another process, or another part of this one, holds it; OSError if it cannot be written.
    """
    folder.stat()  # filelock would make the folder
    lock = _acquired(folder)
    try:
        yield
    finally:
        lock.release()


def _acquired(folder: Path) -> BaseFileLock:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # filelock's remarks on what it does where there is no fcntl, or no flock
        from filelock import FileLock, Timeout

        lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise LockedError(
                f"{folder}: another run is writing here; wait until it ends, or stop it. If there is none, remove "
                f"{folder / LOCK_NAME}"
            ) from None
        except NotImplementedError:  # as some versions of filelock say that there are no locks
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
    return lock
