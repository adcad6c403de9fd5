"""Architecture and weights -> the graph of ONNX operations that computes the net.

In: weights as arrays under the names of `nets.resnet`, with batch norms or without those that were folded (`folded`).
Out: a `Graph`: nodes in the order of execution, the weights they use, and which tensor each module's output is.
The graph takes `images` (N, C, H, W) float32 and makes `flatten` (N, D), the features, and `logits` (N, K) float32.

It mirrors `nets.resnet` and `nets.blocks`, which are the judge of it: a module and its tensor have one name.
Source: the operators of ONNX, onnx.ai/onnx/operators, opset 17.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.large_arrays import in_one_block
from resnet_tools.nets.architecture import (
    POOL_WINDOW_PX,
    Architecture,
    BlockShape,
    ConvShape,
    block_shapes,
    stem_shape,
)

Array = NDArray[Any]
Attributes = Mapping[str, "int | float | tuple[int, ...]"]
IMAGES, FEATURES, CLASSIFIER, LOGITS = "images", "flatten", "fc", "logits"
BN_FIELDS = ("weight", "bias", "running_mean", "running_var")
TO_THE_END = (1 << 63) - 1
ONNX_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.float16): 10}  # TensorProto.DataType


@dataclass(frozen=True)
class Node:
    """One operation; it makes one tensor, whose name is the node's too."""

    operation: str
    inputs: tuple[str, ...]
    output: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """`layers`: each module in the order of execution -> the tensor that is its output."""

    nodes: list[Node]
    weights: dict[str, Array]
    layers: dict[str, str]
    in_channels: int
    num_classes: int

    @property
    def output(self) -> str:
        """The name of the last tensor: the features of a net without a classifier."""
        return self.nodes[-1].output

    def up_to(self, layer: str) -> Graph:
        """The part that makes the output of this layer."""
        needed, nodes = {self.layers[layer]}, []
        for node in reversed(self.nodes):
            if node.output in needed:
                nodes.append(node)
                needed.update(node.inputs)
        weights = {name: weight for name, weight in self.weights.items() if name in needed}
        return replace(self, nodes=nodes[::-1], weights=weights)


def resnet_graph(architecture: Architecture, weights: Mapping[str, Array]) -> Graph:
    """The net with these weights, float32 or float16; in either type it takes and gives float32."""
    net = _Builder(architecture, weights)
    x = net.typed(IMAGES, "images_typed")
    x = net.convolution("conv1", x, stem_shape(architecture))  # (N, C0, H/2, W/2); CIFAR: (N, C0, H, W)
    x = net.batch_norm("bn1", x)
    x = net.relu("relu", x) if architecture.stem_batch_norm else net.named("relu", x)
    if architecture.stem == "imagenet":
        window = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
        x = net.node("MaxPool", (x,), "maxpool", window)  # (N, C0, H/4, W/4)
    x = net.named("maxpool", x)
    shapes = list(block_shapes(architecture))
    for stage in (1, 2, 3, 4):  # a stage that the net does not have changes nothing
        for shape in shapes:
            x = net.block(x, shape) if shape.stage == stage else x
        x = net.named(f"layer{stage}", x)
    x = net.batch_norm("norm", x)
    x = net.relu("norm_relu", x) if architecture.pre_activation else net.named("norm_relu", x)
    x = net.pooled(x)
    x = net.named(FEATURES, net.node("Flatten", (x,), FEATURES, {"axis": 1}))  # (N, D)
    x = net.linear(CLASSIFIER, x) if architecture.num_classes else net.named(CLASSIFIER, x)  # (N, K)
    return Graph(net.nodes, net.weights, net.layers, architecture.in_channels, architecture.num_classes)


class _Builder:
    """A graph under construction: each method adds the nodes of one module and gives the name of their output."""

    def __init__(self, architecture: Architecture, given: Mapping[str, Array]) -> None:
        self.architecture, self.given = architecture, given
        self.dtype = given["conv1.weight"].dtype
        self.nodes: list[Node] = []
        self.weights: dict[str, Array] = {}
        self.layers: dict[str, str] = {}
        self.calls: Counter[str] = Counter()

    def named(self, name: str, x: str) -> str:
        """Note that the output of this module is `x`, the first time that it has one."""
        self.layers.setdefault(name, x)
        return x

    def node(self, operation: str, inputs: tuple[str, ...], output: str, attributes: Attributes | None = None) -> str:
        self.nodes.append(Node(operation, inputs, output, attributes or {}))
        return output

    def weight(self, name: str, value: Array | None = None) -> str:
        self.weights[name] = np.ascontiguousarray(self.given[name]) if value is None else value
        return name

    def convolution(self, name: str, x: str, shape: ConvShape) -> str:
        inputs = [x, self.weight(f"{name}.weight")]
        if f"{name}.bias" in self.given:
            inputs.append(self.weight(f"{name}.bias"))
        window: Attributes = {
            "kernel_shape": (shape.kernel,) * 2,
            "strides": (shape.stride,) * 2,
            "pads": ((shape.kernel - 1) // 2,) * 4,
            "group": shape.groups,
        }
        return self.named(name, self.node("Conv", tuple(inputs), name, window))

    def batch_norm(self, name: str, x: str) -> str:
        """Nothing where the net has none, or no more."""
        if f"{name}.running_mean" in self.given:
            weights = tuple(self.weight(f"{name}.{part}") for part in BN_FIELDS)
            x = self.node("BatchNormalization", (x, *weights), name, {"epsilon": float(self.architecture.bn_eps)})
        return self.named(name, x)

    def relu(self, name: str, x: str) -> str:
        """The outputs of a module that is called again are `layer1.0.relu_2` and so on."""
        self.calls[name] += 1
        times = self.calls[name]
        return self.named(name, self.node("Relu", (x,), name if times == 1 else f"{name}_{times}"))

    def pooled(self, x: str) -> str:
        """(N, D, h, w) -> (N, D, 1, 1)"""
        x = self.node("GlobalAveragePool", (x,), "avgpool" if self.architecture.pooling == "average" else "mean")
        if self.architecture.pooling == "sum":  # the mean times a constant, see SumPool
            window = np.array(POOL_WINDOW_PX[self.architecture.stem] ** 2, self.dtype)
            x = self.node("Mul", (x, self.weight("avgpool.window", window)), "avgpool")
        return self.named("avgpool", x)

    def linear(self, name: str, x: str) -> str:
        inputs = (x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))
        is_single = self.dtype == np.float32
        x = self.node("Gemm", inputs, LOGITS if is_single else name, {"transB": 1})
        return self.named(name, x if is_single else self.node("Cast", (x,), LOGITS, {"to": ONNX_TYPES[np.dtype("f4")]}))

    def typed(self, x: str, output: str) -> str:
        """float32 -> the type of the weights."""
        if self.dtype == np.float32:
            return x
        return self.node("Cast", (x,), output, {"to": ONNX_TYPES[self.dtype]})

    def block(self, x: str, shape: BlockShape) -> str:
        name = f"layer{shape.stage}.{shape.index - 1}"
        if self.architecture.pre_activation:
            return self.named(name, self.pre_activation(name, x, shape))
        y, last = x, len(shape.convolutions)
        norm_last = self.architecture.order == "post-activation"
        for number, conv in enumerate(shape.convolutions, 1):
            y = self.convolution(f"{name}.conv{number}", y, conv)
            y = self.batch_norm(f"{name}.bn{number}", y) if number < last or norm_last else y
            y = self.relu(f"{name}.relu", y) if number < last else y
        y = self.node("Add", (y, self.shortcut(name, x, shape)), f"{name}.sum")
        y = y if norm_last else self.batch_norm(f"{name}.bn_add", y)
        return self.named(name, self.node("Relu", (y,), name))

    def pre_activation(self, name: str, x: str, shape: BlockShape) -> str:
        y = self.batch_norm(f"{name}.bn1", x)
        # A block without leading batch norm follows an activated stem, whose outputs a ReLU leaves as they are.
        y = self.named(f"{name}.relu", y) if shape.lead == "none" else self.relu(f"{name}.relu", y)
        x = x if shape.lead == "branch" else y
        for number, conv in enumerate(shape.convolutions, 1):
            if number > 1:
                y = self.relu(f"{name}.relu", self.batch_norm(f"{name}.bn{number}", y))
            y = self.convolution(f"{name}.conv{number}", y, conv)
        return self.node("Add", (y, self.shortcut(name, x, shape)), name)

    def shortcut(self, block: str, x: str, shape: BlockShape) -> str:
        name = f"{block}.downsample"
        if shape.shortcut == "zero-padded":
            x = self.zero_padded(name, x, shape)
        elif shape.shortcut == "conv":
            x = self.convolution(f"{name}.0", x, ConvShape(shape.inputs, shape.outputs, 1, shape.stride))
            x = self.batch_norm(f"{name}.1", x) if shape.shortcut_batch_norm else x
        return self.named(name, x)

    def zero_padded(self, name: str, x: str, shape: BlockShape) -> str:
        """Every `stride`-th pixel, and new channels that are zero."""
        if shape.stride > 1:
            ranges = {"starts": (0, 0), "ends": (TO_THE_END,) * 2, "axes": (2, 3), "steps": (shape.stride,) * 2}
            inputs = (x, *(self.weight(f"{name}.{part}", np.array(v, np.int64)) for part, v in ranges.items()))
            x = self.node("Slice", inputs, f"{name}.strided")
        new = shape.outputs - shape.inputs
        if new == 0:
            return x
        pads = np.array([0, 0, 0, 0, 0, new, 0, 0], np.int64)  # before and behind each of the four dimensions
        return self.node("Pad", (x, self.weight(f"{name}.pads", pads)), f"{name}.padded")


def folded(architecture: Architecture, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of the same net with each batch norm folded into the convolution that directly precedes it.

    As `nets.resnet.fold_batch_norm`: outputs stay equal to about 1e-6 of the largest.
    """
    found = dict(weights)
    pairs = [(conv, bn) for conv, bn in _foldable(architecture) if f"{bn}.running_mean" in found]
    kernels = in_one_block([found[f"{conv}.weight"].shape for conv, _ in pairs], found["conv1.weight"].dtype)
    for (conv, bn), scaled in zip(pairs, kernels, strict=True):
        weight, bias, mean, variance = (found.pop(f"{bn}.{part}") for part in BN_FIELDS)
        found.pop(f"{bn}.num_batches_tracked", None)
        factor = weight / np.sqrt(variance.astype(np.float64) + architecture.bn_eps)
        shift = bias + (found.get(f"{conv}.bias", 0) - mean.astype(np.float64)) * factor
        kernel = found[f"{conv}.weight"]
        found[f"{conv}.weight"] = np.multiply(kernel, factor.astype(kernel.dtype)[:, None, None, None], out=scaled)
        found[f"{conv}.bias"] = shift.astype(kernel.dtype)
    return found


def _foldable(architecture: Architecture) -> Iterator[tuple[str, str]]:
    """The names of each convolution and the batch norm that directly follows it, as `ResNet.foldable`."""
    yield "conv1", "bn1"
    for shape in block_shapes(architecture):
        block, count = f"layer{shape.stage}.{shape.index - 1}", len(shape.convolutions)
        later = 1 if architecture.pre_activation else 0
        for number in range(1, count + (architecture.order == "post-activation")):
            yield f"{block}.conv{number}", f"{block}.bn{number + later}"
        yield f"{block}.downsample.0", f"{block}.downsample.1"
