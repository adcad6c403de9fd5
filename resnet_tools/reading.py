"""Files that a user names -> bytes, within bounds of memory and time, whatever the name stands for."""

from __future__ import annotations

import gc
import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from resnet_tools.errors import ResnetToolsError

CHUNK = 1 << 20
WRITER_SECONDS = 0.5  # for a writer to open a named pipe
IDLE_SECONDS = 30.0  # for the next bytes from a writer


class Readable(Protocol):
    """A binary file object: a file, a pipe, or what decompresses one."""

    def read(self, size: int, /) -> bytes | None: ...


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


def read_bounded(path: str | os.PathLike[str], max_bytes: int, what: str = "file") -> bytes:
    """All bytes of a file or pipe, of which there are at most `max_bytes`; `what` names the kind of file in messages.

    Raises: ResnetToolsError that names the path: not there, not to be read, a folder, a device, too large, or a pipe
    that nobody writes to.
    """
    name = os.fspath(path)
    try:
        with _opened(name, what) as file:
            return read_stream(file, max_bytes, name, what)
    except OSError as error:
        raise ResnetToolsError(f"{name}: {error.strerror or error}") from error
    except ValueError as error:  # a null byte in the path
        raise ResnetToolsError(f"{name}: {error}") from error


def read_stream(file: Readable, max_bytes: int, name: str, what: str = "file") -> bytes:
    """All bytes of an open file, such as stdin or a gzip file. Raises: ResnetToolsError if there are more; OSError."""
    parts, size = [], 0
    while part := file.read(CHUNK):
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise _too_large(name, max_bytes, what)
    return b"".join(parts)


def hashed(path: str | os.PathLike[str], digest: Digest) -> Digest:
    """The digest with the bytes of a file in it. Raises: OSError."""
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest


def read_stdin(max_bytes: int, what: str = "file") -> bytes:
    """All bytes of stdin. Raises: ResnetToolsError if it is closed, cannot be read, or holds too much."""
    if sys.stdin is None:
        raise ResnetToolsError(f"stdin is closed; the {what} is expected there")
    try:
        return read_stream(sys.stdin.buffer, max_bytes, "stdin", what)
    except (OSError, ValueError) as error:
        raise ResnetToolsError(f"stdin: cannot be read: {error}") from error


@contextmanager
def _opened(name: str, what: str) -> Iterator[Readable]:
    # Without O_NONBLOCK, opening a named pipe waits for a writer, perhaps forever.
    descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb", buffering=0) as file:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise ResnetToolsError(f"{name}: is a device; expected a {what}")
        yield _Pipe(file, name) if stat.S_ISFIFO(kind) else file


class _Pipe:
    """A pipe that was opened without waiting; reads wait, but not forever."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file, self.name = file, name
        self.started = False

    def read(self, size: int, /) -> bytes:
        begin = time.monotonic()
        while True:
            part = self.file.read(size)  # None: there is a writer but no data; b"": there is no writer
            seconds = time.monotonic() - begin
            if part or (part == b"" and self.started):
                self.started = True
                return part
            if part == b"" and seconds > WRITER_SECONDS:
                raise ResnetToolsError(f"{self.name}: is a pipe that nobody writes to")
            if part is None:
                self.started = True
                if seconds > IDLE_SECONDS:
                    raise ResnetToolsError(f"{self.name}: is a pipe into which nothing came for {IDLE_SECONDS:g} s")
                select.select([self.file], [], [], IDLE_SECONDS)
            else:
                time.sleep(0.01)


def _too_large(name: str, max_bytes: int, what: str) -> ResnetToolsError:
    size = f"{max_bytes >> 20} MiB" if max_bytes >= 1 << 20 else f"{max_bytes} bytes"
    return ResnetToolsError(f"{name}: more than {size}; no {what} is that large")


@contextmanager
def collector_paused() -> Iterator[None]:
    """Reading makes many objects and no garbage; a full collection beside an imported torch costs 0.1 seconds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
