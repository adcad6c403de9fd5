"""The unfinished features of one output file: rows on disk as they are computed, so a stop loses at most a batch.

The folder `.NAME.unfinished` beside the output holds
- `job.json`: what is computed; another job is refused, with the difference named;
- `lock`: held by the running job, so that a second one for the same output is refused;
- `rows-R` and `log-R` for each process R: the rows one after another, and one line of JSON per finished batch:
  {"batch": number, "shape": of a row, "rows": in all of this file so far, "errors": [[position in the batch, reason]],
  "crc": CRC-32 of the batch's rows}.
A line is written after its rows, so rows without a line are of a batch that did not finish. After a power failure a
line may be there without its rows, or with zeros in their place: then the sum differs. Only what a log vouches for is
believed: resuming cuts both files at the first batch that is not whole, removes rows that have no log, and the rows of
every batch are compared with its sum once more when they are collected.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tools.errors import FeatureError, LockedError, ResnetToolsError
from resnet_tools.locking import LOCK_NAME, locked_folder
from resnet_tools.reading import read_bounded
from resnet_tools.writing import written_whole

Array = np.ndarray[Any, Any]
JOB_NAME = "job.json"
MAX_JOB_BYTES = 1 << 24
MAX_LINE_BYTES = 1 << 27  # a batch of 65536 files that are all unreadable has half of it
MAX_NUMBER = 1 << 48
BINARY = getattr(os, "O_BINARY", 0)  # Windows would change newlines


@dataclass(frozen=True)
class DoneBatch:
    """Where the rows of a finished batch lie, and which of its files have none."""

    number: int
    process: int
    start: int
    count: int
    shape: tuple[int, ...]
    errors: dict[int, str]
    crc: int


class FeatureStore:
    """Opened by every process of a job; each appends to its own files. A context manager, which closes them."""

    def __init__(self, output: Path, dtype: np.dtype[Any], process: int = 0) -> None:
        self.folder = job_file(output).parent
        self.dtype, self.process = dtype, process
        self.rows = 0
        self.vouched = {"log": 0, "rows": 0}  # bytes of this process's files that its log vouches for
        self.files = ExitStack()
        self.appended: dict[str, int] = {}  # file descriptors

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.files.close()

    def begin(self, job: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or accept one of the same job. One process of a job does this before the others open it.

        Raises: FeatureError naming what differs, if it is of another job, or if it cannot be written.
        """
        path = self.folder / JOB_NAME
        try:
            self._enter()
            if resume and path.exists():
                self._check_job(json.loads(read_bounded(path, MAX_JOB_BYTES)), job)
                for rows in self.folder.glob("rows-*"):
                    if not _log_of(rows).exists():
                        rows.unlink()
                for log in self._logs():
                    self._cut_to_whole_batches(log)
                return
            path.unlink(missing_ok=True)  # first: without it the rest is nothing to go on with
            for left in self.folder.iterdir():
                if left.name != LOCK_NAME:
                    left.unlink()
            with written_whole(path) as partial:
                partial.write_text(json.dumps(job))
        except FeatureError:
            raise
        except ResnetToolsError as error:  # another run is at work, or job.json is no file
            raise FeatureError(str(error)) from None
        except (OSError, ValueError, RecursionError) as error:
            raise FeatureError(f"{self.folder}: cannot be written or read: {error}") from error

    def _enter(self) -> None:
        """Make the folder, or take the one that is there; lock it; believe nothing in it that this program never makes.

        A link would lead the writing, and the removal of what is left over, to files of others.
        """
        self.folder.mkdir(exist_ok=True)
        if self.folder.is_symlink():
            raise FeatureError(f"{self.folder}: is a link; expected a folder; remove the link")
        self.files.enter_context(locked_folder(self.folder))
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise FeatureError(f"{entry.path}: is not a file, so no extraction made it; remove it")

    def _check_job(self, earlier: Any, job: Mapping[str, Any]) -> None:
        if not isinstance(earlier, dict):
            raise FeatureError(f"{self.folder}: holds no job; remove it, or give --no-resume to start over")
        for key in job:
            if earlier.get(key) != job[key]:
                before = f"{earlier[key]!r:.100}" if key in earlier else "unknown"
                raise FeatureError(
                    f"{self.folder} holds an unfinished extraction with a different {key}: {before}, "
                    f"now {job[key]!r:.100}. Give the same command to continue, or --no-resume to start over"
                )

    def _cut_to_whole_batches(self, log: Path) -> None:
        rows = log.with_name(log.name.replace("log", "rows"))
        rows.touch()
        line_bytes, row_bytes = 0, 0
        left = rows.stat().st_size
        with rows.open("rb") as file:
            for line, batch in _lines(log):
                size = batch.count * self._row_bytes(batch.shape)
                content = file.read(size) if size <= left - row_bytes else b""
                if len(content) < size or zlib.crc32(content) != batch.crc:
                    break
                line_bytes, row_bytes = line_bytes + len(line), row_bytes + size
        os.truncate(log, line_bytes)
        os.truncate(rows, row_bytes)

    def open(self) -> dict[int, DoneBatch]:
        """Every finished batch of all processes; this process appends after its own."""
        own = self.folder / f"log-{self.process}"
        with self._disk_errors():
            for line, batch in _lines(own) if own.exists() else ():
                self.rows += batch.count
                self.vouched["log"] += len(line)
                self.vouched["rows"] += batch.count * self._row_bytes(batch.shape)
        return self.done()

    def done(self) -> dict[int, DoneBatch]:
        """Every finished batch so far, of all processes, by number."""
        with self._disk_errors():
            return {batch.number: batch for log in self._logs() for _, batch in _lines(log)}

    def _logs(self) -> list[Path]:
        return sorted(log for log in self.folder.glob("log-*") if log.name.removeprefix("log-").isdecimal())

    def add(self, number: int, rows: Array, errors: Mapping[int, str]) -> None:
        """Keep the rows of a batch, (N, ...), and the reasons for the files that have none.

        Raises: FeatureError if the disk is full; what was kept stays, and the same command continues later.
        """
        self.rows += len(rows)
        content = np.ascontiguousarray(rows, self.dtype).data.cast("B") if rows.size else memoryview(b"")
        entry = {"batch": number, "shape": rows.shape[1:], "rows": self.rows}
        entry |= {"errors": list(errors.items()), "crc": zlib.crc32(content)}
        with self._disk_errors():
            _append(self._appended("rows"), content)
            _append(self._appended("log"), memoryview(json.dumps(entry).encode() + b"\n"))

    def flush(self) -> None:
        """What this process added is on the disk, where the process that collects finds it, on another machine too."""
        with self._disk_errors():
            for file in self.appended.values():
                os.fsync(file)

    def _appended(self, kind: str) -> int:
        if kind not in self.appended:
            path = self.folder / f"{kind}-{self.process}"
            self.appended[kind] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | BINARY, 0o666)
            self.files.callback(os.close, self.appended[kind])
            os.ftruncate(self.appended[kind], self.vouched[kind])  # never behind bytes of an unknown past
        return self.appended[kind]

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                advice = "free some space and give the same command again"
            else:
                advice = "give the same command again to continue"
            raise FeatureError(
                f"{self.folder}: cannot be written ({error.strerror or error}); finished rows are kept: {advice}"
            ) from error

    def collect(self, done: Mapping[int, DoneBatch]) -> tuple[Array, int]:
        """All rows in the order of the batches, (N, ...), mapped from a file, and the CRC-32 of their bytes.

        Raises: FeatureError if the rows of a batch are not those that its line in the log vouches for.
        """
        shape = next((batch.shape for batch in done.values() if batch.count), None)
        if shape is None:
            return np.empty((0,), self.dtype), 0
        if any(batch.shape != shape for batch in done.values()):
            raise FeatureError(f"{self.folder}: holds rows of several shapes; give --no-resume to start over")
        total, crc = sum(batch.count for batch in done.values()), 0
        in_order = {batch.process for batch in done.values()} == {0} and list(done) == sorted(done)
        with self._disk_errors(), ExitStack() as files:
            target = None if in_order else files.enter_context((self.folder / "all").open("wb"))
            for number in sorted(done):
                content = self._content_of(done[number])
                crc = zlib.crc32(content, crc)
                if target is not None:
                    target.write(content)
        rows = self.folder / ("rows-0" if in_order else "all")
        with self._disk_errors():
            return np.memmap(rows, self.dtype, "c", shape=(total, *shape)), crc

    def _content_of(self, batch: DoneBatch) -> bytes:
        row_bytes = self._row_bytes(batch.shape)
        path = self.folder / f"rows-{batch.process}"
        with path.open("rb") as source:
            source.seek(batch.start * row_bytes)
            content = source.read(batch.count * row_bytes)
        if len(content) < batch.count * row_bytes or zlib.crc32(content) != batch.crc:
            raise FeatureError(
                f"{path}: the rows of batch {batch.number} are not the computed ones; "
                "something else wrote this file. Give --no-resume to start over"
            )
        return content

    def _row_bytes(self, shape: Sequence[int]) -> int:
        return math.prod(shape) * self.dtype.itemsize

    def remove(self) -> None:
        """Remove the folder when the output is in place."""
        with suppress(OSError):
            (self.folder / JOB_NAME).unlink(missing_ok=True)  # first: without it the rest is nothing to go on with
        if os.name == "nt":
            self.files.close()  # there an open file, such as the lock, cannot be removed
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_left_over(self) -> None:
        """Remove what a run left behind after its output was in place, unless another run is using it."""
        if self.folder.is_dir() and not self.folder.is_symlink():
            with suppress(LockedError, OSError), locked_folder(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)


def job_file(output: Path) -> Path:
    """Where the job of an unfinished output is described."""
    return output.with_name(f".{output.name}.unfinished") / JOB_NAME


def _log_of(rows: Path) -> Path:
    return rows.with_name(rows.name.replace("rows", "log"))


def _lines(log: Path) -> Iterator[tuple[bytes, DoneBatch]]:
    """Each line of a log with what it says, to the first line that is not whole."""
    rows, process = 0, int(log.name.removeprefix("log-"))
    with log.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            batch = _batch_of(line, process, rows)
            if batch is None:
                return
            rows += batch.count
            yield line, batch


def _batch_of(line: bytes, process: int, rows: int) -> DoneBatch | None:
    """What a line says of a batch whose rows begin after `rows` others; None if this program never wrote it."""
    try:
        entry = json.loads(line)
        number, crc, so_far, shape = (entry[key] for key in ("batch", "crc", "rows", "shape"))
        errors = {position: reason for position, reason in entry["errors"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    numbers = [number, crc, so_far, *errors] + (shape if isinstance(shape, list) else [None])
    if not all(type(value) is int and 0 <= value < MAX_NUMBER for value in numbers) or not line.endswith(b"\n"):
        return None
    if so_far < rows or 0 in shape or not all(type(reason) is str for reason in errors.values()):
        return None
    return DoneBatch(number, process, rows, so_far - rows, tuple(shape), errors, crc)


def _append(file: int, content: memoryview) -> None:
    while content:  # a write may be short
        content = content[os.write(file, content) :]
