"""Class activation maps: how much each place of an image adds to the output of a class.

A residual net averages its last feature map over all positions and multiplies with one matrix. Both are linear, so the
matrix can be multiplied first: that gives, for each class, a map whose mean is exactly the output less the bias.

Shapes: N images, K classes, D channels of the last feature map, h x w positions.
Source: Zhou et al. 2016 (arXiv:1512.04150).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnet_tools.compute.inference import memory_errors, to_model
from resnet_tools.errors import CheckpointError
from resnet_tools.metrics import best_classes
from resnet_tools.nets.resnet import ResNet, SumPool


@dataclass(frozen=True)
class ActivationMaps:
    """The best classes of one image, the best first, and where in the image each comes from.

    `indices`: positions in the net's output, from 0; `probabilities` and `logits`: theirs; `biases`: the part of each
    logit that no place adds. `maps`: (k, h, w) float32, over the image as it was cropped; the mean of a map is its
    logit less its bias.
    """

    indices: list[int]
    probabilities: list[float]
    logits: list[float]
    biases: list[float]
    maps: NDArray[np.float32]


@torch.inference_mode()
def activation_maps_of(
    model: nn.Module, images: Tensor, top_k: int = 5, *, chosen: Tensor | None = None
) -> list[ActivationMaps]:
    """Of the `top_k` best classes (or all, if there are fewer) of each image; (N, C, H, W).

    chosen: (N, k), the classes of each image in place of its best ones.

    Raises: CheckpointError for a net without a classifier or of another engine; DeviceMemoryError.
    """
    classifier = _classifier_of(model)
    with memory_errors(len(images)):
        features, logits = _last_features(model, to_model(model, images))  # (N, D, h, w), (N, K)
        probabilities = logits.softmax(1)
        indices = best_classes(probabilities, top_k) if chosen is None else chosen.to(logits.device)  # (N, k)
        maps = torch.einsum("nkd,ndhw->nkhw", classifier.weight.float()[indices], features)
        bias = torch.zeros_like(logits[0]) if classifier.bias is None else classifier.bias.float()
        columns: Any = (indices, probabilities.gather(1, indices), logits.gather(1, indices), bias[indices])
        lists = [column.cpu().tolist() for column in columns]
        return [ActivationMaps(*values) for values in zip(*lists, maps.cpu().numpy(), strict=True)]


def _classifier_of(model: nn.Module) -> nn.Linear:
    if not isinstance(model, ResNet):
        raise CheckpointError("activation maps need a net that PyTorch runs; an .onnx does not give its feature maps")
    if not isinstance(model.fc, nn.Linear):
        raise CheckpointError("activation maps need a classifier, and this net has none")
    return model.fc


def _last_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into the last pooling, scaled so that its mean is what comes out of it, and the logits; float32."""
    seen: list[Tensor] = []
    pooling = model.get_submodule("avgpool")
    hook = pooling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = model(images).float()
    finally:
        hook.remove()
    window = pooling.window if isinstance(pooling, SumPool) else 1
    return seen[0].float() * window, logits
