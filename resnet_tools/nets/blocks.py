"""The residual blocks that a `ResNet` is made of: one class for each order of convolution, batch norm and addition.

Parameter names are torchvision's: conv1, bn1, conv2, ..., downsample.0. A batch norm has the number of the convolution
that it follows or, in pre-activation blocks, precedes; the one after the addition is `bn_add`.
Shapes: every block maps (N, C_in, H, W) to (N, C_out, H / stride, W / stride).

Sources: He et al. 2015 (arXiv:1512.03385) and 2016 (arXiv:1603.05027); models/resnet.lua and models/preresnet.lua of
facebook/fb.resnet.torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, cast

from torch import Tensor, nn
from torch.nn.functional import pad

from resnet_tools.nets.architecture import Architecture, BlockShape, ConvShape
from resnet_tools.nets.layers import layer


class ResidualBlock(nn.Module):
    """What all blocks share. `FOLDABLE` names each convolution with the batch norm that directly follows it."""

    FOLDABLE: ClassVar[tuple[tuple[str, str], ...]]
    downsample: nn.Module

    def __init__(self, net: Architecture, shape: BlockShape) -> None:
        super().__init__()

    def foldable(self) -> Iterator[tuple[str, str]]:
        yield from self.FOLDABLE
        if isinstance(self.downsample, nn.Sequential) and len(self.downsample) == 2:
            yield "downsample.0", "downsample.1"


class BasicBlock(ResidualBlock):
    """Two 3 x 3 convolutions, each with its batch norm; addition; ReLU."""

    FOLDABLE = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, net: Architecture, shape: BlockShape) -> None:
        super().__init__(net, shape)
        conv1, conv2 = shape.convolutions
        self.conv1 = convolution(net, conv1)
        self.bn1 = batch_norm(net, conv1.outputs)
        self.conv2 = convolution(net, conv2)
        self.bn2 = batch_norm(net, conv2.outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(net, shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return cast(Tensor, self.relu(y + self.downsample(x)))


class Bottleneck(ResidualBlock):
    """1 x 1, 3 x 3 and 1 x 1 convolution, each with its batch norm; addition; ReLU."""

    FOLDABLE = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, net: Architecture, shape: BlockShape) -> None:
        super().__init__(net, shape)
        conv1, conv2, conv3 = shape.convolutions
        self.conv1 = convolution(net, conv1)
        self.bn1 = batch_norm(net, conv1.outputs)
        self.conv2 = convolution(net, conv2)
        self.bn2 = batch_norm(net, conv2.outputs)
        self.conv3 = convolution(net, conv3)
        self.bn3 = batch_norm(net, conv3.outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(net, shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return cast(Tensor, self.relu(y + self.downsample(x)))


class BasicBlockNormAfterAddition(ResidualBlock):
    """As `BasicBlock`, with the last batch norm after the addition."""

    FOLDABLE = (("conv1", "bn1"),)

    def __init__(self, net: Architecture, shape: BlockShape) -> None:
        super().__init__(net, shape)
        conv1, conv2 = shape.convolutions
        self.conv1 = convolution(net, conv1)
        self.bn1 = batch_norm(net, conv1.outputs)
        self.conv2 = convolution(net, conv2)
        self.bn_add = batch_norm(net, conv2.outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(net, shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(y)
        return cast(Tensor, self.relu(self.bn_add(y + self.downsample(x))))


class BottleneckNormAfterAddition(ResidualBlock):
    """As `Bottleneck`, with the last batch norm after the addition: the published resnet-50."""

    FOLDABLE = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, net: Architecture, shape: BlockShape) -> None:
        super().__init__(net, shape)
        conv1, conv2, conv3 = shape.convolutions
        self.conv1 = convolution(net, conv1)
        self.bn1 = batch_norm(net, conv1.outputs)
        self.conv2 = convolution(net, conv2)
        self.bn2 = batch_norm(net, conv2.outputs)
        self.conv3 = convolution(net, conv3)
        self.bn_add = batch_norm(net, conv3.outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(net, shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.conv3(y)
        return cast(Tensor, self.relu(self.bn_add(y + self.downsample(x))))


class PreActBasicBlock(ResidualBlock):
    """Batch norm and ReLU before each of two convolutions; the shortcut takes the raw input."""

    FOLDABLE = (("conv1", "bn2"),)

    def __init__(self, net: Architecture, shape: BlockShape) -> None:
        super().__init__(net, shape)
        conv1, conv2 = shape.convolutions
        self.conv1 = convolution(net, conv1)
        self.bn1 = leading_batch_norm(net, shape)
        self.conv2 = convolution(net, conv2)
        self.bn2 = batch_norm(net, conv2.inputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(net, shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(x))
        return self.convolutions(y) + cast(Tensor, self.downsample(x))

    def convolutions(self, y: Tensor) -> Tensor:
        y = self.conv1(y)
        return cast(Tensor, self.conv2(self.relu(self.bn2(y))))


class PreActBottleneck(ResidualBlock):
    """Batch norm and ReLU before each of three convolutions; the shortcut takes the raw input."""

    FOLDABLE = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(self, net: Architecture, shape: BlockShape) -> None:
        super().__init__(net, shape)
        conv1, conv2, conv3 = shape.convolutions
        self.conv1 = convolution(net, conv1)
        self.bn1 = leading_batch_norm(net, shape)
        self.conv2 = convolution(net, conv2)
        self.bn2 = batch_norm(net, conv2.inputs)
        self.conv3 = convolution(net, conv3)
        self.bn3 = batch_norm(net, conv3.inputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(net, shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(x))
        return self.convolutions(y) + cast(Tensor, self.downsample(x))

    def convolutions(self, y: Tensor) -> Tensor:
        y = self.conv1(y)
        y = self.conv2(self.relu(self.bn2(y)))
        return cast(Tensor, self.conv3(self.relu(self.bn3(y))))


class SharedPreActBasicBlock(PreActBasicBlock):
    """As `PreActBasicBlock`, but the shortcut takes the activated input (preresnet.lua: both_preact).

    The block after an activated stem has no leading batch norm (no_preact); there the ReLU changes nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(x))
        return self.convolutions(x) + cast(Tensor, self.downsample(x))


class SharedPreActBottleneck(PreActBottleneck):
    """As `SharedPreActBasicBlock`, with three convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(x))
        return self.convolutions(x) + cast(Tensor, self.downsample(x))


class ZeroPadded(nn.Module):
    """Shortcut type A: every `stride`-th pixel, and new channels that are zero."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, new_channels

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


_BASIC: dict[str, type[ResidualBlock]] = {
    "post-activation": BasicBlock,
    "bn-after-addition": BasicBlockNormAfterAddition,
    "pre-activation": PreActBasicBlock,
    "shared pre-activation": SharedPreActBasicBlock,
}
_BOTTLENECK: dict[str, type[ResidualBlock]] = {
    "post-activation": Bottleneck,
    "bn-after-addition": BottleneckNormAfterAddition,
    "pre-activation": PreActBottleneck,
    "shared pre-activation": SharedPreActBottleneck,
}


def residual_block(net: Architecture, shape: BlockShape) -> ResidualBlock:
    """The block of this shape, with torch's default weights."""
    order: str = shape.order
    if net.pre_activation:  # told apart by what the first batch norm and ReLU are applied to, block by block
        order = "pre-activation" if shape.lead == "branch" else "shared pre-activation"
    return (_BASIC if net.block == "basic" else _BOTTLENECK)[order](net, shape)


def convolution(net: Architecture, conv: ConvShape) -> nn.Conv2d:
    return layer(
        nn.Conv2d,
        conv.inputs,
        conv.outputs,
        conv.kernel,
        stride=conv.stride,
        padding=(conv.kernel - 1) // 2,
        groups=conv.groups,
        bias=net.conv_bias,
    )


def batch_norm(net: Architecture, width: int) -> nn.BatchNorm2d:
    return layer(nn.BatchNorm2d, width, eps=net.bn_eps, momentum=net.bn_momentum)


def leading_batch_norm(net: Architecture, shape: BlockShape) -> nn.Module:
    """The first batch norm of a pre-activation block; a block whose input is activated has none."""
    return nn.Identity() if shape.lead == "none" else batch_norm(net, shape.inputs)


def shortcut(net: Architecture, shape: BlockShape) -> nn.Module:
    if shape.shortcut == "identity":
        return nn.Identity()
    if shape.shortcut == "zero-padded":
        return ZeroPadded(shape.stride, shape.outputs - shape.inputs)
    conv = convolution(net, ConvShape(shape.inputs, shape.outputs, 1, shape.stride))
    return nn.Sequential(conv, *([batch_norm(net, shape.outputs)] if shape.shortcut_batch_norm else []))
