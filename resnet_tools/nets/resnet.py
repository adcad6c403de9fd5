"""Architecture -> nn.Module: every residual net from 18 to 1202 layers, ImageNet and CIFAR.

Parameter names are torchvision's (conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, fc), so the state dict of a net
that torchvision has loads strictly there. The batch norm after the last pre-activation stage is `norm`; `nets.blocks`
says what is in a block.
Shapes: N images of C channels and H x W pixels; C0 = `stem_width`, C1 ... C4 = `widths` of the stages,
D = `feature_length`, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnet_tools.errors import ResnetToolsError
from resnet_tools.nets.architecture import (
    POOL_WINDOW_PX,
    Architecture,
    ShortcutType,
    block_shapes,
    check_architecture,
    stem_shape,
)
from resnet_tools.nets.blocks import ResidualBlock, batch_norm, convolution, residual_block
from resnet_tools.nets.catalog import architecture as architecture_of_options
from resnet_tools.nets.catalog import named_architecture
from resnet_tools.nets.layers import layer


def build_resnet(
    net: Architecture | str | None = None,
    *,
    depth: int | None = None,
    dataset: str | None = None,
    net_type: str | None = None,
    shortcut_type: ShortcutType | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    classes: int | None = None,
) -> ResNet:
    """A new net, initialised as the original does, in training mode.

    net: an `Architecture` or a name such as `resnet-50`, `preresnet-200` or `published-resnet-50`; without it the other
    options describe the net as in the original (defaults: depth 34, imagenet, resnet, shortcut type B, A for CIFAR).
    num_classes: the number of outputs, in both cases; `classes` is its older name.
    in_channels: 3, or 1 for a net of gray images.
    Raises: ResnetToolsError if there is no such net, or if options contradict each other or the given net.
    Source: models/resnet.lua of facebook/fb.resnet.torch.

    >>> import torch
    >>> from resnet_tools import build_resnet
    >>> net = build_resnet("cifar10-resnet-20", num_classes=5)
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """
    options = {"depth": depth, "dataset": dataset, "net_type": net_type, "shortcut_type": shortcut_type}
    given = {name: value for name, value in options.items() if value is not None}
    if net is None:
        found = architecture_of_options(**given)  # type: ignore[arg-type]
    elif given:
        raise ResnetToolsError(f"{', '.join(given)} cannot be combined with a net; leave out one of them")
    else:
        found = named_architecture(net) if isinstance(net, str) else net
    if classes is not None and num_classes is not None:
        raise ResnetToolsError("num_classes and classes mean the same; give num_classes only")
    outputs = classes if num_classes is None else num_classes
    if outputs == 0:
        raise ResnetToolsError("a new net needs at least one class; give the number of its outputs")
    found = found if outputs is None else replace(found, num_classes=outputs)
    found = found if in_channels is None else replace(found, in_channels=in_channels)
    model = ResNet(check_architecture(found))
    initialise(model)
    return model


class ResNet(nn.Module):
    """A residual net: (N, C, H, W) float32 -> (N, K) logits. Pooling is global, so H and W are free.

    C is 3, or 1 for a net of gray images. Its parameters hold torch's default weights; `build_resnet` gives the
    original's.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        imagenet = architecture.stem == "imagenet"
        width, last = architecture.stem_width, architecture.feature_length
        self.conv1 = convolution(architecture, stem_shape(architecture))
        self.bn1 = batch_norm(architecture, width) if architecture.stem_batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True) if architecture.stem_batch_norm else nn.Identity()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        self.layer1 = _stage(architecture, 1)
        self.layer2 = _stage(architecture, 2)
        self.layer3 = _stage(architecture, 3)
        self.layer4 = _stage(architecture, 4)
        self.norm = batch_norm(architecture, last) if architecture.pre_activation else nn.Identity()
        self.norm_relu = nn.ReLU(inplace=True) if architecture.pre_activation else nn.Identity()
        window_px = POOL_WINDOW_PX[architecture.stem]
        self.avgpool = nn.AdaptiveAvgPool2d(1) if architecture.pooling == "average" else SumPool(window_px**2)
        self.fc = layer(nn.Linear, last, architecture.num_classes) if architecture.num_classes else nn.Identity()

    if TYPE_CHECKING:  # nn.Module's returns Any

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K) logits."""
        return cast(Tensor, self.fc(self.forward_features(x)))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D), the classifier's input."""
        x = self.relu(self.bn1(self.conv1(x)))  # (N, C0, H/2, W/2); CIFAR: (N, C0, H, W)
        x = self.maxpool(x)  # (N, C0, H/4, W/4)
        x = self.layer1(x)  # (N, C1, H/4, W/4)
        x = self.layer2(x)  # (N, C2, H/8, W/8)
        x = self.layer3(x)  # (N, C3, H/16, W/16)
        x = self.layer4(x)  # (N, C4, H/32, W/32); CIFAR's nets have three stages, and nothing happens here
        x = self.norm_relu(self.norm(x))
        return torch.flatten(self.avgpool(x), 1)  # (N, D)

    @property
    def stages(self) -> list[str]:
        """The names of the stages that the net has."""
        return [f"layer{stage}" for stage in range(1, len(self.architecture.stages) + 1)]

    def foldable(self) -> Iterator[tuple[str, str]]:
        """The names of each convolution and the batch norm that directly follows it."""
        yield "conv1", "bn1"
        for name, module in self.named_modules():
            if isinstance(module, ResidualBlock):
                yield from ((f"{name}.{conv}", f"{name}.{bn}") for conv, bn in module.foldable())


def _stage(architecture: Architecture, stage: int) -> nn.Module:
    """The blocks of one stage; nothing for a stage that the net does not have."""
    shapes = [shape for shape in block_shapes(architecture) if shape.stage == stage]
    return nn.Sequential(*(residual_block(architecture, shape) for shape in shapes)) if shapes else nn.Identity()


class SumPool(nn.Module):
    """The mean over all positions times `window`: what nn.SpatialAveragePooling without the field `divide` gives.

    (N, C, H, W) -> (N, C, 1, 1).
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True) * self.window


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


def fold_batch_norm(model: ResNet) -> ResNet:
    """The same net with each batch norm folded, in place, into the convolution before it: fewer passes over memory.

    The net is in eval mode. Its logits stay equal to about 1e-6 of the largest. Batch norms without a convolution
    before them stay.
    """
    # At evaluation a batch norm is a factor and a shift per channel, which the convolution's weights can hold.
    for conv_name, bn_name in model.foldable():
        conv, bn = model.get_submodule(conv_name), model.get_submodule(bn_name)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            model.set_submodule(conv_name, fuse_conv_bn_eval(conv, bn))
            model.set_submodule(bn_name, nn.Identity())
    return model
