"""A net of ours -> the state dict of the same net in another library, which computes the same.

torchvision's and timm's resnets share their parameter names, and ours have them too; what differs is which nets they
have. Where their net has a part that ours lacks, the part gets weights without an effect, and where ours has a part
that theirs lacks, its effect goes into the weights before or after it:

- a shortcut without batch norm: an identity batch norm, exact to the rounding of float32;
- convolution biases: into the running means of the batch norms after them;
- pooling that sums: into the classifier's weights; another eps: into the running variances.

Sources: torchvision models/resnet.py; timm models/resnet.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from resnet_tools.errors import ExportError
from resnet_tools.nets.architecture import COLOR_CHANNELS, POOL_WINDOW_PX, Architecture, stem_shape
from resnet_tools.nets.blocks import convolution
from resnet_tools.nets.catalog import architecture_name

Layout = Literal["torchvision", "timm"]

EPS = 1e-5  # of nn.BatchNorm2d, which both leave as it is
_TORCHVISION = {f"resnet-{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}
_TORCHVISION |= {
    "resnext-50-32x4d": "resnext50_32x4d",
    "resnext-101-32x8d": "resnext101_32x8d",
    "resnext-101-64x4d": "resnext101_64x4d",
    "wide-resnet-50-2": "wide_resnet50_2",
    "wide-resnet-101-2": "wide_resnet101_2",
}
NAMES: dict[Layout, dict[str, str]] = {  # our name of an architecture -> theirs
    "torchvision": _TORCHVISION,
    "timm": _TORCHVISION | {"resnet-200": "resnet200"},
}


def name_in(layout: Layout, net: Architecture) -> str:
    """What the other library calls this net. Raises: ExportError with the reason why it has none."""
    plain = replace(
        net, in_channels=COLOR_CHANNELS, shortcut_batch_norm=True, conv_bias=False, pooling="average", bn_eps=EPS
    )
    name = NAMES[layout].get(architecture_name(plain) or "")
    if name is None:
        raise ExportError(f"{layout} cannot express this net: {_reason(layout, net)}; write .safetensors, .onnx or .t7")
    return name


def _reason(layout: Layout, net: Architecture) -> str:
    if net.order != "post-activation":
        return f"its blocks compute in {net.order} order, and the resnets there in post-activation order"
    if net.stem != "imagenet":
        return "its stem is the 3 x 3 convolution for CIFAR, and the stems there are 7 x 7 with max pooling"
    if net.shortcut_type != "B":
        return f"its shortcuts are of type {net.shortcut_type}, and those there of type B"
    return (
        f"no net there has {net.block} blocks {list(net.stages)} of widths {list(net.widths)}, "
        f"inner widths {list(net.inner_widths)} and {net.groups} groups after a stem of width {net.stem_width}; "
        f"there are {', '.join(NAMES[layout].values())}"
    )


def state_for(layout: Layout, net: Architecture, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights for the net of that name there, for a strict load. Raises: ExportError as `name_in`."""
    name_in(layout, net)
    found = dict(state)
    if not net.shortcut_batch_norm:
        for key in [key for key in found if key.endswith("downsample.0.weight")]:
            found |= _identity_batch_norm(key.replace("downsample.0.weight", "downsample.1"), found[key])
    if net.bn_eps != EPS:
        found |= {k: (v.double() + net.bn_eps - EPS).to(v.dtype) for k, v in state.items() if k.endswith("running_var")}
    for key in [key for key in found if net.conv_bias and key.endswith(".bias")]:
        if key.removesuffix("bias") + "running_mean" not in found and key != "fc.bias":
            mean = f"{_batch_norm_behind(key.removesuffix('.bias'))}.running_mean"
            found[mean] = found[mean] - found.pop(key)
    if net.pooling == "sum":
        found["fc.weight"] = found["fc.weight"] * POOL_WINDOW_PX[net.stem] ** 2
    return found


def _identity_batch_norm(key: str, weight: Tensor) -> dict[str, Tensor]:
    """With variance 1 - eps it divides by sqrt(1)."""
    ones, zeros = weight.new_ones(weight.shape[0]), weight.new_zeros(weight.shape[0])
    return {
        f"{key}.weight": ones,
        f"{key}.bias": zeros,
        f"{key}.running_mean": zeros.clone(),
        f"{key}.running_var": (ones.double() - EPS).to(weight.dtype),
        f"{key}.num_batches_tracked": torch.tensor(0),
    }


def _batch_norm_behind(conv: str) -> str:
    if conv.endswith("downsample.0"):
        return conv.removesuffix("0") + "1"
    before, _, name = conv.rpartition("conv")
    return f"{before}bn{name}"


def net_there(layout: Layout, net: Architecture, state: Mapping[str, Tensor]) -> nn.Module:
    """The other library's own net with these weights, loaded strictly, in eval mode and float32.

    Raises: ExportError if the library is not installed or refuses the weights.
    """
    name = name_in(layout, net)
    try:
        with torch.device("meta"):
            model = _for_channels(layout, name, net)
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ExportError(f"{layout}'s {name} does not load these weights: {error}") from error
    return model.float().eval()


def _for_channels(layout: Layout, name: str, net: Architecture) -> nn.Module:
    """torchvision's nets are of color images; for gray ones their first convolution is replaced, as is usual."""
    if layout == "timm":
        return _creator(layout)(name, num_classes=net.num_classes, in_chans=net.in_channels)
    model = _creator(layout)(name, num_classes=net.num_classes)
    if net.in_channels != COLOR_CHANNELS:
        model.conv1 = convolution(replace(net, conv_bias=False), stem_shape(net))
    return model


def check_installed(layout: Layout) -> None:
    """Raises: ExportError if the library, with which what is written is verified, is not installed."""
    _creator(layout)


def _creator(layout: Layout) -> Callable[..., nn.Module]:
    try:
        if layout == "timm":
            import timm

            return cast(Callable[..., nn.Module], timm.create_model)
        import torchvision

        return cast(Callable[..., nn.Module], torchvision.models.get_model)
    except ImportError:
        advice = "'resnet_tools[timm]'" if layout == "timm" else layout
        raise ExportError(f"--layout {layout} needs {layout}: pip install {advice}") from None
