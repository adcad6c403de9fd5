"""Path -> a net that can be run: a `Checkpoint`, or a graph in an .onnx, which onnxruntime runs.

Both have the same fields. What runs a net takes either; what trains or converts it needs a `Checkpoint`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.checkpoints.model_files import classes_beside, model_path
from resnet_tools.checkpoints.onnx_engine import EngineNet, engine_net
from resnet_tools.checkpoints.onnx_graph import CLASSIFIER
from resnet_tools.checkpoints.onnx_session import is_onnx
from resnet_tools.compute.engines import EXTRAS, device_for, find_engine
from resnet_tools.compute.predictions import Prediction, classify_arrays
from resnet_tools.data.labels import output_names, read_labels
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import CheckpointError, ImageError

if TYPE_CHECKING:
    import torch

    from resnet_tools.checkpoints.onnx_files import OnnxCheckpoint, OnnxNet
    from resnet_tools.nets.resnet import ResNet

    Net = ResNet | OnnxNet | EngineNet
    Runnable = Checkpoint | OnnxCheckpoint
else:  # their modules import torch
    Net = Runnable = Any

Classify = Callable[..., Iterator[Prediction | tuple[str, ImageError]]]


def load_runnable(path: str | os.PathLike[str], *, weights: str | None = None) -> Runnable:
    """The net in a file of any format, with its class names and preprocessing.

    weights: as `load_checkpoint` takes it. Raises: ResnetToolsError as `load_checkpoint` and `load_onnx`.
    """
    found = model_path(path)
    if not is_onnx(found):
        return load_checkpoint(found, weights=weights)
    from resnet_tools.checkpoints.onnx_files import load_onnx

    if weights is not None:
        raise CheckpointError(f"{found}: an .onnx holds one net; leave out --weights {weights}")
    checkpoint = load_onnx(found)
    if checkpoint.class_names is not None:
        return checkpoint
    return replace(checkpoint, class_names=classes_beside(found, checkpoint.num_classes))


@dataclass(frozen=True)
class Classifier:
    """A net made ready for inference, with a name for each output.

    `classify` is `inference.classify` for this net, or what gives the same without torch: (paths, loading=, top_k=).
    """

    net: Net
    class_names: list[str]
    preprocessing: Preprocessing
    classify: Classify


def load_classifier(
    path: str | os.PathLike[str],
    device: str,
    precision: str = "single",
    *,
    engine: str = "auto",
    with_gradients: bool = False,
    weights: str | None = None,
    labels: Path | None = None,
) -> Classifier:
    """The net in a file of any format. `labels`: a file of class names, in place of those that the net has.

    device, engine: as `find_device` and `find_engine` take them. with_gradients: torch runs the net, if it can.
    Raises: ResnetToolsError as `load_runnable`, or if the net has no classifier or the file other names.
    """
    checkpoint = load_runnable(path, weights=weights)
    require_classifier(checkpoint, path)
    count = checkpoint.num_classes
    names = output_names(checkpoint.class_names if labels is None else read_labels(labels, count), count)
    return ready_classifier(checkpoint, names, device, precision, engine=engine, with_gradients=with_gradients)


def ready_classifier(
    checkpoint: Runnable,
    names: list[str],
    device: str,
    precision: str = "single",
    *,
    engine: str = "auto",
    with_gradients: bool = False,
) -> Classifier:
    """The same of a net that is loaded; it may be changed in place. names: of its outputs."""
    _check_engine(checkpoint, engine)
    if with_gradients and isinstance(checkpoint, Checkpoint):
        if engine in EXTRAS:
            raise CheckpointError(f"--engine {engine} computes no gradients, which --explain needs; leave it out")
        engine = "torch"
    if isinstance(checkpoint, Checkpoint) and (found := find_engine(engine, device, precision)) != "torch":
        by_engine = engine_net(checkpoint, engine=found, precision=precision)
        return Classifier(by_engine, names, checkpoint.preprocessing, partial(classify_arrays, net=by_engine))
    from resnet_tools.compute.device import find_device
    from resnet_tools.compute.inference import classify

    net = prepare_net(checkpoint.model, find_device(device), precision)
    return Classifier(net, names, checkpoint.preprocessing, partial(classify, model=net))


def prepare_net(model: Net, device: torch.device, precision: str = "single", *, fold: bool = True) -> Net:
    """The net made ready for inference by torch, as `compute.inference.prepare` does, or by its own engine."""
    from resnet_tools.compute.inference import prepare
    from resnet_tools.nets.resnet import ResNet

    if isinstance(model, ResNet):
        return prepare(model, device, precision, fold=fold)
    return model if isinstance(model, EngineNet) else model.prepared(device, precision)


def ready_net(
    checkpoint: Runnable,
    engine: str,
    device: torch.device,
    precision: str = "single",
    *,
    layer: str = CLASSIFIER,
    fold: bool = True,
) -> Net:
    """The net made ready for inference, up to `layer` at least. engine: as `find_engine` takes it.

    Raises: ResnetToolsError if the engine cannot run it.
    """
    _check_engine(checkpoint, engine)
    if isinstance(checkpoint, Checkpoint):
        found = find_engine(engine, device_for(engine, device.type), precision)
        if found != "torch":
            return engine_net(checkpoint, layer, fold=fold, engine=found, precision=precision)
    return prepare_net(checkpoint.model, device, precision, fold=fold)


def engine_of(net: Net) -> str:
    """The name of the engine that runs a net which is ready."""
    from resnet_tools.nets.resnet import ResNet

    return "torch" if isinstance(net, ResNet) else net.engine if isinstance(net, EngineNet) else "onnxruntime"


def _check_engine(checkpoint: Runnable, engine: str) -> None:
    if engine not in ("auto", "onnxruntime") and not isinstance(checkpoint, Checkpoint):
        raise CheckpointError(
            f"--engine {engine}: an .onnx is run by onnxruntime; leave that out, or give the checkpoint"
        )


def require_classifier(checkpoint: Runnable, path: str | os.PathLike[str]) -> None:
    """Raises: CheckpointError if the net has no classifier, and says why and what can be done with it."""
    if not checkpoint.num_classes:
        reason = checkpoint.no_classifier or "no nn.Linear follows its features"
        raise CheckpointError(
            f"{os.fspath(path)}: the net has no usable classifier: {reason}. `resnet extract-features` and "
            "`resnet train --retrain FILE --reset-classifier` accept it"
        )
