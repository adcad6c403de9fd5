"""Files and a net -> one row of features a file, resumable, on one process or many.

Files are cut into batches by their position alone, so a batch holds the same files whether the work was interrupted or
split among processes, and the output is the same to the last bit. Batch k is the work of process k modulo their number.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from resnet_tools import __version__
from resnet_tools.errors import FeatureError, ImageError
from resnet_tools.feature_files import Features, check_format, write_features
from resnet_tools.feature_store import DoneBatch, FeatureStore
from resnet_tools.inference import Batch, Loading, loaded_batches, memory_errors, to_model
from resnet_tools.nets.resnet import ResNet
from resnet_tools.processes import ALONE, Processes
from resnet_tools.writing import written_whole

DEFAULT_LAYER = "flatten"  # the input of the classifier
Pool = Literal["avg", "none"]
OnError = Literal["skip", "fail", "zero"]


@dataclass(frozen=True)
class FeatureKind:
    """What a row is: the output of `layer`, `avg` pooled over positions or not, perhaps of length 1."""

    layer: str = DEFAULT_LAYER
    pool: Pool = "avg"
    l2_normalize: bool = False
    dtype: Literal["float32", "float16"] = "float32"


def layer_shapes(model: ResNet, crop_px: int) -> dict[str, tuple[int, ...]]:
    """Each layer that can be asked for, in the order of execution -> the shape of its output for one image.

    Layers are named as the modules are; `flatten` is the classifier's input.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            shapes.setdefault(name, tuple(output.shape[1:]))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with torch.inference_mode():
            weight = model.conv1.weight
            model(torch.zeros(1, 3, crop_px, crop_px, device=weight.device, dtype=weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    classifier = shapes.pop("fc")
    return shapes | {DEFAULT_LAYER: (model.architecture.feature_length,), "fc": classifier}


@torch.inference_mode()
def features_of(model: ResNet, images: Tensor, kind: FeatureKind) -> Tensor:
    """(N, 3, H, W) -> (N, D), or (N, C, h, w) without pooling, float32 on the CPU; (N, 10, 3, H, W): mean of the crops.

    Raises: ResnetToolsError if the memory does not suffice.
    """
    with memory_errors(len(images)):
        crops = to_model(model, images.flatten(0, -4))
        default = kind.layer == DEFAULT_LAYER
        features = model.forward_features(crops) if default else _output_of(model, kind.layer, crops)
        if features.ndim == 4 and kind.pool == "avg":
            features = features.mean((2, 3))
        features = features.float().cpu().contiguous()
    features = features.view(len(images), -1, *features.shape[1:]).mean(1)
    if kind.l2_normalize:
        features = nn.functional.normalize(features.flatten(1), dim=1).view_as(features)
    return features


class _LayerDone(Exception):
    """The output that was asked for is there; what follows need not be computed."""


def _output_of(model: ResNet, layer: str, images: Tensor) -> Tensor:
    outputs: list[Tensor] = []

    def stop(_: nn.Module, __: Any, output: Tensor) -> None:
        outputs.append(output.clone())  # the ReLU behind it works in place
        raise _LayerDone

    hook = model.get_submodule(layer).register_forward_hook(stop)
    try:
        with suppress(_LayerDone):
            model(images)
    finally:
        hook.remove()
    return outputs[0]


@dataclass(frozen=True)
class Extraction:
    """One job: `provenance` is what the output says of its making, and what a resumed job must share."""

    model: ResNet
    kind: FeatureKind
    loading: Loading
    provenance: dict[str, Any]
    on_error: OnError = "skip"
    resume: bool = True
    processes: Processes = ALONE

    def run(
        self, paths: Sequence[str], output: Path, shard_size: int | None, progress: Callable[[int, list[str]], None]
    ) -> list[Path]:
        """Write the features of `paths` to `output`, or to numbered shards and an index of them; the files written.

        progress: called with the number of files done and messages on unreadable ones.
        Raises: FeatureError (nothing to write, disk full, another job's leftovers), ImageError with on_error=fail.
        """
        check_format(output)
        if shard_size is None:
            self._run_part(paths, output, progress)
            return [output]
        parts = [paths[start : start + shard_size] for start in range(0, len(paths), shard_size)]
        shards = [output.with_name(f"{output.stem}-{n:05d}{output.suffix}") for n in range(len(parts))]
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
        mark = output.with_name(f".{output.name}.done")
        if finished and self.resume and output.exists() and mark.exists() and mark.read_text() == finished:
            progress(len(paths), [])
            return
        store = FeatureStore(output, np.dtype(self.kind.dtype), self.processes.rank)
        if self.processes.rank == 0:
            store.begin(self._job(paths), resume=self.resume)
        self.processes.wait()
        done = store.open()
        self._compute(paths, store, done, progress)
        self.processes.wait()
        if self.processes.rank == 0:
            self._finish(paths, store, output, may_be_empty=finished is not None)
            if finished:
                with written_whole(mark) as partial:
                    partial.write_text(finished)
            store.remove()  # only now: a stop before it must not lose the shard
        self.processes.wait()

    def _job(self, paths: Sequence[str]) -> dict[str, Any]:
        listed = hashlib.sha256(b"\0".join(map(os.fsencode, paths))).hexdigest()
        return {**self.provenance, "on_error": self.on_error, "files": len(paths), "file_list": listed}

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
        progress(sum(len(paths[n * size : (n + 1) * size]) for n in mine if n in done), [])
        files = [path for number in waiting for path in paths[number * size : (number + 1) * size]]
        # Only the last batch of all may be short, and it is the last here too: the batches come out as they were cut.
        for number, batch in zip(waiting, loaded_batches(files, self.loading), strict=True):
            rows, errors = self._rows(batch)
            store.add(number, rows, errors)
            progress(len(batch.paths), [str(error) for error in batch.errors if error is not None])

    def _rows(self, batch: Batch) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
        errors = {position: str(error) for position, error in enumerate(batch.errors) if error is not None}
        if errors and self.on_error == "fail":
            raise ImageError(f"{next(iter(errors.values()))}. What is done so far is kept (--on-error fail)")
        if batch.images is None:
            return self._zeros(len(batch.paths) if self.on_error == "zero" else 0), errors
        rows = features_of(self.model, batch.images, self.kind).to(getattr(torch, self.kind.dtype)).numpy()
        if not errors or self.on_error == "skip":
            return rows, errors
        padded = self._zeros(len(batch.paths))
        padded[[position for position in range(len(batch.paths)) if position not in errors]] = rows
        return padded, errors

    def _zeros(self, count: int) -> np.ndarray[Any, Any]:
        return np.zeros((count, *self._row_shape), self.kind.dtype)

    @cached_property
    def _row_shape(self) -> tuple[int, ...]:
        shape = layer_shapes(self.model, self.loading.preprocessing.crop_px)[self.kind.layer]
        return shape[:1] if self.kind.pool == "avg" else shape

    def _finish(self, paths: Sequence[str], store: FeatureStore, output: Path, *, may_be_empty: bool) -> None:
        done = store.open()
        rows = store.collect(done)
        size = self.loading.batch_size
        kept, errors = [], []
        for number in sorted(done):
            for position, path in enumerate(paths[number * size : (number + 1) * size]):
                reason = done[number].errors.get(position)
                if reason is not None:
                    errors.append((path, reason))
                if reason is None or self.on_error == "zero":
                    kept.append(path)
        if len(errors) == len(paths) and not may_be_empty:
            store.remove()
            raise FeatureError(f"none of the {len(paths)} images could be read; {output} is not written")
        if len(kept) != len(rows):
            raise FeatureError(f"{store.folder}: has {len(rows)} rows for {len(kept)} files; remove it and start anew")
        write_features(Features(rows, kept, errors, self.provenance), output)

    def _write_index(self, index: Path, parts: Sequence[Sequence[str]], shards: Sequence[Path]) -> None:
        content = {
            "shards": [{"file": s.name, "files": len(p)} for s, p in zip(shards, parts, strict=True)],
            **self.provenance,
        }
        with written_whole(index) as partial:
            partial.write_text(json.dumps(content, indent=1))
        for shard in shards:
            shard.with_name(f".{shard.name}.done").unlink(missing_ok=True)


def provenance_of(model_path: Path, net: ResNet, kind: FeatureKind, loading: Loading, precision: str) -> dict[str, Any]:
    """What made the features, as plain values: the model's file and hash, the layer, the preprocessing, the version."""
    return {
        "model": os.fspath(model_path),
        "model_sha256": _sha256_of(model_path),
        "architecture": net.architecture.to_dict(),
        **asdict(kind),
        "preprocessing": loading.preprocessing.to_dict(),
        "ten_crop": loading.ten_crop,
        "exif_orientation": loading.exif,
        "precision": precision,
        "batch_size": loading.batch_size,
        "version": __version__,
    }


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def may_fold(layer: str) -> bool:
    """Whether the layer's output is the same with batch norms folded: not so for a convolution's, which they change."""
    return layer in (DEFAULT_LAYER, "avgpool", "norm", "fc") or re.fullmatch(r"layer\d+(\.\d+)?", layer) is not None
