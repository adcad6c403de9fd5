"""Path -> a net that can be run: a `Checkpoint`, or a graph in an .onnx, which onnxruntime runs.

Both have the same fields. What runs a net takes either; what trains or converts it needs a `Checkpoint`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch

from resnet_tools.checkpoints.checkpoint import Checkpoint, classes_beside, load_checkpoint, model_path
from resnet_tools.checkpoints.onnx_files import OnnxCheckpoint, OnnxNet, is_onnx, load_onnx
from resnet_tools.compute.inference import prepare
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import CheckpointError
from resnet_tools.nets.resnet import ResNet

Net = ResNet | OnnxNet
Runnable = Checkpoint | OnnxCheckpoint


def load_runnable(path: str | os.PathLike[str], *, weights: str | None = None) -> Runnable:
    """The net in a file of any format, with its class names and preprocessing.

    weights: as `load_checkpoint` takes it. Raises: ResnetToolsError as `load_checkpoint` and `load_onnx`.
    """
    found = model_path(path)
    if not is_onnx(found):
        return load_checkpoint(found, weights=weights)
    if weights is not None:
        raise CheckpointError(f"{found}: an .onnx holds one net; leave out --weights {weights}")
    checkpoint = load_onnx(found)
    if checkpoint.class_names is not None:
        return checkpoint
    return replace(checkpoint, class_names=classes_beside(found, checkpoint.num_classes))


@dataclass(frozen=True)
class Classifier:
    """A net made ready for inference, with a name for each output."""

    net: Net
    class_names: list[str]
    preprocessing: Preprocessing


def prepare_net(model: Net, device: torch.device, precision: str = "single", *, fold: bool = True) -> Net:
    """The net made ready for inference, as `compute.inference.prepare` does."""
    if isinstance(model, OnnxNet):
        return model.prepared(device, precision)
    return prepare(model, device, precision, fold=fold)


def require_classifier(checkpoint: Runnable, path: str | os.PathLike[str]) -> None:
    """Raises: CheckpointError if the net has no classifier, and says why and what can be done with it."""
    if not checkpoint.num_classes:
        reason = checkpoint.no_classifier or "no nn.Linear follows its features"
        raise CheckpointError(
            f"{os.fspath(path)}: the net has no usable classifier: {reason}. `resnet extract-features` and "
            "`resnet train --retrain FILE --reset-classifier` accept it"
        )
