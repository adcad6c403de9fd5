"""The unfinished features of one output file: rows as they come, on disk, so that a stop loses at most a batch.

The folder `.NAME.unfinished` beside the output holds
- `job.json`: what is computed; another job is refused, with the difference named;
- `rows-R` and `log-R` for each process R: the rows one after another, and a line of JSON for each finished batch:
  {"batch": number, "shape": of a row, "rows": in all of this file so far, "errors": [[position in the batch, reason]]}.
A line is written after its rows, so rows without a line are of a batch that did not finish; they are cut off.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tools.errors import FeatureError
from resnet_tools.writing import written_whole

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class DoneBatch:
    """Where the rows of a finished batch lie, and which of its files have none."""

    process: int
    start: int
    count: int
    shape: tuple[int, ...]
    errors: dict[int, str]


class FeatureStore:
    """Opened by every process of a job; each appends to files of its own."""

    def __init__(self, output: Path, dtype: np.dtype[Any], process: int = 0) -> None:
        self.folder = output.with_name(f".{output.name}.unfinished")
        self.dtype, self.process = dtype, process
        self.rows = 0

    def begin(self, job: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or find it of the same job. Only one process of a job does this, before the others open.

        Raises: FeatureError naming what differs, if it is of another job, or if it cannot be written.
        """
        if not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        path = self.folder / "job.json"
        try:
            if path.exists():
                self._check_job(json.loads(path.read_text()), job)
                return
            shutil.rmtree(self.folder, ignore_errors=True)  # what is left of a folder that was being removed
            self.folder.mkdir()
            with written_whole(path) as partial:
                partial.write_text(json.dumps(job))
        except (OSError, ValueError) as error:
            raise FeatureError(f"{self.folder}: cannot be written or read: {error}") from error

    def _check_job(self, earlier: Any, job: Mapping[str, Any]) -> None:
        if not isinstance(earlier, dict):
            raise FeatureError(f"{self.folder}: holds no job; remove it, or give --no-resume to start anew")
        for key in job:
            if earlier.get(key) != job[key]:
                raise FeatureError(
                    f"{self.folder} holds an unfinished extraction with another {key}: {earlier.get(key)!r:.100}, "
                    f"now {job[key]!r:.100}. Give the same command to go on, or --no-resume to start anew"
                )

    def open(self) -> dict[int, DoneBatch]:
        """Every finished batch, of all processes; this process's files are cut to what is finished."""
        self.folder.mkdir(exist_ok=True)
        done: dict[int, DoneBatch] = {}
        for log in sorted(self.folder.glob("log-*")):
            process = int(log.name.removeprefix("log-"))
            valid, rows = self._read_log(log, process, done)
            if process == self.process:
                os.truncate(log, valid)
                self.rows = rows
        own = self.folder / f"rows-{self.process}"
        own.touch()
        row_bytes = next((self._row_bytes(batch.shape) for batch in done.values()), 0)
        if own.stat().st_size < self.rows * row_bytes:
            raise FeatureError(
                f"{own}: shorter than the {self.rows} rows that were done; give --no-resume to start anew"
            )
        os.truncate(own, self.rows * row_bytes)
        return done

    def _read_log(self, log: Path, process: int, done: dict[int, DoneBatch]) -> tuple[int, int]:
        """The bytes of whole lines and the rows that they count."""
        valid, rows = 0, 0
        for line in log.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            errors = {int(position): str(reason) for position, reason in entry["errors"]}
            count = entry["rows"] - rows
            done[entry["batch"]] = DoneBatch(process, rows, count, tuple(entry["shape"]), errors)
            valid, rows = valid + len(line), entry["rows"]
        return valid, rows

    def add(self, batch: int, rows: Array, errors: Mapping[int, str]) -> None:
        """Keep the rows of a batch, (N, ...), and the reasons for the files that have none.

        Raises: FeatureError if the disk is full; what was kept stays, and the same command goes on later.
        """
        self.rows += len(rows)
        entry = {"batch": batch, "shape": rows.shape[1:], "rows": self.rows, "errors": list(errors.items())}
        try:
            with (self.folder / f"rows-{self.process}").open("ab") as file:
                file.write(np.ascontiguousarray(rows, self.dtype).data.cast("B") if rows.size else b"")
            with (self.folder / f"log-{self.process}").open("ab") as file:
                file.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise FeatureError(
                f"{self.folder}: cannot be written ({error.strerror}); what is done so far is kept: "
                "make room and give the same command again"
            ) from error

    def collect(self, done: Mapping[int, DoneBatch]) -> Array:
        """All rows in the order of the batches, (N, ...), mapped from a file."""
        shape = next((batch.shape for batch in done.values() if batch.count), None)
        if shape is None:
            return np.empty((0,), self.dtype)
        row_bytes, total = self._row_bytes(shape), sum(batch.count for batch in done.values())
        if {batch.process for batch in done.values()} == {0} and list(done) == sorted(done):
            return np.memmap(self.folder / "rows-0", self.dtype, "c", shape=(total, *shape))
        with (self.folder / "all").open("wb") as target:
            for number in sorted(done):
                batch = done[number]
                with (self.folder / f"rows-{batch.process}").open("rb") as source:
                    source.seek(batch.start * row_bytes)
                    target.write(source.read(batch.count * row_bytes))
        return np.memmap(self.folder / "all", self.dtype, "c", shape=(total, *shape))

    def _row_bytes(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize

    def remove(self) -> None:
        """Called when the output is in its place."""
        (self.folder / "job.json").unlink(missing_ok=True)  # first: without it the rest is nothing to go on with
        shutil.rmtree(self.folder, ignore_errors=True)
