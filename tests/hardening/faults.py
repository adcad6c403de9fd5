"""Stops, full disks and power failures at each point where a program changes what is on the disk.

A point is just before and just after each write, fsync, rename, removal, making of a folder and cutting of a file that
goes through Python, and the middle of what libraries write by themselves (safetensors, pyarrow): there half of
the file is written. Work runs in a forked child, so that a stop is as sudden as that of SIGKILL: nothing is flushed.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from unittest import mock

Fault = Literal["none", "kill", "full disk", "power failure"]
STOPPED, FAILED = 77, 78
CALLS = ("write", "pwrite", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate", "ftruncate")
REACHES_DISK = ("write", "pwrite", "mkdir", "close of a file")
CHILD_SECONDS = 60
BUFFER_BYTES = 1 << 20  # a file is written in one go, and a stop there leaves half of it


class Points:
    """Counts the points below `folder` and lets the fault happen at point `at`.

    `reached`: of each point its name, and what a stop and a power failure there leave on the disk, as a hash.
    """

    def __init__(self, folder: Path, fault: Fault, at: int) -> None:
        self.folder, self.fault, self.at, self.count = os.path.realpath(folder), fault, at, 0
        self.reached: list[tuple[str, str, str]] = []
        self.unsynced: set[str] = set()

    def reach(self, name: str, half_written: str | None = None) -> None:
        self.count += 1
        halved = set() if half_written is None else {half_written}
        if self.fault == "none":
            self.reached.append((name, self._left(halved), self._left(halved | self.unsynced)))
        if self.fault == "full disk" and self.count >= self.at and name.removeprefix("before ") in REACHES_DISK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # it stays full
        if self.count != self.at or self.fault in ("none", "full disk"):
            return
        for path in halved | self.unsynced if self.fault == "power failure" else halved:
            if os.path.isfile(path):
                os.truncate(path, os.path.getsize(path) // 2)
        os._exit(STOPPED)

    def _left(self, halved: set[str]) -> str:
        """A hash of all names and bytes below the folder, with these files cut in the middle."""
        left = hashlib.sha256()
        for folder, folders, files in os.walk(self.folder):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    content = file.read()
                content = content[: len(content) // 2] if path in halved else content
                left.update(f"{path} {len(content)}\n".encode() + content)
            left.update(f"{folder} {folders}\n".encode())
        return left.hexdigest()

    def is_inside(self, path: object) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return isinstance(path, (str, bytes, os.PathLike)) and os.path.realpath(os.fsdecode(path)).startswith(
            self.folder
        )

    def note(self, call: str, path: object) -> None:
        """Keep up which files a power failure would lose."""
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        if call == "fsync":
            self.unsynced.discard(name)
        elif call in ("write", "pwrite", "close of a file"):
            self.unsynced.add(name)


class _Written(io.FileIO):
    """A file without a buffer whose writes are points."""

    points: Points

    def write(self, data: Any, /) -> int:  # type: ignore[override]
        self.points.reach("before write")
        written = super().write(data)
        self.points.note("write", self.fileno())
        self.points.reach("after write", str(self.name))
        return written


@contextmanager
def faulty(points: Points) -> Iterator[None]:
    """Python's ways to change the disk, with points around them."""
    calls = {name: _with_points(name, points) for name in CALLS}
    with mock.patch.multiple(os, **calls):
        opened = _opened_with_points(points, io.open)
        with (
            mock.patch.object(builtins, "open", opened),
            mock.patch.object(io, "open", opened),
            pathlib_calls(calls | {"open": opened}),
            _libraries(points),
        ):
            yield


def pathlib_calls(calls: Mapping[str, Callable[..., Any]]) -> AbstractContextManager[Any]:
    """The calls also where Python 3.10 has them by names of its own, in a class of pathlib."""
    names = getattr(pathlib, "_NormalAccessor", None)
    kept = {name: staticmethod(call) for name, call in calls.items() if hasattr(names, name)}
    return mock.patch.multiple(names, **kept) if kept else nullcontext()


def _with_points(name: str, points: Points) -> Callable[..., Any]:
    plain = getattr(os, name)

    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        if ("dir_fd" in options and options["dir_fd"] is not None) or not points.is_inside(path):
            return plain(path, *arguments, **options)
        points.reach(f"before {name}")
        points.note(name, path)
        result = plain(path, *arguments, **options)
        if name in ("replace", "rename"):
            was, now = os.path.realpath(path), os.path.realpath(arguments[0])
            points.unsynced = {now if one == was else one for one in points.unsynced}
        points.reach(f"after {name}")
        return result

    return call


def _opened_with_points(points: Points, plain: Callable[..., Any]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not any(letter in mode for letter in "wax+") or isinstance(file, int) or not points.is_inside(file):
            return plain(file, mode, *arguments, **options)
        points.reach("before making of a file")
        raw = _Written(file, mode.replace("b", "").replace("t", ""))
        raw.points = points
        points.note("write", raw.fileno())
        points.reach("after making of a file")
        buffer = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered = buffer(raw, BUFFER_BYTES)  # type: ignore[type-var]
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, options.get("encoding") or "utf-8", newline=options.get("newline"))

    return opened


def _writer_with_points(points: Points, plain: Callable[..., Any], position: int) -> Callable[..., Any]:
    """A library's function that writes a whole file, its path the argument at `position`."""

    def write(*arguments: Any, **options: Any) -> Any:
        path = arguments[position]
        if not isinstance(path, (str, os.PathLike)):
            return plain(*arguments, **options)
        points.reach("before write")
        result = plain(*arguments, **options)
        points.note("close of a file", path)
        points.reach("middle of write", os.fspath(path))
        return result

    return write


@contextmanager
def _libraries(points: Points) -> Iterator[None]:
    import safetensors.torch

    from resnet_tools.features.files import WRITERS

    parquet = _writer_with_points(points, WRITERS[".parquet"], 1)
    with (
        mock.patch.object(safetensors.torch, "save_file", _writer_with_points(points, safetensors.torch.save_file, 1)),
        mock.patch.dict(WRITERS, {".parquet": parquet}),
    ):
        yield


@dataclass(frozen=True)
class Done:
    """0: it ended well, FAILED: with an error of ours, STOPPED: at the fault; all else is what nobody expects.

    `points`: what was reached without a fault, as in `Points`.
    """

    code: int
    points: list[tuple[str, str, str]]
    printed: str

    def faults(self) -> Iterator[tuple[Fault, int]]:
        """All that can go wrong: each fault with the points, from 1, where it makes a difference.

        What goes on after a stop sees the disk and nothing else, so of the points that leave the same bytes one is
        enough: `before fsync` is where `after write` was.
        """
        seen: set[str] = set()
        for at, (name, stopped, without_power) in enumerate(self.points, 1):
            faults: tuple[tuple[Fault, str], ...] = (("kill", stopped), ("power failure", without_power))
            for fault, left in faults:
                if left not in seen:
                    seen.add(left)
                    yield fault, at
            if name.removeprefix("before ") in REACHES_DISK:
                yield "full disk", at


def run(job: Callable[[], object], folder: Path, fault: Fault = "none", at: int = 0) -> Done:
    """What became of a forked child that does the job, with a fault at that point below `folder`."""
    reader, writer = os.pipe()
    printed = folder.parent / "printed.txt"
    child = os.fork()
    if child == 0:
        _child(job, Points(folder, fault, at), writer, printed)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        points, modules = json.loads(pipe.read() or "[[], []]")  # to the end of the child
    for name in modules:  # so that the next child need not import them
        with suppress(ImportError):
            import_module(name)
    _, status = os.waitpid(child, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    return Done(code, [tuple(point) for point in points], printed.read_text(errors="replace"))


def _child(job: Callable[[], object], points: Points, writer: int, printed: Path) -> None:
    from resnet_tools.errors import ResnetToolsError

    code = 1
    signal.alarm(CHILD_SECONDS)
    try:
        output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        with faulty(points):
            try:
                result = job()
                code = FAILED if isinstance(result, int) and result else 0
            except ResnetToolsError as error:
                print(f"Error: {error}", file=sys.stderr)
                code = FAILED
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if points.fault == "none":
            with open(writer, "w", closefd=False) as pipe:
                json.dump(
                    [points.reached, [name for name in sys.modules if "." in name or name.isidentifier()]],
                    pipe,
                )
        os._exit(code)
