"""Options -> the net that a training starts from: a new one, or one from a file, with or without a new classifier."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.data.transforms import CIFAR10, CIFAR100, IMAGENET, Preprocessing
from resnet_tools.errors import TrainingError
from resnet_tools.nets.resnet import ResNet, build_resnet, initialise_classifier
from resnet_tools.text import counted
from resnet_tools.training.mixing import seeded

PREPROCESSINGS = {"imagenet": IMAGENET, "cifar10": CIFAR10, "cifar100": CIFAR100}
NAMES_SHOWN = 5
CIFAR_DEPTH = 20


@dataclass(frozen=True)
class NetOptions:
    """The model options of the original, None for its defaults. `n_classes` None: as many as the data set has.

    allow_unused_outputs: more outputs than classes cause a warning, as the original accepts them, and no error.
    """

    net_type: str | None = None
    depth: int | None = None
    shortcut_type: Any = None
    retrain: str | None = None
    reset_classifier: bool = False
    n_classes: int | None = None
    arch: str | None = None
    stem: str | None = None
    in_channels: int | None = None
    weights: str | None = None  # which net of `retrain`, if it holds several
    allow_unused_outputs: bool = False


def initial_checkpoint(options: NetOptions, dataset: str, class_names: Sequence[str], seed: int) -> Checkpoint:
    """The net before the first step: a new one, or the one in the file `retrain`, with a new classifier on request.

    Raises: CheckpointError, T7Error and the like for the file; TrainingError if the net does not fit the data.
    """
    count = _output_count(options, len(class_names))
    if options.retrain is None:
        with seeded(seed):
            net = _new_net(options, dataset, count)
        preprocessing = _preprocessing(net, dataset).for_channels(net.architecture.in_channels)
        return Checkpoint(net, net.architecture, padded(class_names, count), preprocessing, "new")
    checkpoint = load_checkpoint(options.retrain, weights=options.weights)
    check_stem(checkpoint, dataset, options.retrain)
    if options.reset_classifier:
        with seeded(seed):
            reset_classifier(checkpoint.model, count)
        return replace(checkpoint, architecture=checkpoint.model.architecture, class_names=padded(class_names, count))
    return replace(checkpoint, class_names=kept_classes(checkpoint, class_names, options))


def _new_net(options: NetOptions, dataset: str, count: int) -> ResNet:
    if options.arch is not None:
        return build_resnet(options.arch, num_classes=count, in_channels=options.in_channels)
    form = {None: dataset, "imagenet": "imagenet", "cifar": dataset if dataset != "imagenet" else "cifar10"}
    return build_resnet(
        depth=options.depth or (CIFAR_DEPTH if options.stem == "cifar" else None),
        dataset=form[options.stem],
        net_type=options.net_type,
        shortcut_type=options.shortcut_type,
        num_classes=count,
        in_channels=options.in_channels,
    )


def _preprocessing(net: ResNet, dataset: str) -> Preprocessing:
    """That of the data set, unless the net has the form for images of another size."""
    usual = PREPROCESSINGS[dataset]
    if net.architecture.stem == "imagenet":
        return IMAGENET
    return replace(usual, resize_px=CIFAR10.resize_px, crop_px=CIFAR10.crop_px)


def reset_classifier(model: ResNet, num_classes: int) -> None:
    """Replace the last layer, in place, by a new one with `num_classes` outputs.

    Source: models/init.lua of facebook/fb.resnet.torch (-resetClassifier).
    """
    model.fc = nn.Linear(model.architecture.feature_length, num_classes)
    initialise_classifier(model.fc)
    model.architecture = replace(model.architecture, num_classes=num_classes)


def _output_count(options: NetOptions, found: int) -> int:
    wanted = options.n_classes
    if wanted is None or wanted == found:
        return found
    text = f"--n-classes is {wanted}, but train/ has {counted(found, 'class')}"
    if wanted < found or not options.allow_unused_outputs:
        raise TrainingError(f"{text}; leave the option out to use that number")
    warnings.warn(f"{text}: {wanted - found} outputs stand for no class", stacklevel=3)
    return wanted


def padded(class_names: Sequence[str], count: int) -> list[str]:
    return [*class_names, *(f"class {number}" for number in range(len(class_names) + 1, count + 1))]


def check_stem(checkpoint: Checkpoint, dataset: str, path: str) -> None:
    """Raises: TrainingError if a net for large images is to train on those of CIFAR.

    A net of CIFAR's form may train on a folder: its preprocessing scales the images to the size that it knows.
    """
    stem = checkpoint.architecture.stem
    if stem == "imagenet" and dataset != "imagenet":
        raise TrainingError(
            f"{path}: a net with the {stem} stem cannot train on --dataset {dataset}; give a data set of that kind"
        )


def kept_classes(checkpoint: Checkpoint, class_names: Sequence[str], options: NetOptions) -> list[str]:
    """The names of the net's outputs. Raises: TrainingError unless they are the classes of the data."""
    outputs = checkpoint.architecture.num_classes
    if options.n_classes not in (None, outputs):
        raise TrainingError(
            f"{options.retrain} has {counted(outputs, 'output')}, not {options.n_classes}; give --reset-classifier"
        )
    known = checkpoint.class_names
    if known is not None and list(known[: len(class_names)]) != list(class_names):
        new = sorted(set(class_names) - set(known)) or list(class_names)
        raise TrainingError(
            f"the classes of the data are not those of {options.retrain}: {', '.join(new[:NAMES_SHOWN])}"
            f"{', ...' if len(new) > NAMES_SHOWN else ''}; give --reset-classifier to train a new classifier"
        )
    if outputs < len(class_names):
        raise TrainingError(
            f"{options.retrain} has {counted(outputs, 'output')} and the data has "
            f"{counted(len(class_names), 'class')}; "
            "give --reset-classifier"
        )
    if outputs > len(class_names):
        text = (
            f"{options.retrain} has {counted(outputs, 'output')} and the data has only "
            f"{counted(len(class_names), 'class')}"
        )
        if known is None and not options.allow_unused_outputs:
            raise TrainingError(f"{text}; give --reset-classifier")
        warnings.warn(f"{text}: the others stand for no class", stacklevel=4)
    return list(known) if known is not None else padded(class_names, outputs)
