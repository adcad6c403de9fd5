"""A net that a program holds -> a checkpoint, so that it is saved and run as one from a file."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from resnet_tools.checkpoints.checkpoint import Checkpoint, default_preprocessing
from resnet_tools.checkpoints.saving import save_model
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import CheckpointError
from resnet_tools.nets.resnet import ResNet
from resnet_tools.nets.state_dict import load_resnet
from resnet_tools.text import counted

IN_PYTHON = "python"  # the `format` of a checkpoint that no file holds
WRAPPED_IN = (
    "_orig_mod",
    "module",
)  # by torch.compile; DistributedDataParallel, averages of weights


def save_checkpoint(
    model: Checkpoint | nn.Module,
    path: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write a net to one file, `.pt` or `.safetensors` by the ending of `path`, with all that is needed to use it.

    model: a net of `build_resnet` or of a loaded checkpoint, also trained, on a GPU, or inside `torch.compile` or
    `DistributedDataParallel`; or a `Checkpoint`. The net itself is not changed.
    class_names: K names in the order of the outputs; without them those of the checkpoint, if it is one.
    preprocessing: how images are prepared; without it the checkpoint's, or that of ImageNet (or CIFAR) by the form of
    the net. `load_checkpoint` reads the file; an existing one is replaced when the new one is whole.
    Raises: CheckpointError if the net is of another kind or has been taken apart, if the names do not fit its outputs,
    for another ending, or if the file cannot be written.

    >>> from resnet_tools import build_resnet, load_checkpoint, save_checkpoint
    >>> net = build_resnet("cifar10-resnet-20", num_classes=2)
    >>> save_checkpoint(net, "squares.pt", class_names=["dark", "light"])
    >>> load_checkpoint("squares.pt").class_names
    ['dark', 'light']
    """
    save_model(checkpoint_of(model, class_names, preprocessing), path)


def checkpoint_of(
    model: Any, class_names: Sequence[str] | None = None, preprocessing: Preprocessing | None = None
) -> Checkpoint:
    """The same as a `Checkpoint`, whose net is a copy on the CPU in eval mode. Raises: CheckpointError."""
    if isinstance(model, Checkpoint):
        own = checkpoint_of(model.model, class_names or model.class_names, preprocessing or model.preprocessing)
        return replace(own, format=model.format, no_classifier=model.no_classifier)
    net = _unwrapped(model)
    outputs = _outputs(net)
    architecture = replace(net.architecture, num_classes=outputs)
    state = {name: value.detach().float().cpu().clone() for name, value in net.state_dict().items()}
    state = {name: value if "num_batches" not in name else value.long() for name, value in state.items()}
    try:
        whole = load_resnet(architecture, state)
    except CheckpointError as error:
        raise CheckpointError(
            f"the net is not as it was built, such as one whose batch norms were folded: {error}"
        ) from error
    prepared = preprocessing or default_preprocessing(architecture)
    if prepared.channels != architecture.in_channels:
        raise CheckpointError(
            f"the preprocessing gives images of {counted(prepared.channels, 'channel')}; the net takes "
            f"{architecture.in_channels}. preprocessing.for_channels({architecture.in_channels}) fits"
        )
    return Checkpoint(whole, architecture, _checked(class_names, outputs), prepared, IN_PYTHON)


def _unwrapped(model: Any) -> ResNet:
    found = model
    while isinstance(found, nn.Module) and not isinstance(found, ResNet):
        inside = next((getattr(found, name) for name in WRAPPED_IN if hasattr(found, name)), None)
        if inside is None:
            break
        found = inside
    if not isinstance(found, ResNet):
        raise CheckpointError(
            f"{type(model).__name__} is no net of this package; give a Checkpoint, or a net of build_resnet. A net of "
            "another library is loaded from its file by load_checkpoint"
        )
    return found


def _outputs(net: ResNet) -> int:
    """Of the classifier that is there, which may be another than the one that the net was built with; 0 without one."""
    if isinstance(net.fc, nn.Linear):
        return net.fc.out_features
    return 0 if isinstance(net.fc, nn.Identity) else net.architecture.num_classes


def _checked(class_names: Sequence[str] | None, count: int) -> list[str] | None:
    if class_names is None:
        return None
    names = [class_names] if isinstance(class_names, str) else list(class_names)
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{len(names)} class names are given; expected {count} texts, one for each output")
    return [str(name) for name in names]


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """The same with a net of its own."""
    return replace(checkpoint, model=copy.deepcopy(checkpoint.model))
