"""The path of a net, or one that a program holds and that stays as it is -> a net that can be run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path as FilePath

from torch import nn

from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.checkpoints.model_files import model_path
from resnet_tools.checkpoints.nets_in_python import checkpoint_of, copied
from resnet_tools.checkpoints.onnx_files import OnnxCheckpoint
from resnet_tools.checkpoints.runnable import Classifier, Runnable, load_runnable, ready_classifier, require_classifier
from resnet_tools.data.labels import output_names, read_labels
from resnet_tools.errors import CheckpointError
from resnet_tools.jobs.running import Running

Path = str | os.PathLike[str]
GivenNet = Path | Runnable | nn.Module
ClassNames = Path | Sequence[str]  # a file of names, or the names


def given_net(checkpoint: GivenNet, weights: str | None = None) -> Runnable:
    """The net in a file, or a copy of one that is loaded. Raises: ResnetToolsError."""
    if isinstance(checkpoint, (str, os.PathLike)):
        return load_runnable(checkpoint, weights=weights)
    if weights is not None:
        raise CheckpointError(f"weights={weights!r} chooses among the nets in a file, and a loaded net is given")
    if isinstance(checkpoint, OnnxCheckpoint):
        return checkpoint
    return copied(checkpoint) if isinstance(checkpoint, Checkpoint) else checkpoint_of(checkpoint)


def name_of_net(checkpoint: GivenNet) -> str:
    """What it is called in messages and results."""
    return os.fsdecode(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else "a net in Python"


def file_of(checkpoint: GivenNet) -> FilePath | None:
    """The file that holds it, if there is one. Raises: CheckpointError if a path leads to none."""
    if isinstance(checkpoint, (str, os.PathLike)):
        return model_path(checkpoint)
    return checkpoint.model.path if isinstance(checkpoint, OnnxCheckpoint) else None


def given_classifier(
    checkpoint: GivenNet, running: Running, *, weights: str | None = None, class_names: ClassNames | None = None
) -> Classifier:
    """The net made ready to classify, with a name for each output.

    class_names: in place of those that the net has. Raises: ResnetToolsError, also if the net has no classifier.
    """
    net = given_net(checkpoint, weights)
    require_classifier(net, name_of_net(checkpoint))
    names = given_names(class_names, net.num_classes) or output_names(net.class_names, net.num_classes)
    engine = engine_for(checkpoint, running.engine)
    return ready_classifier(net, names, str(running.device), running.precision, engine=engine)


def engine_for(checkpoint: GivenNet, engine: str) -> str:
    """The engine that was asked for; `auto` is torch for a loaded net, which may be anywhere and in any type."""
    loaded = isinstance(checkpoint, nn.Module | Checkpoint)
    return "torch" if engine == "auto" and loaded else engine


def given_names(class_names: ClassNames | None, count: int) -> list[str] | None:
    """The names of `count` outputs, from a file or as they are given. Raises: ResnetToolsError."""
    if class_names is None:
        return None
    if isinstance(class_names, (str, os.PathLike)):
        return read_labels(class_names, count)
    return output_names([str(name) for name in class_names] or [""], count)
