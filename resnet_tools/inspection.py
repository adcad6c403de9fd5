"""Path -> what a file is: its kind, its tensors, the module tree and the net that is recognised in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tools.checkpoint import Checkpoint, load_model, model_path
from resnet_tools.errors import ModuleError, RecognitionError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import architecture_name, describe
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Storage, T7Tensor
from resnet_tools.torch7.modules import Module, module_tree
from resnet_tools.torch7.printing import module_text
from resnet_tools.torch7.recognise import recognise
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind, is_ascii_t7
from resnet_tools.torch7.t7 import read_t7

MAX_LISTED = 40  # keys of a table that is not a net
KINDS = {"pt": "checkpoint of resnet_tools", "safetensors": "safetensors file", "pth": "PyTorch state dict"}


@dataclass(frozen=True)
class TensorSummary:
    """All tensors of one type: how many, their elements, and the bytes of their storages, shared ones counted once."""

    type: str
    count: int
    elements: int
    stored_bytes: int


@dataclass(frozen=True)
class Report:
    """What `resnet inspect` shows. `problem` says why no architecture was recognised; `text` is the tree as printed."""

    path: str
    kind: str
    file_bytes: int
    tensors: list[TensorSummary]
    text: str
    architecture: Architecture | None = None
    parameters: int | None = None
    problem: str | None = None
    classes: list[str] | None = None
    modules: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        net = self.architecture
        return asdict(self) | {
            "architecture": None if net is None else net.to_dict(),
            "name": None if net is None else architecture_name(net),
            "description": None if net is None else describe(net),
        }


def inspect_file(path: str | os.PathLike[str]) -> Report:
    """Everything that can be told of a file, even if no net is recognised in it.

    Raises: ResnetToolsError if the file cannot be read at all.
    """
    found = model_path(path)
    try:
        with found.open("rb") as file:
            head = file.read(HEAD_BYTES)
        kind = content_kind(head, found.stat().st_size)
    except OSError:
        kind, head = None, b""
    if kind in ("zip", "pickle", "safetensors"):
        return _inspect_checkpoint(found, load_model(found))
    return _inspect_t7(found, read_t7(found), "ascii" if is_ascii_t7(head) else "binary")


def _inspect_checkpoint(path: Path, checkpoint: Checkpoint) -> Report:
    state = checkpoint.model.state_dict()
    types = Counter(str(tensor.dtype) for tensor in state.values())
    tensors = [
        TensorSummary(
            name,
            count,
            sum(t.numel() for t in state.values() if str(t.dtype) == name),
            sum(t.nbytes for t in state.values() if str(t.dtype) == name),
        )
        for name, count in types.most_common()
    ]
    text = "\n".join(f"{key}  {'x'.join(map(str, t.shape)) or 'scalar'}" for key, t in state.items())
    return Report(
        os.fspath(path),
        KINDS[checkpoint.format],
        path.stat().st_size,
        tensors,
        text,
        checkpoint.architecture,
        sum(p.numel() for p in checkpoint.model.parameters()),
        classes=checkpoint.classes,
    )


def _inspect_t7(path: Path, value: object, mode: str) -> Report:
    kind, size, tensors = f"Lua Torch file ({mode})", path.stat().st_size, _tensor_summaries(value)
    try:
        tree = module_tree(value)
    except ModuleError as error:
        return Report(os.fspath(path), kind, size, tensors, _value_text(value), problem=str(error))
    modules = [_module_dict(module) for module in tree.walk()]
    try:
        net = recognise(tree)
    except (RecognitionError, ModuleError) as error:
        return Report(os.fspath(path), kind, size, tensors, module_text(tree), problem=str(error), modules=modules)
    checkpoint = load_model(path)
    count = sum(p.numel() for p in checkpoint.model.parameters())
    text = module_text(tree)
    return Report(os.fspath(path), kind, size, tensors, text, net, count, classes=checkpoint.classes, modules=modules)


def _module_dict(module: Module) -> dict[str, Any]:
    tensors = {
        name: {"type": getattr(t, "torch_type", None) or str(t.dtype), "size": list(t.shape)}
        for name, t in module.tensors.items()
    }
    return {"path": module.path, "class": module.class_name, "fields": dict(module.fields), "tensors": tensors}


def _tensor_summaries(value: object) -> list[TensorSummary]:
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
    if not isinstance(value, LuaTable):
        return _short(value)
    lines = [f"{_short(key)}: {_short(item)}" for _, (key, item) in zip(range(MAX_LISTED), value.items(), strict=False)]
    return "\n".join([*lines, *(["..."] if len(value) > MAX_LISTED else [])])


def _short(value: object) -> str:
    if isinstance(value, (T7Tensor, T7Storage)):
        return f"{value.torch_type} of size {'x'.join(map(str, value.shape))}"
    if isinstance(value, LuaTable):
        return f"table of {len(value)}"
    if isinstance(value, LuaObject):
        return value.class_name
    if isinstance(value, LuaFunction):
        return "function (not run)"
    if isinstance(value, bytes):
        return repr(value.decode(errors="backslashreplace"))[:80]
    if value is None:
        return "nil"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def report_text(report: Report) -> str:
    """The report for people."""
    lines = [f"{report.path}: {report.kind}, {report.file_bytes:,} bytes"]
    if report.architecture is not None:
        lines.append(f"Architecture: {describe(report.architecture)}")
        lines.append(f"Parameters: {report.parameters:,}")
    elif report.problem is not None:
        lines.append(f"Architecture: not recognised: {report.problem}")
    if report.classes is not None:
        lines.append(f"Classes: {', '.join(report.classes[:10])}{', ...' if len(report.classes) > 10 else ''}")
    for summary in report.tensors:
        stored = f"{summary.stored_bytes:,} bytes stored"
        lines.append(f"Tensors: {summary.count:,} {summary.type}, {summary.elements:,} elements, {stored}")
    return "\n".join([*lines, "", report.text])
