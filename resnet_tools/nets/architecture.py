"""What a residual net looks like: one frozen description that everything else reads.

In: the choices (from `nets.catalog`, or what `torch7.recognise` found in a file). Out: an `Architecture`, and from it
the shapes of every block (`block_shapes`), which the network and the importer share.

Sources: He et al. 2015 (arXiv:1512.03385) for the depths and the shortcut types A, B, C; He et al. 2016
(arXiv:1603.05027) for pre-activation; Xie et al. 2016 (arXiv:1611.05431) for groups; Zagoruyko and Komodakis 2016
(arXiv:1605.07146) for wide nets; models/resnet.lua and models/preresnet.lua of facebook/fb.resnet.torch for the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from resnet_tools.errors import CheckpointError
from resnet_tools.text import counted

Block = Literal["basic", "bottleneck"]
Order = Literal[
    "post-activation",  # conv, BN, ReLU, ..., conv, BN; addition; ReLU
    "bn-after-addition",  # as above, but the last BN comes after the addition (the published resnet-50)
    "pre-activation",  # BN, ReLU, conv, ...; where the width changes the shortcut takes the activated input
    "pre-activation-raw-shortcut",  # as above, but the shortcut always takes the raw input (the published resnet-200)
]
Stem = Literal["imagenet", "cifar"]  # 7 x 7 stride 2 and max pooling, or 3 x 3
ShortcutType = Literal["A", "B", "C"]  # zero-padded; 1 x 1 convolution where the shape changes; 1 x 1 everywhere
Pooling = Literal["average", "sum"]
Lead = Literal["none", "shared", "branch"]  # what the first BN and ReLU of a pre-activation block are applied to
ShortcutKind = Literal["identity", "conv", "zero-padded"]

COLOR_CHANNELS, GRAY_CHANNELS = 3, 1  # of the images that a net takes
MAX_STAGES = 4
POOL_WINDOW_PX: dict[Stem, int] = {"imagenet": 7, "cifar": 8}  # of the last pooling in the original


@dataclass(frozen=True)
class Architecture:
    """A residual net, complete enough to build it. The defaults are the choices of the original program.

    `widths` are the output channels of each stage, `inner_widths` those of the first convolution of its blocks.
    A net with `num_classes` 0 has no classifier: it gives features.

    >>> from resnet_tools import Architecture, build_resnet
    >>> architecture = build_resnet("cifar10-resnet-20").architecture
    >>> architecture.depth, architecture.widths
    (20, (16, 32, 64))
    >>> Architecture.from_dict(architecture.to_dict()) == architecture
    True
    """

    block: Block
    stages: tuple[int, ...]
    widths: tuple[int, ...]
    inner_widths: tuple[int, ...]
    stem_width: int
    order: Order = "post-activation"
    stem: Stem = "imagenet"
    stem_batch_norm: bool = True
    shortcut_type: ShortcutType = "B"
    shortcut_batch_norm: bool = True
    groups: int = 1
    conv_bias: bool = False
    pooling: Pooling = "average"
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1
    num_classes: int = 1000
    in_channels: int = COLOR_CHANNELS

    @property
    def depth(self) -> int:
        """Layers with weights on the longest path, as in the name of the net (50 for ResNet-50)."""
        return sum(self.stages) * (2 if self.block == "basic" else 3) + 2

    @property
    def feature_length(self) -> int:
        """Length D of the classifier's input."""
        return self.widths[-1]

    @property
    def pre_activation(self) -> bool:
        return self.order in ("pre-activation", "pre-activation-raw-shortcut")

    @property
    def parameters(self) -> int:
        """How many numbers are trained, without building the net."""
        shapes = list(block_shapes(self))
        stem = stem_shape(self)
        convolutions = [stem, *(conv for shape in shapes for conv in shape.convolutions)]
        batch_norms = [stem.outputs] if self.stem_batch_norm else []
        batch_norms += [self.feature_length] if self.pre_activation else []
        for shape in shapes:
            if shape.shortcut == "conv":
                convolutions.append(ConvShape(shape.inputs, shape.outputs, 1))
                batch_norms += [shape.outputs] if shape.shortcut_batch_norm else []
            first = 1 if self.pre_activation and shape.lead == "none" else 0
            batch_norms += [c.inputs if self.pre_activation else c.outputs for c in shape.convolutions[first:]]
        biases = sum(conv.outputs for conv in convolutions) if self.conv_bias else 0
        weights = sum(c.outputs * c.inputs // c.groups * c.kernel**2 for c in convolutions)
        return weights + biases + 2 * sum(batch_norms) + (self.feature_length + 1) * self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON and checkpoints; `from_dict` reads it back.

        `in_channels` is left out where it is 3, so that files of color nets stay as they were before it existed.
        """
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}
        if self.in_channels == COLOR_CHANNELS:
            del values["in_channels"]
        return {FILE_KEYS.get(key, key): value for key, value in values.items()}

    @staticmethod
    def from_dict(values: object) -> Architecture:
        """The inverse of `to_dict`, for values from an untrusted file.

        Raises: CheckpointError if a field is missing, unknown, of the wrong type or out of range.
        """
        return _checked_architecture(values)


@dataclass(frozen=True)
class ConvShape:
    """A convolution with padding (kernel - 1) / 2."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True)
class BlockShape:
    """One residual block: `stage` and `index` count from 1; parameter names have layerS.(index - 1)."""

    stage: int
    index: int
    order: Order
    lead: Lead
    convolutions: tuple[ConvShape, ...]
    shortcut: ShortcutKind
    stride: int
    shortcut_batch_norm: bool

    @property
    def inputs(self) -> int:
        return self.convolutions[0].inputs

    @property
    def outputs(self) -> int:
        return self.convolutions[-1].outputs


def stem_shape(architecture: Architecture) -> ConvShape:
    """The first convolution."""
    kernel, stride = (7, 2) if architecture.stem == "imagenet" else (3, 1)
    return ConvShape(architecture.in_channels, architecture.stem_width, kernel, stride)


def last_stage_px(architecture: Architecture, side_px: int) -> int:
    """The side of the last pooling's input for images of this side."""
    halvings = len(architecture.stages) - 1 + (2 if architecture.stem == "imagenet" else 0)
    for _ in range(halvings):
        side_px = (side_px - 1) // 2 + 1
    return side_px


def block_shapes(architecture: Architecture) -> Iterator[BlockShape]:
    """Every block from input to output."""
    inputs = architecture.stem_width
    for stage, count in enumerate(architecture.stages, 1):
        for index in range(1, count + 1):
            yield _block_shape(architecture, inputs, stage, index)
            inputs = architecture.widths[stage - 1]


def _block_shape(architecture: Architecture, inputs: int, stage: int, index: int) -> BlockShape:
    outputs, inner = architecture.widths[stage - 1], architecture.inner_widths[stage - 1]
    stride = 2 if stage > 1 and index == 1 else 1
    convolutions: tuple[ConvShape, ...]
    if architecture.block == "basic":
        convolutions = (
            ConvShape(inputs, inner, 3, stride, architecture.groups),
            ConvShape(inner, outputs, 3, 1, architecture.groups),
        )
    else:
        convolutions = (
            ConvShape(inputs, inner, 1),
            ConvShape(inner, inner, 3, stride, architecture.groups),
            ConvShape(inner, outputs, 1),
        )
    return BlockShape(
        stage,
        index,
        architecture.order,
        _lead(architecture, stage, index),
        convolutions,
        _shortcut_kind(architecture, inputs, outputs, stride),
        stride,
        architecture.shortcut_batch_norm,
    )


def _lead(architecture: Architecture, stage: int, index: int) -> Lead:
    """Where a pre-activation block has its leading BN and ReLU (preresnet.lua: no_preact, both_preact)."""
    if not architecture.pre_activation:
        return "none"
    if architecture.order == "pre-activation-raw-shortcut" or index > 1:
        return "branch"
    return "none" if stage == 1 and architecture.stem_batch_norm else "shared"


def _shortcut_kind(architecture: Architecture, inputs: int, outputs: int, stride: int) -> ShortcutKind:
    same_shape = inputs == outputs and stride == 1
    if architecture.shortcut_type == "C" or (architecture.shortcut_type == "B" and not same_shape):
        return "conv"
    return "identity" if same_shape else "zero-padded"


FILE_KEYS = {"num_classes": "classes"}  # fields that have another name in files and JSON output
_MAX_BLOCKS, _MAX_WIDTH, _MAX_CLASSES = 10_000, 1 << 20, 1 << 24


def _checked_architecture(values: object) -> Architecture:
    if not isinstance(values, Mapping):
        found = "missing" if values is None else f"a {type(values).__name__}"
        raise CheckpointError(f"the architecture is {found}; expected a table of its fields")
    known = {FILE_KEYS.get(field.name, field.name): field for field in dataclasses.fields(Architecture)}
    unknown = sorted(str(key) for key in set(values) - set(known))
    if unknown:
        raise CheckpointError(f"the architecture has the unknown fields {', '.join(unknown)}")
    missing = [key for key, f in known.items() if f.default is dataclasses.MISSING and key not in values]
    if missing:
        raise CheckpointError(f"the architecture lacks the fields {', '.join(missing)}")
    fields: dict[str, Any] = {known[k].name: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return check_architecture(Architecture(**fields))


def check_architecture(net: Architecture) -> Architecture:
    """The same, if such a net can be built. Raises: CheckpointError naming the field that makes it impossible."""
    for name, hint in get_type_hints(Architecture).items():
        _check_field(name, getattr(net, name), hint)
    if not len(net.stages) == len(net.widths) == len(net.inner_widths):
        raise CheckpointError("the architecture's stages, widths and inner_widths differ in length")
    if len(net.stages) > MAX_STAGES:
        raise CheckpointError(f"the architecture has {counted(len(net.stages), 'stage')}; expected 1 to {MAX_STAGES}")
    _check_ranges(net)
    return net


def _check_field(name: str, value: object, hint: Any) -> None:
    if hint == tuple[int, ...]:
        ok = isinstance(value, tuple) and 1 <= len(value) <= 64 and all(type(v) is int for v in value)
    elif hint is float:
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1  # false for nan
    elif hint in (int, bool):
        ok = type(value) is hint
    else:
        ok = isinstance(value, str) and value in get_args(hint)
    if not ok:
        raise CheckpointError(f"the architecture's {name} is {value!r:.80}, which is impossible")


def _check_ranges(net: Architecture) -> None:
    if any(n < 1 for n in net.stages) or sum(net.stages) > _MAX_BLOCKS:
        raise CheckpointError(
            f"the architecture's stages are {list(net.stages)}; expected 1 to {_MAX_BLOCKS} blocks in all"
        )
    widths = (*net.widths, *net.inner_widths, net.stem_width)
    if any(not 1 <= n <= _MAX_WIDTH for n in widths):
        raise CheckpointError(f"the architecture's widths {list(widths)} are not all in 1 to {_MAX_WIDTH}")
    if not 0 <= net.num_classes <= _MAX_CLASSES:
        raise CheckpointError(f"the architecture has {net.num_classes} classes; expected 0 to {_MAX_CLASSES}")
    if net.in_channels not in (COLOR_CHANNELS, GRAY_CHANNELS):
        raise CheckpointError(
            f"the architecture takes images of {counted(net.in_channels, 'channel')}; expected 3, or 1 for gray"
        )
    grouped = [
        n for shape in block_shapes(net) for c in shape.convolutions for n in (c.inputs, c.outputs) if c.groups > 1
    ]
    if net.groups < 1 or any(n % net.groups for n in grouped):
        raise CheckpointError(
            f"the architecture's {net.groups} groups do not divide its widths {list(net.inner_widths)}"
        )
