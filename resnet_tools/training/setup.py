"""Options -> the net that a run begins with, and the transforms that its images go through."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.data.augment import LIGHT, NO_AUGMENTATION, ORIGINAL_CIFAR, ORIGINAL_IMAGENET, Augmentation, augmented
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import CIFAR10, CIFAR100, IMAGENET, Preprocessing
from resnet_tools.errors import TrainingError
from resnet_tools.nets.resnet import ResNet, build_resnet, initialise_classifier
from resnet_tools.training.batches import Load
from resnet_tools.training.mixing import seeded
from resnet_tools.training.recipe import AugmentationName

PREPROCESSINGS = {"imagenet": IMAGENET, "cifar10": CIFAR10, "cifar100": CIFAR100}
NAMES_SHOWN = 5


@dataclass(frozen=True)
class NetOptions:
    """The model options of the original; None stands for its default. `n_classes` None: as many as the data has."""

    net_type: str | None = None
    depth: int | None = None
    shortcut_type: Any = None
    retrain: str | None = None
    reset_classifier: bool = False
    n_classes: int | None = None
    weights: str | None = None  # which net of `retrain`, if it holds several
    padded_classes: bool = False  # more outputs than classes are a warning and no error, as in the original


def starting_net(options: NetOptions, dataset: str, class_names: Sequence[str], seed: int) -> Checkpoint:
    """The net before the first step: a new one, or that of `retrain`, with a new classifier if asked for.

    Raises: CheckpointError and its like for a file, TrainingError if net and classes of the data do not fit.
    """
    count = _output_count(options, len(class_names))
    if options.retrain is None:
        with seeded(seed):
            net = build_resnet(
                depth=options.depth,
                dataset=dataset,
                net_type=options.net_type,
                shortcut_type=options.shortcut_type,
                num_classes=count,
            )
        return Checkpoint(net, net.architecture, _padded(class_names, count), PREPROCESSINGS[dataset], "new")
    checkpoint = load_checkpoint(options.retrain, weights=options.weights)
    check_stem(checkpoint, dataset, options.retrain)
    if options.reset_classifier:
        with seeded(seed):
            reset_classifier(checkpoint.model, count)
        return replace(checkpoint, architecture=checkpoint.model.architecture, class_names=_padded(class_names, count))
    return replace(checkpoint, class_names=kept_classes(checkpoint, class_names, options))


def reset_classifier(model: ResNet, num_classes: int) -> None:
    """Replace the last layer, in place, by a new one with `classes` outputs; the rest stays.

    Source: models/init.lua of facebook/fb.resnet.torch (-resetClassifier).
    """
    model.fc = nn.Linear(model.architecture.feature_length, num_classes)
    initialise_classifier(model.fc)
    model.architecture = replace(model.architecture, num_classes=num_classes)


def _output_count(options: NetOptions, found: int) -> int:
    wanted = options.n_classes
    if wanted is None or wanted == found:
        return found
    text = f"--n-classes is {wanted}, but train/ has {found} classes"
    if wanted < found or not options.padded_classes:
        raise TrainingError(f"{text}; leave the option out to have them counted")
    warnings.warn(f"{text}: {wanted - found} outputs stand for no class", stacklevel=3)
    return wanted


def _padded(class_names: Sequence[str], count: int) -> list[str]:
    return [*class_names, *(f"class {number}" for number in range(len(class_names) + 1, count + 1))]


def check_stem(checkpoint: Checkpoint, dataset: str, path: str) -> None:
    """Raises: TrainingError if a net for small images is to train on large ones, or the reverse."""
    stem = checkpoint.architecture.stem
    if (stem == "imagenet") != (dataset == "imagenet"):
        raise TrainingError(
            f"{path}: a net with the {stem} stem cannot train on --dataset {dataset}; give the data set of its kind"
        )


def kept_classes(checkpoint: Checkpoint, class_names: Sequence[str], options: NetOptions) -> list[str]:
    """The names for the net's own outputs. Raises: TrainingError unless they are the data's classes."""
    outputs = checkpoint.architecture.num_classes
    if options.n_classes not in (None, outputs):
        raise TrainingError(
            f"{options.retrain} has {outputs} outputs, not {options.n_classes}; give --reset-classifier"
        )
    known = checkpoint.class_names
    if known is not None and list(known[: len(class_names)]) != list(class_names):
        new = sorted(set(class_names) - set(known)) or list(class_names)
        raise TrainingError(
            f"the data's classes are not those of {options.retrain}: {', '.join(new[:NAMES_SHOWN])}"
            f"{', ...' if len(new) > NAMES_SHOWN else ''}; give --reset-classifier to train a new classifier"
        )
    if outputs < len(class_names):
        raise TrainingError(
            f"{options.retrain} has {outputs} outputs and the data {len(class_names)} classes; give --reset-classifier"
        )
    if outputs > len(class_names):
        text = f"{options.retrain} has {outputs} outputs and the data only {len(class_names)} classes"
        if known is None and not options.padded_classes:
            raise TrainingError(f"{text}; give --reset-classifier")
        warnings.warn(f"{text}: the others stand for no class", stacklevel=4)
    return list(known) if known is not None else _padded(class_names, outputs)


def augmentation(name: AugmentationName, dataset: str) -> Augmentation:
    """What is drawn for a training image. `trivial` has one more operation, see `_trivial_view`."""
    if name == "none":
        return NO_AUGMENTATION
    if dataset != "imagenet":
        return ORIGINAL_CIFAR
    return {"original": ORIGINAL_IMAGENET, "light": LIGHT, "trivial": replace(LIGHT, min_area=0.08)}[name]


def image_loader(name: AugmentationName, dataset: str, preprocessing: Preprocessing) -> Load:
    """What turns an image of the training set into (3, crop, crop); a plain value for loader processes."""
    view = _trivial_view if name == "trivial" else _view
    return partial(view, preprocessing=preprocessing, augmentation=augmentation(name, dataset))


def _view(
    image: Any, generator: np.random.Generator, *, preprocessing: Preprocessing, augmentation: Augmentation
) -> Tensor:
    return augmented(image, preprocessing, augmentation, generator)


def _trivial_view(
    image: Any, generator: np.random.Generator, *, preprocessing: Preprocessing, augmentation: Augmentation
) -> Tensor:
    """A crop with one random operation of TrivialAugment (arXiv:2103.10158), normalised."""
    from torchvision.transforms import v2

    plain = replace(preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), pixel_max=255.0)
    crop = augmented(image, plain, augmentation, generator)
    with seeded(int(generator.integers(1 << 62))):
        changed = v2.TrivialAugmentWide()(crop.round().clamp(0, 255).to(torch.uint8))
    white = 255 / preprocessing.pixel_max
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    normalised: Tensor = (changed / white - mean) / std
    return normalised


def digest_of(samples: Samples) -> str:
    """What the samples are: a hash of names and targets."""
    digest = hashlib.sha256(repr(list(samples.class_names)).encode("utf-8", "surrogateescape"))
    for k in range(len(samples)):
        name = os.path.basename(samples.name(k)).encode("utf-8", "surrogateescape")
        digest.update(b"%d %s\0" % (samples.targets[k], name))
    return digest.hexdigest()
