"""Path of a checkpoint -> a file of another format, kept only if it computes the same: `convert`.

=============  ==============================================================  ========  ===========================
ending         content                                                         classes   weights
=============  ==============================================================  ========  ===========================
.pt            ours, for torch.load                                            inside    float32, float16, bfloat16
.safetensors   ours, weights and metadata                                      inside    float32, float16, bfloat16
.pth           state dict for the net of torchvision or timm (`nets.layouts`)  beside    float32, float16, bfloat16
.onnx          graph (`onnx_files`)                                            inside    float32, float16
.t7            Lua modules (`torch7.export_modules`)                           beside    float32
=============  ==============================================================  ========  ===========================

"beside" is NAME.classes.txt, where `load_checkpoint` finds them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_tools.checkpoints.checkpoint import Checkpoint, default_preprocessing, load_checkpoint
from resnet_tools.checkpoints.layouts import Layout, check_installed, net_there, state_for
from resnet_tools.checkpoints.model_files import model_path, names_beside
from resnet_tools.checkpoints.onnx_export import onnx_packages, write_onnx
from resnet_tools.checkpoints.onnx_files import is_onnx
from resnet_tools.checkpoints.onnx_session import WrittenNet
from resnet_tools.checkpoints.saving import description, extra_content, write_model
from resnet_tools.checkpoints.tensor_files import checked_state, float_state, torch_write
from resnet_tools.checkpoints.torch_files import read_torch
from resnet_tools.checkpoints.verify import (
    ONNX_TOLERANCE,
    Comparison,
    Net,
    compare,
    fixed_images,
    logits_on,
    net_of,
    run_plain,
)
from resnet_tools.data.labels import read_labels
from resnet_tools.errors import ExportError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.resnet import fold_batch_norm
from resnet_tools.torch7.export_modules import Package, lua_modules
from resnet_tools.torch7.t7_writer import write_t7
from resnet_tools.writing import written_whole

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ENDINGS = (".pt", ".safetensors", ".pth", ".onnx", ".t7")
BUFFER_BYTES = 1 << 18
NAMES_BESIDE = (".pth", ".t7")
# Of the largest logit. The same operations give the same bits; what `state_for` moves into other weights is rounded.
TOLERANCES = {".onnx": ONNX_TOLERANCE, ".pth": 1e-5}
SAME_OPERATIONS = 1e-6
ROUNDED = {"float16": 5e-2, "bfloat16": 2e-1}  # 3e-3 and 2e-2 are usual; deep nets with random weights lose more


@dataclass(frozen=True)
class Target:
    """What to write. `package` is for .t7, `layout` (torchvision if not given) for .pth, `fold` for .onnx."""

    path: Path
    layout: Layout | None = None
    package: Package = "cudnn"
    dtype: str = "float32"
    fold: bool = False
    strip: bool = False

    @property
    def ending(self) -> str:
        return self.path.suffix.lower()

    @property
    def library(self) -> Layout:
        return self.layout or "torchvision"

    @property
    def tolerance(self) -> float:
        return ROUNDED.get(self.dtype, TOLERANCES.get(self.ending, SAME_OPERATIONS))


@dataclass(frozen=True)
class Converted:
    """What was written, how far its outputs are from the source's, and what the format could not hold."""

    path: Path
    comparison: Comparison
    tolerance: float
    notes: list[str]


def convert(
    source: str | os.PathLike[str],
    target: Target,
    *,
    class_names: Sequence[str] | Path | None = None,
    tolerance: float | None = None,
    force: bool = False,
    weights: str | None = None,
) -> Converted:
    """Write the net of `source` as `target`, read it back, and keep it only if it computes the same.

    class_names: for a checkpoint that has none, or others; or the file that lists them. tolerance: of the largest
    logit; each format has its own.
    force: an existing file may be replaced. weights: which net of the source, as `load_checkpoint` takes it.
    Raises: ResnetToolsError if that cannot be done; the source, and an earlier file, are untouched then.

    >>> from pathlib import Path
    >>> from resnet_tools import Target, convert
    >>> converted = convert("demo", Target(Path("demo.safetensors")))
    >>> converted.path.name, converted.tolerance
    ('demo.safetensors', 1e-06)
    """
    found = model_path(source)
    target = replace(target, path=Path(os.path.realpath(target.path)))  # a link stays a link
    _check(found, target, force)
    checkpoint = _named(load_checkpoint(found, weights=weights), class_names)
    extra = extra_content(found) if checkpoint.format == "pt" else {}
    _check_classifier(checkpoint, target)
    notes = _notes(checkpoint, extra, target)
    names_file = _names_file(checkpoint, target.path, force)
    images = fixed_images(checkpoint.preprocessing)
    expected = logits_on(net_of(checkpoint.model), images)
    names, architecture = checkpoint.class_names or [], checkpoint.architecture
    try:
        with written_whole(target.path) as unfinished:
            _write(checkpoint, replace(target, path=unfinished), extra)
            del checkpoint  # one net at a time is in memory
            comparison = compare(expected, logits_on(_net_in(replace(target, path=unfinished), architecture), images))
            allowed = target.tolerance if tolerance is None else tolerance
            if not comparison.within(allowed):
                advice = f"; --tolerance {2 * comparison.relative:.1g} accepts that" * isfinite(comparison.relative)
                raise ExportError(f"{target.path}: nothing is written: {comparison}; expected {allowed:g}{advice}")
            if names_file is not None:
                with written_whole(names_file) as unfinished_names:
                    unfinished_names.write_text("".join(f"{name}\n" for name in names), "utf-8")
    except OSError as error:
        raise ExportError(f"{target.path}: cannot be written: {error.strerror or error}") from error
    return Converted(target.path, comparison, allowed, notes)


def _check(source: Path, target: Target, force: bool) -> None:
    """Everything that can be checked before the net is loaded."""
    path = target.path
    if target.ending not in ENDINGS:
        raise ExportError(f"{path}: the extension {target.ending!r} is unknown; expected one of {', '.join(ENDINGS)}")
    for asked_for, endings, reason in _OPTIONS:
        if asked_for(target) and target.ending not in endings:
            raise ExportError(f"{path}: {reason}")
    if is_onnx(source):
        raise ExportError(f"{source}: holds a graph and no checkpoint; convert the file that it was made from")
    if os.path.exists(source) and os.path.exists(path) and os.path.samefile(source, path):
        raise ExportError(f"{path}: this is the file that is read; write to another")
    for is_so, problem in (
        (os.path.isdir(path), "a folder has this name"),
        (not os.path.isdir(path.parent), f"there is no folder {path.parent}"),
        (not os.access(path.parent, os.W_OK | os.X_OK), f"Permission denied to make files in {path.parent}"),
    ):
        if is_so:
            raise ExportError(f"{path}: cannot be written: {problem}")
    if path.exists() and not force:
        raise ExportError(f"{path}: this file exists; --force replaces it")
    if target.ending == ".onnx":
        onnx_packages()
    if target.ending == ".pth":
        check_installed(target.library)


_OPTIONS: tuple[tuple[Callable[[Target], bool], tuple[str, ...], str], ...] = (
    (lambda target: target.layout is not None, (".pth",), "--layout is for .pth files"),
    (lambda target: target.package != "cudnn", (".t7",), "--nn is for .t7 files"),
    (
        lambda target: target.fold,
        (".onnx",),
        "--fold-batch-norm is for .onnx; the other formats are for nets that can be trained on, which have batch norms",
    ),
    (
        lambda target: target.dtype != "float32",
        (".pt", ".safetensors", ".pth", ".onnx"),
        "Torch7 computes in float32 only; leave out --dtype",
    ),
    (
        lambda target: target.dtype == "bfloat16",
        (".pt", ".safetensors", ".pth"),
        "onnxruntime has no convolutions in bfloat16 to verify it with; use --dtype float16",
    ),
)


def _named(checkpoint: Checkpoint, class_names: Sequence[str] | Path | None) -> Checkpoint:
    if class_names is None:
        return checkpoint
    if isinstance(class_names, Path):
        class_names = read_labels(class_names, checkpoint.architecture.num_classes)
    if len(class_names) != checkpoint.architecture.num_classes:
        raise ExportError(
            f"{len(class_names)} class names are given; the net has {checkpoint.architecture.num_classes}"
        )
    return replace(checkpoint, class_names=list(class_names))


def _check_classifier(checkpoint: Checkpoint, target: Target) -> None:
    if not checkpoint.architecture.num_classes and target.ending not in (".pt", ".safetensors"):
        raise ExportError(
            f"{target.path}: the net has no classifier, which a {target.ending} must have; write .pt or .safetensors"
        )


def _notes(checkpoint: Checkpoint, extra: Mapping[str, Any], target: Target) -> list[str]:
    notes = []
    if extra and not _keeps_extra(target):
        notes.append(f"left out: {', '.join(extra)}")
    if target.ending in NAMES_BESIDE and checkpoint.preprocessing != default_preprocessing(checkpoint.architecture):
        notes.append(f"{target.ending} holds no preprocessing; images are prepared by {checkpoint.preprocessing}")
    beside = names_beside(target.path)
    if checkpoint.class_names is None and target.ending != ".onnx" and beside.exists():
        notes.append(f"{beside} was there; its lines are taken for the class names of {target.path.name}")
    return notes


def _keeps_extra(target: Target) -> bool:
    return target.ending == ".pt" and not target.strip


def _names_file(checkpoint: Checkpoint, path: Path, force: bool) -> Path | None:
    """Where to write class names that the format cannot hold; None if there is nothing to write."""
    beside = names_beside(path)
    if checkpoint.class_names is None or path.suffix.lower() not in NAMES_BESIDE:
        return None
    for name in checkpoint.class_names:
        if name.splitlines() != [name] or not name.strip() or name.encode(errors="ignore").decode() != name:
            raise ExportError(f"the class name {name!r:.80} cannot be a line of {beside}; give others with --classes")
    if beside.exists() and not force and read_labels(beside) != checkpoint.class_names:
        raise ExportError(f"{beside}: this file exists and holds other class names; --force replaces it")
    return beside


def _write(checkpoint: Checkpoint, target: Target, extra: Mapping[str, Any]) -> None:
    """Raises: OSError if it cannot be written. The model is used up: folded and rounded in place."""
    model, dtype = checkpoint.model, DTYPES[target.dtype]
    if target.ending == ".pth":
        state = state_for(target.library, checkpoint.architecture, model.state_dict())
        torch_write(_rounded(state, dtype), target.path)
        return
    if target.ending == ".t7":
        arrays = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
        with target.path.open("wb", buffering=BUFFER_BYTES) as file:
            crop_px = checkpoint.preprocessing.crop_px
            write_t7(lua_modules(checkpoint.architecture, arrays, package=target.package, crop_px=crop_px), file)
        return
    if target.fold:
        fold_batch_norm(model)
    model.load_state_dict(_rounded(model.state_dict(), dtype), assign=True)
    if target.ending == ".onnx":
        write_onnx(model, target.path, description(checkpoint))
    else:
        write_model(checkpoint, target.path, extra if _keeps_extra(target) else None)


def _rounded(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Raises: ExportError if a weight becomes infinite."""
    found = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    for key, tensor in found.items():
        if tensor is not state[key] and tensor.isinf().any() and not state[key].isinf().any():
            largest = float(state[key].abs().max())
            raise ExportError(f"{key} holds {largest:g}, which {dtype} cannot; use --dtype bfloat16 or float32")
    return found


def _net_in(target: Target, architecture: Architecture) -> Net:
    """What was written, read back: by its own library where there is one."""
    if target.ending == ".onnx":
        written = WrittenNet(target.path)
        return lambda images: torch.from_numpy(written(images.numpy()))
    if target.ending == ".pth":
        state = float_state(checked_state(read_torch(target.path).content))
        return partial(run_plain, net_there(target.library, architecture, state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say was said of the source
        return net_of(load_checkpoint(target.path).model)
