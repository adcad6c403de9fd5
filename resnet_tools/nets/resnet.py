"""Architecture -> nn.Module: every residual net from 18 to 1202 layers, ImageNet and CIFAR.

Parameter names are torchvision's (conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, fc), so the state dict of a net
that torchvision has loads strictly there. A batch norm carries the number of the convolution that it follows, or, in
pre-activation blocks, precedes; one behind an addition is `bn_add`, that behind the last pre-activation stage `norm`.
Shapes: N images, H x W pixels, C channels (`widths` of the stages), D = `feature_length`, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnet_tools.errors import ResnetToolsError
from resnet_tools.nets.architecture import (
    POOL_WINDOW_PX,
    Architecture,
    BlockShape,
    ConvShape,
    ShortcutType,
    block_shapes,
    check_architecture,
)
from resnet_tools.nets.catalog import architecture as architecture_of_options
from resnet_tools.nets.catalog import named_architecture


def build_resnet(
    net: Architecture | str | None = None,
    *,
    depth: int | None = None,
    dataset: str | None = None,
    net_type: str | None = None,
    shortcut_type: ShortcutType | None = None,
    num_classes: int | None = None,
) -> ResNet:
    """A new net, initialised as the original does, in training mode.

    net: an `Architecture` or a name such as `resnet-50`, `preresnet-200` or `published-resnet-50`; without it the other
    options describe the net as the original's do (defaults: depth 34, imagenet, resnet, shortcut type B, A for CIFAR).
    num_classes: the number of outputs, in both cases.
    Raises: ResnetToolsError if there is no such net, or options contradict a net that is given.
    Source: models/resnet.lua of facebook/fb.resnet.torch.
    """
    options = {"depth": depth, "dataset": dataset, "net_type": net_type, "shortcut_type": shortcut_type}
    given = {name: value for name, value in options.items() if value is not None}
    if net is None:
        found = architecture_of_options(**given)  # type: ignore[arg-type]
    elif given:
        raise ResnetToolsError(f"{', '.join(given)} cannot be combined with a net that is given; leave out one of them")
    else:
        found = named_architecture(net) if isinstance(net, str) else net
    if num_classes == 0:
        raise ResnetToolsError("a new net of 0 classes gives nothing to train; give the number of its outputs")
    model = ResNet(check_architecture(found if num_classes is None else replace(found, num_classes=num_classes)))
    initialise(model)
    return model


class ResNet(nn.Module):
    """A residual net: (N, 3, H, W) float32 -> (N, K) logits. Pooling is global, so H and W are free.

    Its parameters hold torch's default initialisation; `build_resnet` gives the original's.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        imagenet = architecture.stem == "imagenet"
        stem = ConvShape(3, architecture.stem_width, *((7, 2) if imagenet else (3, 1)))
        self.conv1 = _convolution(architecture, stem)
        self.bn1 = _batch_norm(architecture, stem.outputs) if architecture.stem_batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True) if architecture.stem_batch_norm else nn.Identity()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        self.stages = [f"layer{stage}" for stage in range(1, len(architecture.stages) + 1)]
        for name in self.stages:
            self.add_module(name, nn.Sequential())
        for shape in block_shapes(architecture):
            cast(nn.Sequential, self.get_submodule(f"layer{shape.stage}")).append(_block(architecture, shape))
        last = architecture.feature_length
        self.norm = _batch_norm(architecture, last) if architecture.pre_activation else nn.Identity()
        self.norm_relu = nn.ReLU(inplace=True) if architecture.pre_activation else nn.Identity()
        window_px = POOL_WINDOW_PX[architecture.stem]
        self.avgpool = nn.AdaptiveAvgPool2d(1) if architecture.pooling == "average" else SumPool(window_px**2)
        self.fc = nn.Linear(last, architecture.num_classes) if architecture.num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K) logits."""
        return cast(Tensor, self.fc(self.forward_features(x)))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D), the classifier's input."""
        x = self.relu(self.bn1(self.conv1(x)))  # (N, C0, H/2, W/2); CIFAR: (N, C0, H, W)
        x = self.maxpool(x)  # (N, C0, H/4, W/4)
        for name in self.stages:
            x = self.get_submodule(name)(x)  # (N, C, H/4, W/4), then half the sides at each stage
        x = self.norm_relu(self.norm(x))
        return torch.flatten(self.avgpool(x), 1)  # (N, D)

    def foldable(self) -> Iterator[tuple[str, str]]:
        """The names of each convolution and the batch norm that directly follows it."""
        yield "conv1", "bn1"
        for name, module in self.named_modules():
            if isinstance(module, ResidualBlock):
                yield from ((f"{name}.{conv}", f"{name}.{bn}") for conv, bn in module.foldable())


class ResidualBlock(nn.Module):
    """The parts that all orders share: conv1 ... convN, as many batch norms, and the shortcut `downsample`."""

    def __init__(self, architecture: Architecture, shape: BlockShape) -> None:
        super().__init__()
        self.depth = len(shape.convolutions)
        for number, conv in enumerate(shape.convolutions, 1):
            self.add_module(f"conv{number}", _convolution(architecture, conv))
            self.add_module(self.bn_name(number), self.batch_norm(architecture, shape, number))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(architecture, shape)

    def bn_name(self, number: int) -> str:
        return f"bn{number}"

    def batch_norm(self, architecture: Architecture, shape: BlockShape, number: int) -> nn.Module:
        return _batch_norm(architecture, shape.convolutions[number - 1].outputs)

    def conv(self, number: int, x: Tensor) -> Tensor:
        return cast(Tensor, getattr(self, f"conv{number}")(x))

    def bn(self, number: int, x: Tensor) -> Tensor:
        return cast(Tensor, getattr(self, self.bn_name(number))(x))

    def foldable(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.downsample, nn.Sequential) and len(self.downsample) == 2:
            yield "downsample.0", "downsample.1"


class PostActivation(ResidualBlock):
    """Convolution, BN, ReLU in turn; addition; ReLU (arXiv:1512.03385)."""

    def forward(self, x: Tensor) -> Tensor:
        y = x  # (N, C_in, H, W)
        for number in range(1, self.depth):
            y = self.relu(self.bn(number, self.conv(number, y)))
        y = self.bn(self.depth, self.conv(self.depth, y))  # (N, C_out, H/stride, W/stride)
        return cast(Tensor, self.relu(y + self.downsample(x)))

    def foldable(self) -> Iterator[tuple[str, str]]:
        yield from ((f"conv{number}", f"bn{number}") for number in range(1, self.depth + 1))
        yield from super().foldable()


class BatchNormAfterAddition(ResidualBlock):
    """As `PostActivation`, with the last BN, `bn_add`, behind the addition: the published resnet-50."""

    def bn_name(self, number: int) -> str:
        return "bn_add" if number == self.depth else f"bn{number}"

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.depth):
            y = self.relu(self.bn(number, self.conv(number, y)))
        y = self.conv(self.depth, y) + self.downsample(x)
        return cast(Tensor, self.relu(self.bn(self.depth, y)))

    def foldable(self) -> Iterator[tuple[str, str]]:
        yield from ((f"conv{number}", f"bn{number}") for number in range(1, self.depth))
        yield from super().foldable()


class _PreActivation(ResidualBlock):
    """BN, ReLU, convolution in turn; addition (arXiv:1603.05027)."""

    def batch_norm(self, architecture: Architecture, shape: BlockShape, number: int) -> nn.Module:
        if number == 1 and shape.lead == "none":
            return nn.Identity()
        return _batch_norm(architecture, shape.convolutions[number - 1].inputs)

    def branch(self, y: Tensor) -> Tensor:
        y = self.conv(1, y)
        for number in range(2, self.depth + 1):
            y = self.conv(number, self.relu(self.bn(number, y)))
        return y

    def foldable(self) -> Iterator[tuple[str, str]]:
        yield from ((f"conv{number}", f"bn{number + 1}") for number in range(1, self.depth))
        yield from super().foldable()


class PreActivation(_PreActivation):
    """The shortcut takes the raw input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(self.relu(self.bn(1, x))) + cast(Tensor, self.downsample(x))


class SharedPreActivation(_PreActivation):
    """The shortcut takes the activated input (preresnet.lua: both_preact).

    The block behind the ImageNet stem has no BN of its own (no_preact); its input is activated, so the ReLU keeps it.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(1, x))
        return self.branch(x) + cast(Tensor, self.downsample(x))


class ZeroPadded(nn.Module):
    """Shortcut type A: every `stride`-th pixel, and new channels that are zero."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, new_channels

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class SumPool(nn.Module):
    """The mean over all positions times `window`: what nn.SpatialAveragePooling without the field `divide` gives.

    (N, C, H, W) -> (N, C, 1, 1).
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True) * self.window


def _block(architecture: Architecture, shape: BlockShape) -> ResidualBlock:
    if shape.order == "post-activation":
        return PostActivation(architecture, shape)
    if shape.order == "bn-after-addition":
        return BatchNormAfterAddition(architecture, shape)
    return (PreActivation if shape.lead == "branch" else SharedPreActivation)(architecture, shape)


def _shortcut(architecture: Architecture, shape: BlockShape) -> nn.Module:
    if shape.shortcut == "identity":
        return nn.Identity()
    if shape.shortcut == "zero-padded":
        return ZeroPadded(shape.stride, shape.outputs - shape.inputs)
    conv = _convolution(architecture, ConvShape(shape.inputs, shape.outputs, 1, shape.stride))
    return nn.Sequential(conv, *([_batch_norm(architecture, shape.outputs)] if shape.shortcut_batch_norm else []))


def _convolution(architecture: Architecture, conv: ConvShape) -> nn.Conv2d:
    return nn.Conv2d(
        conv.inputs,
        conv.outputs,
        conv.kernel,
        stride=conv.stride,
        padding=(conv.kernel - 1) // 2,
        groups=conv.groups,
        bias=architecture.conv_bias,
    )


def _batch_norm(architecture: Architecture, width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=architecture.bn_eps, momentum=architecture.bn_momentum)


@torch.no_grad()
def initialise(model: ResNet) -> None:
    """Draw new weights as the original does: convolutions N(0, sqrt(2 / (kW kH outputs))), the classifier
    U(+-1 / sqrt(D)) with bias 0, batch norm 1 and 0. Source: ConvInit and BNInit in models/resnet.lua.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if isinstance(model.fc, nn.Linear):
        initialise_classifier(model.fc)


@torch.no_grad()
def initialise_classifier(classifier: nn.Linear) -> None:
    """Weights U(+-1 / sqrt(inputs)), as Torch7's nn.Linear, and bias 0."""
    bound = 1 / math.sqrt(classifier.in_features)
    nn.init.uniform_(classifier.weight, -bound, bound)
    nn.init.zeros_(classifier.bias)


def fold_batch_norm(model: ResNet) -> None:
    """Fold, in place, each batch norm of a net in eval mode into the convolution before it: fewer passes over memory.

    The logits stay equal to about 1e-6 of the largest. Batch norms without a convolution before them stay.
    """
    for conv_name, bn_name in model.foldable():
        conv, bn = model.get_submodule(conv_name), model.get_submodule(bn_name)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            model.set_submodule(conv_name, fuse_conv_bn_eval(conv, bn))
            model.set_submodule(bn_name, nn.Identity())
