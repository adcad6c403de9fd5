"""State dict -> Architecture, and state dict -> a loaded `ResNet`, strictly by name.

A state dict without a description of its net is read as torchvision's resnet.py would have written it: post-activation,
convolutions without bias, shortcuts of convolution and batch norm. Without `fc.weight` the net has no classifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from resnet_tools.errors import CheckpointError
from resnet_tools.nets.architecture import Architecture, ShortcutType
from resnet_tools.nets.parameters import Shaped, check_weights
from resnet_tools.text import counted

if TYPE_CHECKING:
    from torch import Tensor

    from resnet_tools.nets.resnet import ResNet

_CONV = re.compile(r"layer(\d+)\.(\d+)\.conv(\d)\.weight")


def architecture_of(state: Mapping[str, Shaped]) -> Architecture:
    """The net of torchvision's kind that has these parameters.

    Raises: CheckpointError if a key that every such net has is missing or of an impossible shape.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    stem = _shape(shapes, "conv1.weight", 4)
    blocks = {tuple(map(int, match.groups())) for key in shapes if (match := _CONV.fullmatch(key))}
    stages = sorted({stage for stage, _, _ in blocks})
    if stages != list(range(1, len(stages) + 1)) or not stages:
        there = ", ".join(f"layer{stage}" for stage in stages) or "no stage"
        missing = next(stage for stage in range(1, len(stages) + 2) if stage not in stages)
        raise CheckpointError(f"the stage layer{missing} of a residual net is missing; the file has {there}")
    last = max(number for _, _, number in blocks)
    second = _shape(shapes, "layer1.0.conv2.weight", 4)
    inner = tuple(_shape(shapes, f"layer{stage}.0.conv1.weight", 4)[0] for stage in stages)
    return Architecture(
        block="basic" if last == 2 else "bottleneck",
        stages=tuple(1 + max(index for stage, index, _ in blocks if stage == wanted) for wanted in stages),
        widths=tuple(_shape(shapes, f"layer{stage}.0.conv{last}.weight", 4)[0] for stage in stages),
        inner_widths=inner,
        stem_width=stem[0],
        stem="imagenet" if stem[2] == 7 else "cifar",
        shortcut_type=_shortcut_type(shapes, blocks),
        groups=max(1, inner[0] // max(1, second[1])),
        in_channels=stem[1],
        num_classes=_shape(shapes, "fc.weight", 2)[0] if "fc.weight" in shapes else 0,
    )


def _shortcut_type(shapes: Mapping[str, tuple[int, ...]], blocks: set[tuple[int, ...]]) -> ShortcutType:
    projected = {(stage, index) for stage, index, _ in blocks if f"layer{stage}.{index}.downsample.0.weight" in shapes}
    if not projected:
        return "A"
    return "C" if len(projected) > len({stage for stage, _, _ in blocks}) else "B"


def _shape(shapes: Mapping[str, tuple[int, ...]], key: str, dimensions: int) -> tuple[int, ...]:
    if key not in shapes:
        raise CheckpointError(f"the key {key} is missing; expected the parameters of a torchvision resnet")
    if len(shapes[key]) != dimensions or 0 in shapes[key]:
        raise CheckpointError(f"{key} has the shape {shapes[key]}; expected {counted(dimensions, 'dimension')}")
    return shapes[key]


def load_resnet(architecture: Architecture, state: Mapping[str, Tensor | NDArray[Any]]) -> ResNet:
    """The net with these weights, in eval mode; tensors and arrays are taken over without a copy.

    Raises: CheckpointError naming the first key that is missing, unknown, or differs in shape, with both shapes.
    """
    import torch

    from resnet_tools.nets.layers import without_values
    from resnet_tools.nets.resnet import ResNet

    implied = check_weights(architecture, state)
    with without_values():
        model = ResNet(architecture)
    _assign(model, {key: torch.as_tensor(value, device="cpu") for key, value in {**implied, **state}.items()})
    return model.eval()


def _assign(model: ResNet, tensors: Mapping[str, Tensor]) -> None:
    """As `load_state_dict(tensors, assign=True)`, which checks again what is checked here, in a quarter of its time."""
    from torch import nn

    for prefix, module in model.named_modules():
        for name in [name for name, _ in module.named_parameters(recurse=False)]:
            setattr(module, name, nn.Parameter(tensors[f"{prefix}.{name}"]))
        for name in [name for name, _ in module.named_buffers(recurse=False)]:
            setattr(module, name, tensors[f"{prefix}.{name}"])
