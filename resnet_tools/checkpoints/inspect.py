"""Path -> what a file is: its kind, its tensors, the module tree and the net that is recognised in it.

Whatever fails on the way to a net becomes the report's `problem`; what could be read is still shown.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.checkpoints.lua_nets import net_of_tables
from resnet_tools.checkpoints.model_files import model_path
from resnet_tools.checkpoints.onnx_files import is_onnx, onnx_type, read_graph
from resnet_tools.checkpoints.runnable import load_runnable
from resnet_tools.checkpoints.stored import StoredTensor
from resnet_tools.checkpoints.tensor_files import format_of, tensors_in
from resnet_tools.checkpoints.torch_files import read_torch
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import ModuleError, RecognitionError, ResnetToolsError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import architecture_name, describe
from resnet_tools.text import printable
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Storage, T7Tensor
from resnet_tools.torch7.modules import Module, module_tree
from resnet_tools.torch7.outline import CONV
from resnet_tools.torch7.printing import module_text
from resnet_tools.torch7.recognise import recognise
from resnet_tools.torch7.sniff import HEAD_BYTES, is_ascii_t7
from resnet_tools.torch7.t7 import read_t7

MAX_LISTED = 40  # keys of a table that is not a net
MAX_CLASSES = 10
TRAINING = ("epoch", "val_top1_error", "best_epoch", "best_top1_error")
KINDS = {"pt": "PyTorch file", "safetensors": "safetensors file"}


@dataclass(frozen=True)
class TensorSummary:
    """All tensors of one type: how many, their elements, and the bytes of their storages, shared ones counted once."""

    type: str
    count: int
    elements: int
    stored_bytes: int


@dataclass(frozen=True)
class Report:
    """What `resnet inspect` shows. `problem` says why there is no architecture; `text` is the tree, or the keys.

    `zero_biases` are left out, although the original counts them as parameters. `training`: what a `model_E.pt` says of
    its own: the recipe, the epoch, and errors in percent, as far as they are there.
    """

    path: str
    kind: str
    file_bytes: int
    tensors: list[TensorSummary]
    text: str
    architecture: Architecture | None = None
    parameters: int | None = None
    zero_biases: int = 0
    problem: str | None = None
    class_names: list[str] | None = None
    preprocessing: Preprocessing | None = None
    training: dict[str, Any] | None = None
    modules: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        net = self.architecture
        values = asdict(self)
        values["classes"] = values.pop("class_names")
        return values | {
            "architecture": None if net is None else net.to_dict(),
            "name": None if net is None else architecture_name(net),
            "description": None if net is None else describe(net),
        }


def inspect_file(path: str | os.PathLike[str], weights: str | None = None) -> Report:
    """Everything that can be said about a file, even if no net is recognised in it.

    Raises: ResnetToolsError if the file cannot be read at all.
    """
    found = model_path(path)
    file_format = "onnx" if is_onnx(found) else format_of(found)
    if file_format == "onnx":
        return _inspect_onnx(found)
    return _inspect_t7(found, weights) if file_format == "t7" else _inspect_state(found, KINDS[file_format], weights)


def _inspect_state(path: Path, kind: str, weights: str | None) -> Report:
    tensors = tensors_in(path)
    text = "\n".join(f"{printable(key)}  {_size(t.shape)}  {t.kind}" for key, t in tensors.items())
    report = Report(os.fspath(path), kind, path.stat().st_size, _summaries_of_state(tensors), text)
    try:
        checkpoint = load_checkpoint(path, weights=weights)
    except ResnetToolsError as error:
        return replace(report, problem=str(error))
    net = checkpoint.architecture
    return replace(
        report,
        architecture=net,
        parameters=net.parameters,
        class_names=checkpoint.class_names,
        preprocessing=checkpoint.preprocessing,
        training=_training(path) if checkpoint.format == "pt" else None,
    )


def _training(path: Path) -> dict[str, Any] | None:
    """Plain values only: whatever else a file has in these places is left out."""
    content = read_torch(path).content
    found = {name: content[name] for name in TRAINING if type(content.get(name)) in (int, float)}
    recipe = content.get("recipe")
    if not isinstance(recipe, Mapping) or not isinstance(recipe.get("name"), str):
        return None
    plain = {name: value for name, value in recipe.items() if isinstance(name, str) and _is_plain(value)}
    return {"recipe": plain, **{name: value for name, value in found.items() if math.isfinite(value)}}


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))


def _inspect_onnx(path: Path) -> Report:
    """Its tensors, and how many of each operation."""
    graph = read_graph(path).graph
    tensors = [(tensor.name, tuple(tensor.dims), onnx_type(tensor)) for tensor in graph.initializer]
    lines = [f"{name}  {_size(shape)}  {kind}" for name, shape, kind in tensors]
    lines += [f"{count} x {name}" for name, count in Counter(node.op_type for node in graph.node).items()]
    summaries = []
    for name, count in Counter(kind.name for *_, kind in tensors).most_common():
        own = [math.prod(shape) * kind.itemsize for _, shape, kind in tensors if kind.name == name]
        size = next(kind.itemsize for *_, kind in tensors if kind.name == name)
        summaries.append(TensorSummary(name, count, sum(own) // size, sum(own)))
    report = Report(os.fspath(path), "ONNX graph", path.stat().st_size, summaries, "\n".join(lines))
    try:
        checkpoint = load_runnable(path)
    except ResnetToolsError as error:
        return replace(report, problem=str(error))
    net = checkpoint.architecture
    if net is None:
        return replace(report, problem=f"the graph names none; it has {checkpoint.num_classes} outputs")
    return replace(report, architecture=net, parameters=net.parameters, class_names=checkpoint.class_names)


def _summaries_of_state(tensors: Mapping[str, StoredTensor]) -> list[TensorSummary]:
    summaries = []
    for name, count in Counter(t.kind for t in tensors.values()).most_common():
        own = [t for t in tensors.values() if t.kind == name]
        storages = {id(t.storage): t.storage.nbytes for t in own}
        summaries.append(TensorSummary(name, count, sum(t.elements for t in own), sum(storages.values())))
    return summaries


def _inspect_t7(path: Path, weights: str | None) -> Report:
    value = read_t7(path)
    with path.open("rb") as file:
        mode = "ascii" if is_ascii_t7(file.read(HEAD_BYTES)) else "binary"
    kind = f"Lua Torch file ({mode})"
    report = Report(os.fspath(path), kind, path.stat().st_size, _summaries_of_t7(value), _value_text(value))
    try:
        tree = module_tree(net_of_tables(value, weights)[0])
        report = replace(report, modules=[_module_dict(module) for module in tree.walk()], text=module_text(tree))
        net = recognise(tree)
        class_names = load_checkpoint(path, weights=weights).class_names
    except (RecognitionError, ModuleError) as error:
        return replace(report, problem=str(error))
    biases = 0 if net.conv_bias else sum(m.tensors["bias"].size for m in tree.walk() if _has_bias(m))
    return replace(report, architecture=net, parameters=net.parameters, zero_biases=biases, class_names=class_names)


def _has_bias(module: Module) -> bool:
    return module.kind == CONV and "bias" in module.tensors


def _module_dict(module: Module) -> dict[str, Any]:
    tensors = {
        name: {"type": getattr(t, "torch_type", None) or str(t.dtype), "size": list(t.shape)}
        for name, t in module.tensors.items()
    }
    return {"path": module.path, "class": module.class_name, "fields": dict(module.fields), "tensors": tensors}


def _summaries_of_t7(value: object) -> list[TensorSummary]:
    tensors = [item for item in _every_value(value) if isinstance(item, T7Tensor)]
    summaries = []
    for name, count in Counter(str(t.torch_type) for t in tensors).most_common():
        own = [t for t in tensors if str(t.torch_type) == name]
        storages = {id(t.storage): t.storage.nbytes for t in own if t.storage is not None}
        summaries.append(TensorSummary(name, count, sum(t.size for t in own), sum(storages.values())))
    return summaries


def _every_value(root: object) -> Iterator[object]:
    """Each table, object, tensor and function once, however they refer to each other."""
    waiting, seen = [root], set[int]()
    while waiting:
        item = waiting.pop()
        if not isinstance(item, (LuaTable, LuaObject, LuaFunction, np.ndarray)) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, LuaObject):
            waiting.append(item.fields)
        elif isinstance(item, LuaFunction):
            waiting.append(item.upvalues)
        elif isinstance(item, LuaTable):
            waiting += [*item.keys(), *item.values()]


def _value_text(value: object) -> str:
    table = value.fields if isinstance(value, LuaObject) else value
    if not isinstance(table, LuaTable):
        return _short(value)
    lines = [f"{_short(key)}: {_short(item)}" for _, (key, item) in zip(range(MAX_LISTED), table.items(), strict=False)]
    return "\n".join([_short(value), *lines, *(["..."] if len(table) > MAX_LISTED else [])])


def _short(value: object) -> str:
    if isinstance(value, (T7Tensor, T7Storage)):
        return f"{value.torch_type} of size {_size(value.shape)}"
    if isinstance(value, LuaTable):
        return f"table of {len(value)}"
    if isinstance(value, LuaObject):
        return printable(value.class_name)
    if isinstance(value, LuaFunction):
        return "function (not run)"
    if isinstance(value, bytes):
        return repr(value.decode(errors="backslashreplace"))[:80]
    if value is None:
        return "nil"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def report_text(report: Report) -> str:
    """The report for people; names from the file are printable."""
    lines = [f"{printable(report.path)}: {report.kind}, {report.file_bytes:,} bytes"]
    if report.architecture is not None:
        lines.append(f"Architecture: {describe(report.architecture)}")
        dropped = f", and {report.zero_biases:,} convolution biases that are zero" if report.zero_biases else ""
        lines.append(f"Parameters: {report.parameters:,}{dropped}")
    elif report.problem is not None:
        lines.append(f"Architecture: not recognised: {printable(report.problem)}")
    lines += _training_lines(report)
    if report.class_names is not None:
        names = [printable(name) for name in report.class_names[:MAX_CLASSES]]
        lines.append(f"Classes: {', '.join(names)}{', ...' if len(report.class_names) > MAX_CLASSES else ''}")
    for summary in report.tensors:
        stored = f"{summary.stored_bytes:,} bytes stored"
        lines.append(f"Tensors: {summary.count:,} {summary.type}, {summary.elements:,} elements, {stored}")
    return "\n".join([*lines, "", report.text])


def _training_lines(report: Report) -> list[str]:
    lines, training, loading = [], report.training, report.preprocessing
    if training is not None:
        parts = [f"recipe {printable(training['recipe']['name'])}"]
        parts += [f"after epoch {training['epoch']}"] if "epoch" in training else []
        parts += [f"validation error {training['val_top1_error']:.2f} %"] if "val_top1_error" in training else []
        if "best_epoch" in training and "best_top1_error" in training:
            parts.append(f"the best so far {training['best_top1_error']:.2f} % (epoch {training['best_epoch']})")
        lines.append(f"Training: {', '.join(parts)}")
    if loading is not None:
        turned = "turned as their EXIF data says" if loading.exif_orientation else "as stored"
        lines.append(
            f"Preprocessing: images {turned}, shorter side scaled to {loading.resize_px} pixels, crop of "
            f"{loading.crop_px} x {loading.crop_px}, mean {_numbers(loading.mean)}, std {_numbers(loading.std)}"
        )
    return lines


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
