"""Images -> the output of a layer of the net, one row per image.

Shapes: N images, H x W pixels; D features, or C channels at h x w positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from resnet_tools.checkpoints.onnx_engine import EngineNet
from resnet_tools.checkpoints.onnx_files import OnnxNet
from resnet_tools.checkpoints.runnable import Net
from resnet_tools.compute.inference import memory_errors, to_model

DEFAULT_LAYER = "flatten"  # the input of the classifier
Pool = Literal["avg", "none"]


@dataclass(frozen=True)
class FeatureKind:
    """What a row is: the output of `layer`, averaged over positions (pool `avg`) or not, scaled to length 1 or not."""

    layer: str = DEFAULT_LAYER
    pool: Pool = "avg"
    l2_normalize: bool = False
    dtype: Literal["float32", "float16"] = "float32"


def layer_shapes(model: Net, crop_px: int) -> dict[str, tuple[int, ...]]:
    """Each layer that can be asked for, in the order of execution -> the shape of its output for one image.

    Layers are named as the modules are; `flatten` is the classifier's input.
    """
    if isinstance(model, OnnxNet | EngineNet):
        return model.layer_shapes(crop_px)
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            shapes.setdefault(name, tuple(output.shape[1:]))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with torch.inference_mode():
            weight = model.conv1.weight
            shape = (1, model.architecture.in_channels, crop_px, crop_px)
            model(torch.zeros(shape, device=weight.device, dtype=weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    classifier = shapes.pop("fc")
    return shapes | {DEFAULT_LAYER: (model.architecture.feature_length,), "fc": classifier}


@torch.inference_mode()
def features_of(model: Net, images: Tensor, kind: FeatureKind) -> Tensor:
    """(N, 3, H, W) -> (N, D), or (N, C, h, w) without pooling, float32 on the CPU; (N, 10, 3, H, W): mean of the crops.

    Raises: ResnetToolsError if there is not enough memory.
    """
    with memory_errors(len(images)):
        if images.ndim == 5:  # one crop of each image at a time: ten times the images would need ten times the memory
            features = torch.stack([_pooled(model, crops, kind) for crops in images.unbind(1)]).mean(0)
        else:
            features = _pooled(model, images, kind)
    if kind.l2_normalize:
        features = nn.functional.normalize(features.flatten(1), dim=1).view_as(features)
    return features


def _pooled(model: Net, images: Tensor, kind: FeatureKind) -> Tensor:
    images = to_model(model, images)
    default = kind.layer == DEFAULT_LAYER
    features = model.forward_features(images) if default else _output_of(model, kind.layer, images)
    if features.ndim == 4 and kind.pool == "avg":
        features = features.mean((2, 3))
    return features.float().cpu().contiguous()


class _LayerDone(Exception):
    """The requested output has been computed; the layers after it are skipped."""


def _output_of(model: Net, layer: str, images: Tensor) -> Tensor:
    if isinstance(model, OnnxNet | EngineNet):
        return cast(Tensor, model(images))  # the one other output that its graph has
    outputs: list[Tensor] = []

    def stop(_: nn.Module, __: Any, output: Tensor) -> None:
        outputs.append(output.clone())  # the ReLU after it works in place
        raise _LayerDone

    hook = model.get_submodule(layer).register_forward_hook(stop)
    try:
        with suppress(_LayerDone):
            model(images)
    finally:
        hook.remove()
    return outputs[0]


def may_fold(layer: str) -> bool:
    """Whether folding batch norms keeps the layer's output; it changes that of a convolution."""
    return layer in (DEFAULT_LAYER, "avgpool", "norm", "fc") or re.fullmatch(r"layer\d+(\.\d+)?", layer) is not None
