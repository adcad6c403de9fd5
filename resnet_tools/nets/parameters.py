"""Architecture -> the name and shape of each tensor in the state dict of its net, without building the net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resnet_tools.errors import CheckpointError
from resnet_tools.nets.architecture import Architecture, BlockShape, ConvShape, block_shapes, stem_shape
from resnet_tools.text import counted

Shape = tuple[int, ...]
COUNTER = "num_batches_tracked"  # only training needs it


class Shaped(Protocol):
    """A tensor, or anything that has its shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def tensor_shapes(architecture: Architecture) -> dict[str, Shape]:
    """In the order of the state dict of `nets.resnet.ResNet`."""
    return dict(_tensors(architecture))


def check_weights(architecture: Architecture, state: Mapping[str, Shaped]) -> dict[str, NDArray[Any]]:
    """Raises: CheckpointError naming the first key that is missing, unknown, or differs in shape, with both shapes.

    Gives the tensors that may be missing, as their values are certain: batch counters, and a bias that is zero.
    """
    # Before anything is listed: a file may describe a net of a million blocks.
    if sum(architecture.stages) > len(state):
        blocks = sum(architecture.stages)
        raise CheckpointError(
            f"it has {counted(len(state), 'tensor')}; expected at least one for each of the {blocks} blocks"
        )
    expected = tensor_shapes(architecture)
    implied: dict[str, NDArray[Any]] = {}
    for key, shape in expected.items():
        if key in state:
            if tuple(state[key].shape) != shape:
                raise CheckpointError(f"{key} has the shape {tuple(state[key].shape)}; expected {shape}")
        elif key.endswith(COUNTER):
            implied[key] = np.array(0, np.int64)
        elif key == "fc.bias" and "fc.weight" in state:
            implied[key] = np.zeros(shape, np.float32)
        else:
            raise CheckpointError(f"the key {key} is missing; expected a tensor of shape {shape}")
    unknown = [key for key in state if key not in expected]
    if unknown:
        raise CheckpointError(f"the key {unknown[0]} is unknown; this net has no such parameter")
    return implied


def _tensors(net: Architecture) -> Iterator[tuple[str, Shape]]:
    yield from _convolution(net, "conv1", stem_shape(net))
    if net.stem_batch_norm:
        yield from _batch_norm("bn1", net.stem_width)
    for shape in block_shapes(net):
        yield from _block(net, f"layer{shape.stage}.{shape.index - 1}", shape)
    if net.pre_activation:
        yield from _batch_norm("norm", net.feature_length)
    if net.num_classes:
        yield "fc.weight", (net.num_classes, net.feature_length)
        yield "fc.bias", (net.num_classes,)


def _block(net: Architecture, name: str, shape: BlockShape) -> Iterator[tuple[str, Shape]]:
    last = len(shape.convolutions)
    for number, conv in enumerate(shape.convolutions, 1):
        yield from _convolution(net, f"{name}.conv{number}", conv)
        if net.pre_activation:  # before its convolution
            if number > 1 or shape.lead != "none":
                yield from _batch_norm(f"{name}.bn{number}", conv.inputs)
        elif number < last or net.order == "post-activation":
            yield from _batch_norm(f"{name}.bn{number}", conv.outputs)
        else:
            yield from _batch_norm(f"{name}.bn_add", conv.outputs)
    if shape.shortcut == "conv":
        yield from _convolution(net, f"{name}.downsample.0", ConvShape(shape.inputs, shape.outputs, 1))
        if shape.shortcut_batch_norm:
            yield from _batch_norm(f"{name}.downsample.1", shape.outputs)


def _convolution(net: Architecture, name: str, conv: ConvShape) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (conv.outputs, conv.inputs // conv.groups, conv.kernel, conv.kernel)
    if net.conv_bias:
        yield f"{name}.bias", (conv.outputs,)


def _batch_norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (width,)
    yield f"{name}.{COUNTER}", ()
