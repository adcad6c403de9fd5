"""Module tree -> Architecture, or an error that names the first module that does not fit.

The architecture is guessed from a few modules (the stem, the first block of each stage); then the whole net that it
implies is compared with the tree, module by module (`template.bind`). So nothing is assumed from a file's name or its
depth, and exactly those nets are accepted that `nets.resnet` computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resnet_tools.errors import RecognitionError
from resnet_tools.nets.architecture import (
    COLOR_CHANNELS,
    GRAY_CHANNELS,
    MAX_STAGES,
    Architecture,
    Order,
    Pooling,
    ShortcutType,
    last_stage_px,
)
from resnet_tools.torch7.modules import Module
from resnet_tools.torch7.outline import (
    AVERAGE_POOL,
    BN,
    CONV,
    FLATTEN,
    LINEAR,
    MAX_POOL,
    Block,
    Net,
    conv_shape,
    misfit,
    outline,
)
from resnet_tools.torch7.template import Bound, bind

MAX_CROP_PX = 4096  # images resized for it stay within the limit for images


def recognise(tree: Module) -> Architecture:
    """The architecture of a net.

    Raises: RecognitionError naming the first module that does not fit and what was expected there.
    """
    return recognise_and_bind(tree)[0]


def recognise_and_bind(tree: Module) -> tuple[Architecture, Bound]:
    """The architecture of a net, and which of its modules hold which parameters; see `recognise` and `bind`."""
    net = outline(tree)
    architecture = _guess(net)
    bound = bind(net, architecture)
    _check_eps([module for module, _ in bound.values()], architecture)
    return architecture, bound


def crop_px(tree: Module, architecture: Architecture) -> int | None:
    """The side of the images that the last pooling window of a recognised net fits in Lua; None if unknown.

    Several sides may lead to the same window; then the one that cudnn stored in the first convolution counts,
    otherwise the largest.
    """
    window = [module for module in tree.walk() if module.kind == AVERAGE_POOL][-1].number("kW", 1)
    first = next(module for module in tree.walk() if module.kind == CONV)
    noted = first.item.get("iSize")
    if isinstance(noted, np.ndarray) and noted.shape == (4,):
        height, width = (int(side) for side in noted[2:])
        if height == width and 0 < height <= MAX_CROP_PX and last_stage_px(architecture, height) == window:
            return height
    largest = window << (len(architecture.stages) - 1 + (2 if architecture.stem == "imagenet" else 0))
    return largest if 0 < largest <= MAX_CROP_PX else None


def _guess(net: Net) -> Architecture:
    # Only a guess: one module decides each choice. `bind` then checks all others, so nothing here has to look twice.
    first = net.blocks[0]
    if len(first.convolutions) not in (2, 3):
        where = first.branch[0] if first.branch else first.module
        raise misfit(where, f"a branch of two or three convolutions; this one has {len(first.convolutions)}")
    stages = _stages(net.blocks)
    order = _order(net.blocks)
    shortcut_type, shortcut_batch_norm = _shortcut(net.blocks, order)
    stem_conv = next((m for m in net.stem if m.kind == CONV), None)
    if stem_conv is None:
        raise misfit(net.stem[0] if net.stem else first.module, "the nn.SpatialConvolution of the stem")
    batch_norms = [m for m in net.root.walk() if m.kind == BN]
    return Architecture(
        block="basic" if len(first.convolutions) == 2 else "bottleneck",
        stages=tuple(len(blocks) for blocks in stages),
        widths=tuple(conv_shape(blocks[0].convolutions[-1]).outputs for blocks in stages),
        inner_widths=tuple(conv_shape(blocks[0].convolutions[0]).outputs for blocks in stages),
        stem_width=conv_shape(stem_conv).outputs,
        order=order,
        stem="imagenet" if any(m.kind == MAX_POOL for m in net.stem) else "cifar",
        stem_batch_norm=any(m.kind == BN for m in net.stem),
        shortcut_type=shortcut_type,
        shortcut_batch_norm=shortcut_batch_norm,
        groups=first.convolutions[-2].number("groups", 1),
        conv_bias=any(m.tensors["bias"].any() for m in net.root.walk() if m.kind == CONV and "bias" in m.tensors),
        pooling=_pooling(net.head),
        bn_eps=_fraction(batch_norms[0], "eps", 1e-5) if batch_norms else 1e-5,
        bn_momentum=_fraction(batch_norms[0], "momentum", 0.1) if batch_norms else 0.1,
        num_classes=_classes(net),
        in_channels=GRAY_CHANNELS if conv_shape(stem_conv).inputs == GRAY_CHANNELS else COLOR_CHANNELS,
    )


def _stages(blocks: Sequence[Block]) -> list[list[Block]]:
    """A stage begins where a convolution has stride 2 or the width changes."""
    stages: list[list[Block]] = []
    for block in blocks:
        if not block.convolutions:
            raise misfit(block.branch[0] if block.branch else block.module, "a branch of convolutions")
        width = conv_shape(block.convolutions[-1]).outputs
        strided = any(conv.number("dW", 1) > 1 for conv in block.convolutions)
        if not stages or strided or width != conv_shape(stages[-1][0].convolutions[-1]).outputs:
            stages.append([])
        if len(stages) > MAX_STAGES:
            raise misfit(block.module, f"no more than {MAX_STAGES} stages before it, each with another stride or width")
        stages[-1].append(block)
    return stages


def _order(blocks: Sequence[Block]) -> Order:
    if any(step.kind == BN for step in blocks[0].tail):
        return "bn-after-addition"
    if blocks[0].tail:
        return "post-activation"
    # Pre-activation. In the one order a block whose shape changes activates its input for branch and shortcut alike
    # (`shared`); in the other every branch begins with its own batch norm, that of the very first block too.
    raw = not any(block.shared for block in blocks) and blocks[0].branch[0].kind == BN
    return "pre-activation-raw-shortcut" if raw else "pre-activation"


def _shortcut(blocks: Sequence[Block], order: Order) -> tuple[ShortcutType, bool]:
    projections = [block for block in blocks if any(step.kind == CONV for step in block.shortcut)]
    if not projections:
        padded = any(block.shortcut for block in blocks)
        return ("A" if padded else "B"), order in ("post-activation", "pre-activation-raw-shortcut")
    everywhere = any(_keeps_shape(block) for block in projections)
    return ("C" if everywhere else "B"), any(s.kind == BN for block in projections for s in block.shortcut)


def _keeps_shape(block: Block) -> bool:
    shapes = [conv_shape(conv) for conv in block.convolutions]
    return shapes[0].inputs == shapes[-1].outputs and all(shape.stride == 1 for shape in shapes)


def _pooling(head: Sequence[Module]) -> Pooling:
    """nn.SpatialAveragePooling without the field `divide` (2015) sums over its window."""
    pool = next((m for m in head if m.kind == AVERAGE_POOL), None)
    if pool is None or pool.class_name != "nn.SpatialAveragePooling":
        return "average"
    return "average" if pool.fields.get("divide", False) else "sum"


def _classes(net: Net) -> int:
    last = net.head[-1] if net.head else net.root
    if last.kind in (AVERAGE_POOL, *FLATTEN):
        return 0  # the classifier was removed
    if last.kind != LINEAR or "weight" not in last.tensors or last.tensors["weight"].ndim != 2:
        raise misfit(last, "the nn.Linear of the classifier at the end, with a weight of two dimensions")
    return int(last.tensors["weight"].shape[0])


def _fraction(batch_norm: Module, name: str, default: float) -> float:
    value = batch_norm.fields.get(name, default)
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise RecognitionError(f"{batch_norm.where} ({batch_norm.class_name}): {name} is {value!r}; expected 0 to 1")
    return float(value)


def _check_eps(modules: Sequence[Module], architecture: Architecture) -> None:
    for module in modules:
        if module.kind == BN and _fraction(module, "eps", 1e-5) != architecture.bn_eps:
            raise RecognitionError(
                f"{module.where} ({module.class_name}): eps is {module.fields.get('eps')}; "
                f"expected {architecture.bn_eps}, as in the batch norms before it"
            )
