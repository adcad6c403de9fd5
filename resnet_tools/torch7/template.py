"""Architecture -> the modules of the same net in Torch7, and their comparison with a module tree.

Only `bind` says which module of a file becomes which parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from resnet_tools.errors import RecognitionError
from resnet_tools.nets.architecture import POOL_WINDOW_PX, Architecture, BlockShape, ConvShape, block_shapes, stem_shape
from resnet_tools.torch7.modules import Module
from resnet_tools.torch7.outline import (
    AVERAGE_POOL,
    BN,
    CONV,
    FLATTEN,
    LINEAR,
    MAX_POOL,
    RELU,
    Net,
    conv_shape,
    is_square,
    misfit,
    padding,
)

FIRST_UPLOAD_FACTOR = 4  # the first upload of resnet-200 has batch norms this many times too wide


@dataclass(frozen=True)
class Expected:
    """One module that an architecture implies, and the prefix of its parameters' names, if it has any."""

    kind: str
    key: str = ""
    conv: ConvShape | None = None
    width: int = 0
    zero_pad_stride: int = 0


Bound = dict[str, tuple[Module, Expected]]


def bind(net: Net, architecture: Architecture) -> Bound:
    """Parameter name prefix ("layer1.0.conv1") -> the module that holds its tensors, and what it has to be.

    Raises: RecognitionError naming the first module that does not fit the architecture.
    """
    bound: Bound = {}
    _match(net.stem, expected_stem(architecture), net.root, bound)
    for block, shape in zip(net.blocks, block_shapes(architecture), strict=True):
        parts = (block.shared, block.branch, block.shortcut, block.tail)
        for steps, expected in zip(parts, expected_block(shape), strict=True):
            _match(steps, expected, block.module, bound)
    head = expected_head(architecture)
    if not architecture.num_classes:  # without nn.Linear, and perhaps without the nn.View before it
        head = head[: len(head) - 1 if net.head[-1].kind in FLATTEN else len(head) - 2]
    _match(net.head, head, net.root, bound)
    return bound


def expected_block(shape: BlockShape) -> tuple[list[Expected], list[Expected], list[Expected], list[Expected]]:
    """The parts of the block: shared start, branch, shortcut, and tail after the addition."""
    prefix = f"layer{shape.stage}.{shape.index - 1}"
    convs = [Expected(CONV, f"{prefix}.conv{n}", conv) for n, conv in enumerate(shape.convolutions, 1)]
    pre = shape.order.startswith("pre-activation")
    norms = [
        Expected(BN, f"{prefix}.bn{n}", width=conv.inputs if pre else conv.outputs)
        for n, conv in enumerate(shape.convolutions, 1)
    ]
    relu = Expected(RELU)
    shared, branch, tail = [], [], []
    if pre:
        lead = [norms[0], relu]
        shared = lead if shape.lead == "shared" else []
        branch = [*(lead if shape.lead == "branch" else []), convs[0]]
        branch += [step for norm, conv in zip(norms[1:], convs[1:], strict=True) for step in (norm, relu, conv)]
    else:
        branch = [step for conv, norm in zip(convs, norms, strict=True) for step in (conv, norm, relu)][:-1]
        tail = [relu]
        if shape.order == "bn-after-addition":
            tail = [replace(branch.pop(), key=f"{prefix}.bn_add"), relu]
    return shared, branch, _expected_shortcut(shape, prefix), tail


def _expected_shortcut(shape: BlockShape, prefix: str) -> list[Expected]:
    if shape.shortcut == "identity":
        return []
    if shape.shortcut == "zero-padded":
        pool = Expected(AVERAGE_POOL, zero_pad_stride=shape.stride)
        return [pool] if shape.inputs == shape.outputs else [pool, Expected("Concat")]
    conv = ConvShape(shape.inputs, shape.outputs, 1, shape.stride)
    norm = [Expected(BN, f"{prefix}.downsample.1", width=shape.outputs)] if shape.shortcut_batch_norm else []
    return [Expected(CONV, f"{prefix}.downsample.0", conv), *norm]


def expected_stem(architecture: Architecture) -> list[Expected]:
    steps = [Expected(CONV, "conv1", stem_shape(architecture))]
    if architecture.stem_batch_norm:
        steps += [Expected(BN, "bn1", width=architecture.stem_width), Expected(RELU)]
    return steps + ([Expected(MAX_POOL)] if architecture.stem == "imagenet" else [])


def expected_head(architecture: Architecture) -> list[Expected]:
    width = architecture.feature_length
    steps = [Expected(BN, "norm", width=width), Expected(RELU)] if architecture.pre_activation else []
    window_px = POOL_WINDOW_PX[architecture.stem] if architecture.pooling == "sum" else 0
    return [
        *steps,
        Expected(AVERAGE_POOL, width=window_px),
        Expected("View", width=width),
        Expected(LINEAR, "fc", width=width),
    ]


def _match(steps: Sequence[Module], expected: Sequence[Expected], parent: Module, bound: Bound) -> None:
    # First what both have, so that the error names the first module that differs; then what one has too many.
    for step, wanted in zip(steps, expected, strict=False):
        _CHECKS.get(wanted.kind, _check_kind)(step, wanted)
        if wanted.key:
            bound[wanted.key] = step, wanted
    if len(steps) > len(expected):
        raise misfit(steps[len(expected)], f"nothing more {_after(expected[-1:], parent)}")
    if len(steps) < len(expected):
        after = _after(expected[len(steps) - 1 : len(steps)] if steps else [], parent)
        lacks = f"an nn.{expected[len(steps)].kind} {after}"
        raise RecognitionError(f"{parent.where} ({parent.class_name}) lacks {lacks}")


def _after(last: Sequence[Expected], parent: Module) -> str:
    return f"after the nn.{last[0].kind}" if last else f"at this place in {parent.where}"


def _check_kind(module: Module, wanted: Expected) -> None:
    if module.kind != wanted.kind:
        raise misfit(module, f"nn.{wanted.kind}")


def _check_conv(module: Module, wanted: Expected) -> None:
    _check_kind(module, wanted)
    found, conv = conv_shape(module), wanted.conv
    if conv is None or found != conv or padding(module) != (conv.kernel - 1) // 2:
        raise RecognitionError(
            f"{module.where} ({module.class_name}) is a convolution {_convolution_text(found, padding(module))}; "
            f"expected {_convolution_text(conv, (conv.kernel - 1) // 2) if conv else 'none'}"
        )


def _convolution_text(conv: ConvShape, pad: int) -> str:
    groups = f" in {conv.groups} groups" if conv.groups > 1 else ""
    return (
        f"{conv.inputs} -> {conv.outputs}{groups}, {conv.kernel} x {conv.kernel}, stride {conv.stride}, padding {pad}"
    )


def _check_batch_norm(module: Module, wanted: Expected) -> None:
    _check_kind(module, wanted)
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = module.tensors.get(name)
        if tensor is None and name.startswith("running"):
            raise RecognitionError(f"{module.where} ({module.class_name}) has no {name}; it cannot be evaluated")
        if tensor is not None and tensor.shape != (wanted.width,) and not is_first_upload(module, wanted.width):
            raise RecognitionError(
                f"{module.where} ({module.class_name}): {name} has size {'x'.join(map(str, tensor.shape))}; "
                f"expected {wanted.width}"
            )


def is_first_upload(batch_norm: Module, width: int) -> bool:
    """Whether it is four times too wide and untrained after its first quarter, as in the first resnet-200."""
    mean, variance = batch_norm.tensors["running_mean"], batch_norm.tensors["running_var"]
    too_wide = all(tensor.shape == (width * FIRST_UPLOAD_FACTOR,) for tensor in batch_norm.tensors.values())
    return too_wide and not mean[width:].any() and bool((variance[width:] == 1).all())


def _check_max_pool(module: Module, wanted: Expected) -> None:
    _check_kind(module, wanted)
    fields = module.number("kW", 0), module.number("dW", 0), padding(module)
    if fields != (3, 2, 1) or not is_square(module) or module.fields.get("ceil_mode", False):
        raise misfit(module, "nn.SpatialMaxPooling(3x3, 2,2, 1,1) without ceil_mode")


def _check_average_pool(module: Module, wanted: Expected) -> None:
    _check_kind(module, wanted)
    window, stride = module.number("kW", 1), module.number("dW", 1)
    if not is_square(module) or padding(module) or module.fields.get("ceil_mode", False):
        raise misfit(module, "a square nn.SpatialAveragePooling without padding and ceil_mode")
    if wanted.zero_pad_stride and (window, stride) != (1, wanted.zero_pad_stride):
        raise misfit(module, f"nn.SpatialAveragePooling(1x1, {wanted.zero_pad_stride},{wanted.zero_pad_stride})")
    if wanted.width and window != wanted.width:
        raise misfit(module, f"a window of {wanted.width} x {wanted.width}, over which it sums")


def _check_concat(module: Module, wanted: Expected) -> None:
    _check_kind(module, wanted)
    kinds = [child.kind for child in module.children]
    dimension = module.number("dimension", 2)
    if kinds != ["Identity", "MulConstant"] or module.children[1].item.get("constant_scalar") != 0 or dimension != 2:
        raise misfit(module, "nn.Concat(2) of nn.Identity and nn.MulConstant(0)")


def _check_flatten(module: Module, wanted: Expected) -> None:
    if module.kind not in FLATTEN:
        raise misfit(module, "nn.View or nn.Reshape")
    size = module.fields.get("size", (-1,))
    count = module.number("numElements", module.number("nelement", wanted.width))
    inferred = isinstance(size, tuple) and -1 in size
    if not isinstance(size, tuple) or not (inferred or math.prod(size) == count == wanted.width):
        raise misfit(module, f"one row of {wanted.width} numbers per image; its size is {size} and it takes {count}")


def _check_linear(module: Module, wanted: Expected) -> None:
    _check_kind(module, wanted)
    weight = module.tensors.get("weight")
    outputs, inputs = weight.shape if weight is not None and weight.ndim == 2 else (0, 0)
    bias = module.tensors.get("bias")
    if bias is not None and bias.shape != (outputs,):
        found = "x".join(map(str, bias.shape))
        raise misfit(module, f"a bias of its {outputs} outputs; it has one of size {found}")
    if inputs != wanted.width:
        raise RecognitionError(f"{module.where} ({module.class_name}) takes {inputs} inputs; expected {wanted.width}")


_CHECKS = {
    CONV: _check_conv,
    BN: _check_batch_norm,
    MAX_POOL: _check_max_pool,
    AVERAGE_POOL: _check_average_pool,
    "Concat": _check_concat,
    "View": _check_flatten,
    LINEAR: _check_linear,
}
