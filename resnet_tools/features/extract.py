"""Files and a net -> one row of features per file, resumable, on one process or many.

Files are cut into batches by their position alone, so a batch holds the same files whether the work was interrupted or
split among processes, and the output is the same to the last bit. Batch k is the work of process k modulo their number.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resnet_tools.checkpoints.runnable import Net
from resnet_tools.compute.inference import Batch, Loading, device_of, loaded_batches
from resnet_tools.compute.predictions import WHY_NOT_FINITE
from resnet_tools.compute.processes import ALONE, Processes
from resnet_tools.errors import FeatureError, ImageError, ResnetToolsError
from resnet_tools.features.files import Features, check_format, file_sums, stored_dtype, write_features
from resnet_tools.features.layers import FeatureKind, features_of, layer_shapes
from resnet_tools.features.store import MAX_JOB_BYTES, DoneBatch, FeatureStore
from resnet_tools.reading import read_bounded
from resnet_tools.text import counted
from resnet_tools.writing import written_whole

Array = np.ndarray[Any, Any]
MAX_MARK_BYTES = 1 << 16
NOT_FINITE = f"the net gives NaN or infinite features for it; {WHY_NOT_FINITE}"
OnError = Literal["skip", "fail", "zero"]


@dataclass(frozen=True)
class Extraction:
    """One job. `provenance`: how the features are made; the output records it and a resumed job must have the same."""

    model: Net
    kind: FeatureKind
    loading: Loading
    provenance: dict[str, Any]
    on_error: OnError = "skip"
    resume: bool = True
    processes: Processes = ALONE

    # Path -> why it has no features, of what the last call of `run` has computed or found unfinished.
    reasons: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def run(
        self, paths: Sequence[str], output: Path, shard_size: int | None, progress: Callable[[int, list[str]], None]
    ) -> list[Path]:
        """Write the features of `paths` to `output`, or to numbered shards with an index. Returns the files written.

        progress: called with the number of files done and messages on unreadable ones.
        Raises: FeatureError (nothing to write, disk full, another job's leftovers), ImageError with on_error=fail.
        """
        check_format(output, paths)
        self.reasons.clear()
        try:
            return self._run(paths, output, shard_size, progress)
        except OSError as error:
            raise FeatureError(
                f"{error.filename or output}: {error.strerror or error}; finished rows are kept: fix this and give the "
                "same command again to continue"
            ) from error

    def in_memory(self, sources: Sequence[Any], progress: Callable[[int, list[str]], None]) -> Features:
        """The features of images in any form that is loaded, which are called what `str` makes of them; maybe none.

        Raises: ImageError with on_error=fail.
        """
        parts, kept, errors = [self._zeros(0)], [], []
        skipping = replace(self, on_error="skip") if self.on_error == "fail" else self
        for batch in loaded_batches(sources, self.loading, device_of(self.model)):
            rows, reasons = skipping._rows(batch)
            if reasons and self.on_error == "fail":
                raise ImageError(next(iter(reasons.values())))
            parts.append(rows)
            names = list(map(str, batch.paths))
            errors += [(names[position], reason) for position, reason in reasons.items()]
            kept += [name for k, name in enumerate(names) if k not in reasons or self.on_error == "zero"]
            progress(len(names), list(reasons.values()))
        rows = np.ascontiguousarray(np.concatenate(parts))
        return Features(rows, kept, errors, self.provenance, zlib.crc32(rows.data))

    def _run(
        self, paths: Sequence[str], output: Path, shard_size: int | None, progress: Callable[[int, list[str]], None]
    ) -> list[Path]:
        if len(set(self.processes.gather(self._digest(paths)))) > 1:
            raise FeatureError(
                "the processes of this job have different files or options; give all of them the same, and a list as a "
                "file, because stdin reaches only one of them"
            )
        if shard_size is None:
            self._run_part(paths, output, progress)
            return [output]
        # A shard is a job of its own: only the unfinished one is in a store, and each that is done stays done.
        parts = [paths[start : start + shard_size] for start in range(0, len(paths), shard_size)]
        shards = [shard_of(output, number) for number in range(len(parts))]
        if not self.resume and self.processes.rank == 0:
            _remove_marks(shards)
        for part, shard in zip(parts, shards, strict=True):
            self._run_part(part, shard, progress, finished=self._digest(part))
        index = output.with_name(f"{output.stem}.index.json")
        if self.processes.rank == 0:
            self._write_index(index, parts, shards)
        return [*shards, index]

    def _run_part(
        self,
        paths: Sequence[str],
        output: Path,
        progress: Callable[[int, list[str]], None],
        finished: str | None = None,
    ) -> None:
        # Process 0 looks and decides for all: the others may see changes on a shared disk late.
        looks = self.processes.rank == 0 and self.resume and finished is not None
        if self.processes.gather(looks and self._is_finished(finished, output))[0]:
            if self.processes.rank == 0:
                FeatureStore(output, stored_dtype(output, self.kind.dtype)).remove_left_over()
            progress(len(paths), [])
            return
        with FeatureStore(output, stored_dtype(output, self.kind.dtype), self.processes.rank) as store:
            if self.processes.rank == 0:
                store.begin(self._job(paths), resume=self.resume)
            self.processes.wait()
            self._compute(paths, store, store.open(), progress)
            store.flush()
            self.processes.wait()  # the rows of all processes are on the disk before process 0 collects them
            if self.processes.rank == 0:
                self._finish(paths, store, output, may_be_empty=finished is not None)
                if finished is not None:
                    with written_whole(mark_of(output)) as partial:
                        partial.write_text(json.dumps(self._mark(finished, output)))
                store.remove()  # only now, so that a stop before this line does not lose the shard
            self.processes.wait()

    def _job(self, paths: Sequence[str]) -> dict[str, Any]:
        listed = hashlib.sha256()
        for path in paths:
            listed.update(os.fsencode(path) + b"\0")
        return {**self.provenance, "on_error": self.on_error, "files": len(paths), "file_list": listed.hexdigest()}

    def _mark(self, job: str | None, shard: Path) -> dict[str, Any]:
        """What is noted of a shard that is finished."""
        return {"job": job, "engine": self.provenance.get("engine"), **file_sums(shard)}

    def _is_finished(self, job: str | None, shard: Path) -> bool:
        """Whether the shard is this job's as it was written: its mark holds the checksums of its files.

        A mark of an older version has no engine, but that is a part of the job.
        """
        mark, noted = self._mark(job, shard), read_noted(mark_of(shard), MAX_MARK_BYTES)
        return noted is not None and {"engine": mark["engine"], **noted} == mark

    def _digest(self, paths: Sequence[str]) -> str:
        return hashlib.sha256(json.dumps(self._job(paths), sort_keys=True).encode()).hexdigest()

    def _compute(
        self,
        paths: Sequence[str],
        store: FeatureStore,
        done: dict[int, DoneBatch],
        progress: Callable[[int, list[str]], None],
    ) -> None:
        size, rank = self.loading.batch_size, self.processes.rank
        mine = range(rank, -(-len(paths) // size), self.processes.count)
        waiting = [number for number in mine if number not in done]
        # Work of an earlier run counts as done at once, so that rate and time left are those of this one.
        progress(sum(len(paths[n * size : (n + 1) * size]) for n in mine if n in done), [])
        files = [path for number in waiting for path in paths[number * size : (number + 1) * size]]
        # Only the last batch of all may be short, and it is the last here too: the batches come out as they were cut.
        for number, batch in zip(waiting, loaded_batches(files, self.loading, device_of(self.model)), strict=True):
            rows, errors = self._rows(batch)
            store.add(number, rows, errors)
            progress(len(batch.paths), list(errors.values()))

    def _rows(self, batch: Batch) -> tuple[Array, dict[int, str]]:
        """The rows of a batch that are kept, and the reasons for the positions that have no features."""
        errors = {position: str(error) for position, error in enumerate(batch.errors) if error is not None}
        rows = self._zeros(0)
        if batch.images is not None:
            rows = features_of(self.model, batch.images, self.kind).numpy()
            good = [position for position in range(len(batch.paths)) if position not in errors]
            finite = np.isfinite(rows).reshape(len(rows), -1).all(1)
            for position, is_finite in zip(good, finite, strict=True):
                if not is_finite:
                    errors[position] = f"{batch.paths[position]}: {NOT_FINITE}"
            rows = rows[finite]
            if self.kind.dtype == "float16":
                rows = _halved(rows)
        errors = dict(sorted(errors.items()))
        if errors and self.on_error == "fail":
            raise ImageError(f"{next(iter(errors.values()))}. Finished rows are kept (--on-error fail)")
        if not errors or self.on_error == "skip":
            return rows, errors
        padded = self._zeros(len(batch.paths))
        padded[[position for position in range(len(batch.paths)) if position not in errors]] = rows
        return padded, errors

    def _zeros(self, count: int) -> Array:
        return np.zeros((count, *self._row_shape), self.kind.dtype)

    @cached_property
    def _row_shape(self) -> tuple[int, ...]:
        shape = layer_shapes(self.model, self.loading.preprocessing.crop_px)[self.kind.layer]
        return shape[:1] if self.kind.pool == "avg" else shape

    def _finish(self, paths: Sequence[str], store: FeatureStore, output: Path, *, may_be_empty: bool) -> None:
        done = store.done()
        rows, crc = store.collect(done)
        size = self.loading.batch_size
        kept, errors = [], []
        for number in sorted(done):
            for position, path in enumerate(paths[number * size : (number + 1) * size]):
                reason = done[number].errors.get(position)
                path = str(path)  # of a source that is no file, only its name is written
                if reason is not None:
                    errors.append((path, reason))
                if reason is None or self.on_error == "zero":
                    kept.append(path)
        self.reasons.update(errors)
        if len(errors) == len(paths) and not may_be_empty:
            store.remove()
            raise FeatureError(
                f"none of the {counted(len(paths), 'image')} could be used; {output} was not written. "
                f"The first: {errors[0][1]}"
            )
        if len(kept) != len(rows):
            raise FeatureError(
                f"{store.folder}: has {counted(len(rows), 'row')} for {counted(len(kept), 'file')}; "
                f"remove it and start over"
            )
        write_features(Features(rows, kept, errors, self.provenance, crc), output)

    def _write_index(self, index: Path, parts: Sequence[Sequence[str]], shards: Sequence[Path]) -> None:
        content = {
            "shards": [{"file": s.name, "files": len(p)} for s, p in zip(shards, parts, strict=True)],
            **self.provenance,
        }
        with written_whole(index) as partial:
            partial.write_text(json.dumps(content, indent=1))
        _remove_marks(shards)


def shard_of(output: Path, number: int) -> Path:
    """The file of a shard, from 0."""
    return output.with_name(f"{output.stem}-{number:05d}{output.suffix}")


def mark_of(shard: Path) -> Path:
    """The file that says which job a finished shard belongs to, with the checksums of its files."""
    return shard.with_name(f".{shard.name}.done")


def read_noted(path: Path, most_bytes: int = MAX_JOB_BYTES) -> dict[str, Any] | None:
    """What is noted there of a job or a finished shard; None if nothing is, or something else."""
    try:
        found = json.loads(read_bounded(path, most_bytes))
    except (ResnetToolsError, OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _remove_marks(shards: Sequence[Path]) -> None:
    for shard in shards:
        mark_of(shard).unlink(missing_ok=True)


def _halved(rows: Array) -> Array:
    largest = np.abs(rows).max(initial=0)
    if largest > np.finfo(np.float16).max:
        raise FeatureError(f"a feature of size {largest:.6g} does not fit into --dtype float16; use float32")
    return rows.astype(np.float16)
