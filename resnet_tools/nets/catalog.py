"""The architectures that have a name, and the checkpoints that were published with them.

In: a name (`resnet-50`), or the original's options (depth, data set, net type, shortcut type). Out: an `Architecture`.

Sources: models/resnet.lua, models/preresnet.lua and pretrained/README.md of facebook/fb.resnet.torch; for what the
published files really hold, its issues 41, 45, 49, 117 and 191.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from resnet_tools.errors import ResnetToolsError
from resnet_tools.nets.architecture import GRAY_CHANNELS, Architecture, Block, ShortcutType

EXPANSION = 4  # output channels of a standard bottleneck per channel of its 3 x 3 convolution

STAGES_BY_DEPTH: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}


def architecture(
    depth: int = 34,
    *,
    dataset: str = "imagenet",
    net_type: str = "resnet",
    shortcut_type: ShortcutType | None = None,
    num_classes: int | None = None,
) -> Architecture:
    """What the original builds for `-depth -dataset -netType -shortcutType` (its defaults are ours).

    depth: 18, 34, 50, 101, 152 or 200 for `imagenet`; 6 n + 2 for `cifar10` and `cifar100`.
    net_type: `resnet` (post-activation) or `preresnet` (pre-activation).
    shortcut_type: `B` for imagenet and `A` for CIFAR by default.
    Raises: ResnetToolsError if there is no such net.
    """
    if net_type not in ("resnet", "preresnet"):
        raise ResnetToolsError(f"net type {net_type!r} is unknown; expected resnet or preresnet")
    if dataset == "imagenet":
        if depth not in STAGES_BY_DEPTH:
            raise ResnetToolsError(f"depth {depth} is not one of {', '.join(map(str, STAGES_BY_DEPTH))}")
        block, stages = STAGES_BY_DEPTH[depth]
        net = _standard(block, stages, shortcut_type or "B", net_type, num_classes or 1000)
    elif dataset in CIFAR_CLASSES:
        if depth < 8 or (depth - 2) % 6:
            raise ResnetToolsError(f"depth {depth} is not 6 n + 2 (8, 14, 20, 32, 44, 56, 110, 1202, ...)")
        net = _cifar((depth - 2) // 6, shortcut_type or "A", net_type, num_classes or CIFAR_CLASSES[dataset])
    else:
        raise ResnetToolsError(f"data set {dataset!r} is unknown; expected imagenet, cifar10 or cifar100")
    if net.shortcut_type == "A" and net.block == "bottleneck":
        raise ResnetToolsError(
            f"shortcut type A doubles the channels, which does not fit the bottlenecks of depth {depth}"
        )
    return net


def _standard(
    block: Block, stages: tuple[int, ...], shortcut_type: ShortcutType, net_type: str, num_classes: int
) -> Architecture:
    inner = tuple(64 * 2**i for i in range(len(stages)))
    return Architecture(
        block=block,
        stages=stages,
        widths=tuple(n * EXPANSION for n in inner) if block == "bottleneck" else inner,
        inner_widths=inner,
        stem_width=64,
        order="pre-activation" if net_type == "preresnet" else "post-activation",
        shortcut_type=shortcut_type,
        shortcut_batch_norm=net_type == "resnet",
        num_classes=num_classes,
    )


def _cifar(blocks: int, shortcut_type: ShortcutType, net_type: str, num_classes: int) -> Architecture:
    return Architecture(
        block="basic",
        stages=(blocks,) * 3,
        widths=(16, 32, 64),
        inner_widths=(16, 32, 64),
        stem_width=16,
        order="pre-activation" if net_type == "preresnet" else "post-activation",
        stem="cifar",
        stem_batch_norm=net_type == "resnet",
        shortcut_type=shortcut_type,
        shortcut_batch_norm=net_type == "resnet",
        num_classes=num_classes,
    )


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A file of 2016 and its error in percent on ImageNet's validation images, one central crop and ten crops.

    Source: pretrained/README.md and README.md of facebook/fb.resnet.torch.
    """

    file: str
    architecture: Architecture
    top1_error: float
    top5_error: float
    ten_crop_top1_error: float
    ten_crop_top5_error: float
    note: str
    large_crop_errors: tuple[float, float] | None = None  # top-1 and top-5 of one central crop of 320 x 320 pixels

    @property
    def address(self) -> str:
        return PUBLISHED_FILES_AT + self.file


def _published_architecture(depth: int) -> Architecture:
    """The published files predate the final model code: see `Order` and the notes of `PUBLISHED`."""
    net = architecture(depth)
    if depth in (18, 34):
        return replace(net, shortcut_batch_norm=False)
    if depth == 50:
        return replace(net, order="bn-after-addition", shortcut_batch_norm=False)
    return replace(net, order="pre-activation-raw-shortcut") if depth == 200 else net


_BARE = "shortcut convolutions without batch norm"
_LARGE_CROP_ERRORS = {200: (20.1, 4.8)}
PUBLISHED_AT = "https://github.com/facebook/fb.resnet.torch/tree/master/pretrained"
PUBLISHED_FILES_AT = "https://d2j0dndfm35trm.cloudfront.net/"
PUBLISHED_IMAGES = 50_000  # of 1000 classes: what the errors were measured on
PUBLISHED: tuple[PublishedCheckpoint, ...] = tuple(
    PublishedCheckpoint(
        f"resnet-{depth}.t7",
        _published_architecture(depth),
        top1,
        top5,
        ten_top1,
        ten_top5,
        note,
        _LARGE_CROP_ERRORS.get(depth),
    )
    for depth, top1, top5, ten_top1, ten_top5, note in (
        (18, 30.43, 10.76, 28.22, 9.42, _BARE),
        (34, 26.73, 8.74, 24.76, 7.35, _BARE),
        (50, 24.01, 7.02, 22.24, 6.08, f"batch norm after the addition, {_BARE}"),
        (101, 22.44, 6.21, 21.08, 5.35, ""),
        (152, 22.16, 6.16, 20.69, 5.21, ""),
        (200, 21.66, 5.79, 20.15, 4.93, "pre-activation, shortcuts take the raw input"),
    )
)


def published_checkpoint(name: str) -> PublishedCheckpoint | None:
    """The published file that `resnet-50.t7`, `resnet-50` or `published-resnet-50` stands for, in any case; or None."""
    file = name.lower().removeprefix("published-").removesuffix(".t7") + ".t7"
    return next((published for published in PUBLISHED if published.file == file), None)


def download_advice(name: str) -> str:
    """What to do where a model of that name is not on the disk."""
    if name.lower().startswith("https://"):
        return f"`resnet download {name}` fetches the file at an address"
    names = ", ".join(published.file for published in PUBLISHED)
    wanted = published_checkpoint(os.path.basename(name)) or PUBLISHED[2]
    return f"The published files are {names}; `resnet download {wanted.file}` fetches one of them"


def is_same_net(found: Architecture, published: PublishedCheckpoint) -> bool:
    return replace(found, bn_eps=1e-5, bn_momentum=0.1) == published.architecture


def named_architecture(name: str) -> Architecture:
    """The architecture called `name`, one of `architecture_names()`.

    Raises: ResnetToolsError for another name, with the list of names.
    """
    if name not in _NAMED:
        raise ResnetToolsError(f"{name!r} names no architecture; the names are {', '.join(architecture_names())}")
    return _NAMED[name]


def _named_architectures() -> dict[str, Architecture]:
    named = {f"resnet-{depth}": architecture(depth) for depth in STAGES_BY_DEPTH}
    named |= {f"preresnet-{depth}": architecture(depth, net_type="preresnet") for depth in STAGES_BY_DEPTH}
    named |= {f"published-{p.file.removesuffix('.t7')}": p.architecture for p in PUBLISHED}
    for dataset in CIFAR_CLASSES:
        for net_type in ("resnet", "preresnet"):
            for depth in (20, 32, 44, 56, 110, 1202):
                named[f"{dataset}-{net_type}-{depth}"] = architecture(depth, dataset=dataset, net_type=net_type)
    for depth, groups, width in ((50, 32, 4), (101, 32, 8), (101, 64, 4)):
        inner = tuple(groups * width * 2**i for i in range(4))
        named[f"resnext-{depth}-{groups}x{width}d"] = replace(
            named[f"resnet-{depth}"], groups=groups, inner_widths=inner
        )
    for depth in (50, 101):
        net = named[f"resnet-{depth}"]
        named[f"wide-resnet-{depth}-2"] = replace(net, inner_widths=tuple(2 * n for n in net.inner_widths))
    return named


_NAMED = _named_architectures()


def architecture_names() -> list[str]:
    """The names that `named_architecture` and `build_resnet` take."""
    return list(_NAMED)


def published_errors(
    net: Architecture, images: int, *, resize_px: int, crop_px: int, ten_crop: bool
) -> tuple[float, float] | None:
    """The top-1 and top-5 error in percent that a net of this architecture was published with, for the same crops.

    None for other nets, other numbers of images and other crops.
    """
    found = next((published for published in PUBLISHED if is_same_net(net, published)), None)
    if found is None or images != PUBLISHED_IMAGES:
        return None
    return {
        (256, 224, False): (found.top1_error, found.top5_error),
        (256, 224, True): (found.ten_crop_top1_error, found.ten_crop_top5_error),
        (320, 320, False): found.large_crop_errors,
    }.get((resize_px, crop_px, ten_crop))


def architecture_name(net: Architecture) -> str | None:
    """The name of this architecture whatever its number of classes, or None if it has none."""
    plain = replace(net, bn_eps=1e-5, bn_momentum=0.1)
    for name, named in _NAMED.items():
        if plain == replace(named, num_classes=net.num_classes):
            return name
    return None


def describe(net: Architecture) -> str:
    """One line for people: `ResNet-50: bottleneck blocks [3, 4, 6, 3], ...`."""
    name = architecture_name(net)
    family = "PreResNet" if net.pre_activation else "ResNeXt" if net.groups > 1 else "ResNet"
    kind = {"A": "zero-padded", "B": "1 x 1 convolution where the width changes", "C": "1 x 1 convolution everywhere"}
    parts = [
        f"{net.block} blocks {list(net.stages)}",
        f"{net.order} order",
        f"widths {list(net.widths)}",
        f"shortcut type {net.shortcut_type} ({kind[net.shortcut_type]}"
        + (")" if net.shortcut_type == "A" else f", {'with' if net.shortcut_batch_norm else 'without'} batch norm)"),
        f"{'7 x 7' if net.stem == 'imagenet' else '3 x 3'} stem of width {net.stem_width}",
        f"{net.num_classes} classes",
    ]
    parts += [f"{net.groups} groups"] if net.groups > 1 else []
    parts += [f"{net.in_channels} input channel"] if net.in_channels == GRAY_CHANNELS else []
    parts += ["convolution biases"] if net.conv_bias else []
    parts += ["summing pooling"] if net.pooling == "sum" else []
    return f"{family}-{net.depth}{f' ({name})' if name else ''}: {', '.join(parts)}"
