"""A features file -> the net that made it, ready to compute the same features of other images.

What the file says is not trusted: a net counts only if its file has the recorded SHA-256, and nothing in the file makes
onnxruntime, whose reader is not ours, open a graph that nobody named.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.checkpoints.model_files import DEMO_PATH, model_path
from resnet_tools.checkpoints.onnx_files import is_onnx
from resnet_tools.checkpoints.runnable import Net, Runnable, load_runnable, prepare_net, ready_net
from resnet_tools.compute.device import default_workers, find_device, keep_freed_memory, set_tf32
from resnet_tools.compute.engines import EXTRAS, find_engine
from resnet_tools.compute.inference import DTYPES, Loading, device_of, loaded_batches
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import DeviceMemoryError, FeatureError, ImageError, Note, NotFiniteError, ResnetToolsError
from resnet_tools.features.extract import NOT_FINITE
from resnet_tools.features.layers import FeatureKind, features_of, layer_shapes, may_fold
from resnet_tools.features.opened import FeatureRows
from resnet_tools.reading import hashed

Array = np.ndarray[Any, Any]
NEEDED = ("model", "model_sha256", "layer", "pool", "preprocessing", "ten_crop", "precision")
BATCH_SIZE = 32


@dataclass(frozen=True)
class QueryNet:
    """The net, which of its outputs the rows are, and how images are loaded for it."""

    model: Net
    kind: FeatureKind
    loading: Loading

    def rows(self, images: Sequence[Any]) -> Iterator[tuple[str, Array | ImageError]]:
        """The name and features (D,) float32 of each image, which `preprocess` takes, or why there are none."""
        position = -1
        for batch in loaded_batches(images, self.loading, device_of(self.model)):
            good = iter(()) if batch.images is None else iter(self._rows_of(batch.images))
            for source, error in zip(batch.paths, batch.errors, strict=True):
                position += 1
                path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"image {position}"
                row = error if error is not None else next(good)
                if isinstance(row, np.ndarray) and not np.isfinite(row).all():
                    row = NotFiniteError(f"{path}: {NOT_FINITE}")
                elif isinstance(row, np.ndarray) and not row.any():
                    row = ImageError(f"{path}: its features are all zero, so nothing is similar to it")
                yield path, row

    def _rows_of(self, images: torch.Tensor) -> Array:
        found: Array = features_of(self.model, images, self.kind).flatten(1).numpy()
        return found


def query_net(
    features: FeatureRows, device: str, *, model: str | None, weights: str | None, batch_size: int | None
) -> QueryNet:
    """The net of the features, from `model` or where the file says that it was, with the engine that made them.

    device: as `find_device` takes it; `auto` is a device of the kind that made them, if there is one.
    weights: as `load_checkpoint` takes it, as the features were made with.
    Warns if engine or kind of device are others, whose features differ a little.
    Raises: FeatureError if the file does not say how it was made, or the net is not that one.
    """
    made = features.provenance
    missing = [name for name in NEEDED if name not in made]
    if missing:
        raise FeatureError(
            f"{features.path}: does not say how its features were made ({', '.join(missing)} not there), so those of "
            "other images cannot be compared with them. `resnet extract-features` records it in the file, or in "
            "NAME.provenance.json beside a .npy or .csv; a .t7 cannot hold it. --all and --duplicates work without"
        )
    kind, preprocessing = _settings(features)
    path = _found_model(features, model)
    checkpoint = load_runnable(path, weights=weights)
    shape = layer_shapes(checkpoint.model, preprocessing.crop_px).get(kind.layer)
    width = 0 if shape is None else shape[0] if kind.pool == "avg" else prod(shape)
    if width != features.width:
        has = "no such layer" if shape is None else f"{width} numbers there"
        raise FeatureError(
            f"{features.path}: has rows of {features.width} numbers from layer {kind.layer!r:.100}; {path} has {has}. "
            "If the file of the net holds several, give --weights as for the features"
        )
    found_device = _device(features, device)
    prepared = _prepared(features, checkpoint, found_device, kind)
    loading = Loading(preprocessing, batch_size or BATCH_SIZE, made["ten_crop"], default_workers(found_device))
    return QueryNet(prepared, kind, loading)


def _device(features: FeatureRows, asked: str) -> torch.device:
    """Raises: ResnetToolsError as `find_device`."""
    made_on = features.provenance.get("device")
    if made_on not in ("cpu", "cuda", "mps"):
        return find_device(asked)
    try:
        found = find_device(made_on if asked == "auto" else asked)
    except ResnetToolsError:
        if asked != "auto":
            raise
        found = find_device(asked)
    if found.type != made_on:
        warnings.warn(f"{features.path}: was made on {made_on}; the images are computed on {found.type}", Note, 2)
    return found


def _prepared(features: FeatureRows, checkpoint: Runnable, device: torch.device, kind: FeatureKind) -> Net:
    """The net made ready by the engine that made the features, or by torch if that cannot be."""
    engine, precision = str(features.provenance.get("engine")), features.provenance["precision"]
    fold = may_fold(kind.layer)
    if engine not in EXTRAS or not isinstance(checkpoint, Checkpoint):
        return prepare_net(checkpoint.model, device, precision, fold=fold)
    try:
        find_engine(engine, device.type, precision)
        return ready_net(checkpoint, engine, device, precision, layer=kind.layer, fold=fold)
    except DeviceMemoryError:
        raise
    except ResnetToolsError as error:
        warnings.warn(f"{features.path}: was made with {engine}; torch computes the images: {error}", Note, 2)
        return prepare_net(checkpoint.model, device, precision, fold=fold)


def prepare_products(device: torch.device) -> None:
    """Make products fast on a CPU, and exact on a GPU, also after a net with --precision tf32."""
    if device.type == "cuda":
        set_tf32(False)
    else:
        keep_freed_memory()


def _settings(features: FeatureRows) -> tuple[FeatureKind, Preprocessing]:
    made = features.provenance
    try:
        preprocessing = Preprocessing.from_dict(made["preprocessing"])
    except (ValueError, TypeError) as error:
        raise FeatureError(f"{features.path}: its preprocessing cannot be used: {error}") from error
    allowed = {"pool": ("avg", "none"), "precision": tuple(DTYPES), "ten_crop": (False, True)}
    for name, values in allowed.items():
        if type(made[name]) is not type(values[0]) or made[name] not in values:
            raise FeatureError(f"{features.path}: {name} is {made[name]!r:.100}; expected one of {values}")
    for name in ("model", "model_sha256", "layer"):
        if type(made[name]) is not str:
            raise FeatureError(f"{features.path}: {name} is {made[name]!r:.100}; expected a text")
    return FeatureKind(made["layer"], made["pool"]), preprocessing


def _found_model(features: FeatureRows, model: str | None) -> Path:
    """The file of the net, with the SHA-256 that the features record."""
    recorded: str = features.provenance["model"]
    if model is not None:
        path: Path = model_path(model)
        if _sha256_of(path) != features.provenance["model_sha256"]:
            raise FeatureError(
                f"{path}: is not the net of {features.path}: its SHA-256 is {_sha256_of(path)}, that of the net of the "
                f"features {features.provenance['model_sha256']:.64}. They were made with {recorded:.200}"
            )
        return path
    places = [Path(recorded), features.path.parent / os.path.basename(recorded), DEMO_PATH]
    there = [path for path in places if "\0" not in recorded and path.is_file()]
    for path in there:
        if _sha256_of(path) == features.provenance["model_sha256"]:
            if is_onnx(path):
                raise FeatureError(f"{path}: made the features; name it with --model to let onnxruntime open it")
            return path
    problem = "is another file now" if there[:1] == places[:1] else "is not there"
    raise FeatureError(
        f"{features.path}: was made with {recorded:.200}, which {problem}. Give --model FILE, the file with SHA-256 "
        f"{features.provenance['model_sha256']:.64}"
    )


def _sha256_of(path: Path) -> str:
    return hashed(path, hashlib.sha256()).hexdigest()
