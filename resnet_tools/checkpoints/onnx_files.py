"""The net in an .onnx file, of ours or another exporter, run by onnxruntime on the CPU.

Such a file is a graph of operations: one input of images (N, C, H, W), N images, C channels, and one output of logits
(N, K). N, H and W may be fixed in it. The features (N, D) are what goes into its last Gemm or MatMul, and if the graph
ends with a softmax, the logits are what goes into that; both become outputs of the graph that is run.

Source: the operators of ONNX, onnx.ai/onnx/operators.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnet_tools.checkpoints.onnx_export import METADATA, onnx_packages
from resnet_tools.checkpoints.onnx_session import is_onnx as is_onnx
from resnet_tools.checkpoints.onnx_session import open_session, session_options
from resnet_tools.data.transforms import IMAGENET, Preprocessing
from resnet_tools.errors import CheckpointError, ResnetToolsError
from resnet_tools.nets.architecture import COLOR_CHANNELS, GRAY_CHANNELS, Architecture

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
PASSED_THROUGH = {"Identity", "Cast", "Dropout"}
EXPECTED = "expected one input of float32 images (N, 3, H, W) and one output"
FEATURES, LOGITS = "flatten", "fc"  # what the same two are called in a net of ours


class OnnxNet(nn.Module):
    """(N, C, H, W) float32 -> (N, K) logits; `forward_features` gives (N, D).

    `description`: what our own files say of the net, or None; `architecture` and `preprocessing` are from there.
    `size`: (H, W) where the graph fixes them, else None.
    Raises: CheckpointError if the file is no such net.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        graph = read_graph(path)
        logits, self.features = _outputs(graph)
        self.session = _session(path, graph, [name for name in (logits, self.features) if name])
        self.input = self._checked_input()
        self.logits = logits or self._checked_output()
        try:
            metadata = self.session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: its metadata are not UTF-8 text ({error}); is the file damaged?") from error
        self.description = _description(path, metadata.get(METADATA))
        self.architecture, self.preprocessing = _described(path, self.description)

    @property
    def in_channels(self) -> int:
        channels = self.input.shape[1]
        known = self.architecture.in_channels if self.architecture else COLOR_CHANNELS
        return channels if isinstance(channels, int) else known

    @property
    def size(self) -> tuple[int, int] | None:
        height, width = self.input.shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images, self.logits, "a row of logits for each image")

    def forward_features(self, images: Tensor) -> Tensor:
        if self.features is None:
            raise CheckpointError(
                f"{self.path}: has no Gemm or MatMul, whose input would be the features; give the checkpoint that it "
                "was made from, or export it with the features as its output and take them with --layer fc"
            )
        return self._run(images, self.features, "a row of features for each image")

    def layer_shapes(self, crop_px: int) -> dict[str, tuple[int, ...]]:
        """What can be asked for, as `features.layers.layer_shapes` has it."""
        zeros = torch.zeros(1, self.in_channels, crop_px, crop_px)
        features = {} if self.features is None else {FEATURES: tuple(self.forward_features(zeros).shape[1:])}
        return features | {LOGITS: tuple(self(zeros).shape[1:])}

    def prepared(self, device: torch.device, precision: str) -> OnnxNet:
        """The net as it is: it computes on the CPU and in its own type. Raises: CheckpointError, and warns of it."""
        if precision != "single":
            raise CheckpointError(f"{self.path}: an .onnx computes in its own type; leave out --precision {precision}")
        if device.type != "cpu":
            warnings.warn(f"{self.path}: is run by onnxruntime on the CPU, not on {device}", stacklevel=2)
        return self

    def _run(self, images: Tensor, output: str, expected: str) -> Tensor:
        """(N, K) float32. A graph for a fixed number of images gets that many, filled up with zeros."""
        self._check_size(images)
        fixed = self.input.shape[0]
        rows = []
        step = fixed if isinstance(fixed, int) else max(1, len(images))
        for start in range(0, max(1, len(images)), step):
            batch = filled = images[start : start + step]
            if isinstance(fixed, int) and len(batch) < fixed:
                filled = torch.cat([batch, batch.new_zeros(fixed - len(batch), *batch.shape[1:])])
            rows.append(self._run_once(filled, output, expected)[: len(batch)])
        return torch.cat(rows)

    def _check_size(self, images: Tensor) -> None:
        names = ("channels", "rows", "columns")
        for name, found, fixed in zip(names, images.shape[1:], self.input.shape[1:], strict=True):
            if isinstance(fixed, int) and found != fixed:
                raise CheckpointError(
                    f"{self.path}: its graph is for images of {fixed} {name}; these have {found} (--crop-size), "
                    "and only an export with free sizes takes others"
                )

    def _run_once(self, images: Tensor, output: str, expected: str) -> Tensor:
        inputs = {self.input.name: images.cpu().numpy().astype(DTYPES[self.input.type], copy=False)}
        try:
            [rows] = self.session.run([output], inputs)
        except Exception as error:  # the types of onnxruntime's errors are private to it
            shape = tuple(images.shape)
            raise CheckpointError(f"{self.path}: onnxruntime cannot run it on images {shape}: {error}") from error
        if isinstance(rows, np.ndarray) and rows.ndim == 4 and rows.shape[2:] == (1, 1):
            rows = rows[:, :, 0, 0]
        is_row_each = isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind == "f"
        if not is_row_each or len(rows) != len(images):
            found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise CheckpointError(f"{self.path}: its output is {found}; expected {expected}")
        return torch.from_numpy(rows).float()

    def _checked_input(self) -> Any:
        inputs = self.session.get_inputs()
        channels = inputs[0].shape[1] if len(inputs) == 1 and len(inputs[0].shape) == 4 else 0
        possible = not isinstance(channels, int) or channels in (COLOR_CHANNELS, GRAY_CHANNELS)
        if not possible or inputs[0].type not in DTYPES:
            found = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs) or "none"
            raise CheckpointError(f"{self.path}: {EXPECTED}; its inputs are {found:.300}")
        return inputs[0]

    def _checked_output(self) -> str:
        outputs = self.session.get_outputs()
        if len(outputs) != 1:
            found = ", ".join(o.name for o in outputs)
            raise CheckpointError(f"{self.path}: {EXPECTED}; its outputs are {found:.300}")
        name: str = outputs[0].name
        return name


@dataclass(frozen=True)
class OnnxCheckpoint:
    """What `Checkpoint` is, for an .onnx: it can be run, not trained. `architecture` is None for other exporters'."""

    model: OnnxNet
    architecture: Architecture | None
    num_classes: int
    class_names: list[str] | None
    preprocessing: Preprocessing
    format: str = "onnx"
    no_classifier: str | None = None


def load_onnx(path: Path) -> OnnxCheckpoint:
    """The net of an .onnx file with its class names and preprocessing: those of our metadata, else ImageNet's.

    Raises: CheckpointError, or ExportError if onnx and onnxruntime are not installed.
    """
    net = OnnxNet(path)
    preprocessing = _at_size(net, net.preprocessing or IMAGENET.for_channels(net.in_channels))
    side = preprocessing.crop_px
    num_classes = net(torch.zeros(1, net.in_channels, side, side)).shape[1]
    names = (net.description or {}).get("classes")
    if names is not None and not (isinstance(names, list) and len(names) == num_classes and all_text(names)):
        raise CheckpointError(f"{path}: its class names are not {num_classes} strings, one for each output of the net")
    return OnnxCheckpoint(net, net.architecture, num_classes, names, preprocessing)


def all_text(names: list[Any]) -> bool:
    return all(isinstance(name, str) for name in names)


def _at_size(net: OnnxNet, usual: Preprocessing) -> Preprocessing:
    """Crops of the size that the graph fixes, with as much of the image around them."""
    if net.size is None or net.size == (usual.crop_px, usual.crop_px):
        return usual
    height, width = net.size
    try:
        if height != width:
            raise ValueError("crops are square here")
        resize_px = round(height * usual.resize_px / usual.crop_px)
        return Preprocessing(resize_px, height, usual.mean, usual.std, usual.pixel_max)
    except ValueError as error:
        raise CheckpointError(f"{net.path}: its graph is for images of {height} x {width}: {error}") from error


def onnx_type(tensor: Any) -> np.dtype[Any]:
    """Of a tensor of the graph."""
    found: np.dtype[Any] = onnx_packages()[0].helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return found


def read_graph(path: Path) -> Any:
    """The whole file. Raises: CheckpointError."""
    onnx, _ = onnx_packages()
    try:
        return onnx.load(path)  # with the tensors that it keeps in files beside it
    except Exception as error:  # whatever protobuf, the disk and onnx make of it
        raise CheckpointError(f"{path}: not a net that onnxruntime can load: {error}") from error


def _session(path: Path, graph: Any, outputs: list[str]) -> Any:
    """The graph with these tensors among its outputs, ready to run."""
    onnx, _ = onnx_packages()
    there = {output.name for output in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in there)
    try:
        return open_session(graph.SerializeToString(), session_options())
    except Exception as error:  # the types of onnxruntime's errors are private to it
        raise CheckpointError(f"{path}: not a net that onnxruntime can load: {error}") from error


def _outputs(graph: Any) -> tuple[str | None, str | None]:
    """The names of the logits, if the graph has one output or one of that name, and of the features, if there are."""
    outputs = [output.name for output in graph.graph.output]
    last = outputs[0] if len(outputs) == 1 else next((name for name in outputs if name == "logits"), None)
    if last is None:
        return None, None
    made_by = {name: node for node in graph.graph.node for name in node.output}
    for node in _back_from(last, made_by):
        if node.op_type in ("Softmax", "LogSoftmax"):
            last = node.input[0]
    weights = {tensor.name for tensor in graph.graph.initializer}
    for node in _back_from(last, made_by, through={*PASSED_THROUGH, "Add"}, weights=weights):
        if node.op_type in ("Gemm", "MatMul") and node.input[0] not in weights:
            return last, node.input[0]
    return last, None


def _back_from(
    name: str, made_by: Mapping[str, Any], through: set[str] = PASSED_THROUGH, weights: set[str] | None = None
) -> Iterator[Any]:
    """The nodes that make a tensor, the last first, as long as they are among `through`, and the first that is not."""
    for _ in range(len(made_by)):
        node = made_by.get(name)
        if node is None:
            return
        yield node
        inputs = [given for given in node.input if given not in (weights or ())]
        if node.op_type not in through or not inputs:
            return
        name = inputs[0] if node.op_type != "Add" else next((i for i in inputs if i in made_by), "")


def _description(path: Path, described: str | None) -> dict[str, Any] | None:
    if not described:
        return None
    try:
        found = json.loads(described)
    except (ValueError, RecursionError) as error:
        raise _no_description(path, error) from error
    if not isinstance(found, dict):
        raise _no_description(path, f"a {type(found).__name__}")
    return found


def _described(path: Path, description: dict[str, Any] | None) -> tuple[Architecture | None, Preprocessing | None]:
    if description is None:
        return None, None
    try:
        net = Architecture.from_dict(description["architecture"]) if "architecture" in description else None
        return net, Preprocessing.from_dict(description["preprocessing"])
    except (ResnetToolsError, ValueError, KeyError, TypeError) as error:
        raise _no_description(path, error) from error


def _no_description(path: Path, reason: object) -> CheckpointError:
    return CheckpointError(f"{path}: its metadata {METADATA!r} is not a description: {reason}")
