"""The Lua Torch ResNets of fb.resnet.torch in PyTorch, with the numbers of the original program.

The public names are imported on first use, so `import resnet_tools` itself loads neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint, load_model
    from resnet_tools.checkpoints.convert import Target, convert
    from resnet_tools.checkpoints.nets_in_python import save_checkpoint
    from resnet_tools.checkpoints.saving import save_model
    from resnet_tools.compute.activation_maps import ActivationMaps
    from resnet_tools.data.transforms import Preprocessing, preprocess
    from resnet_tools.features.projection import Projection, project
    from resnet_tools.features.similar import Neighbour, Similar, duplicates, similar
    from resnet_tools.jobs.activation_maps import activation_maps
    from resnet_tools.jobs.classify import ImageLabels, Predictions, classify
    from resnet_tools.jobs.evaluate import EvaluationResult, evaluate
    from resnet_tools.jobs.extract_features import ExtractedFeatures, extract_features
    from resnet_tools.jobs.train import TrainedRun, train
    from resnet_tools.nets.architecture import Architecture
    from resnet_tools.nets.resnet import build_resnet
    from resnet_tools.torch7.t7 import read_t7
    from resnet_tools.torch7.t7_writer import save_t7

__version__ = "0.1.0"
__all__ = [
    "ActivationMaps",
    "Architecture",
    "Checkpoint",
    "EvaluationResult",
    "ExtractedFeatures",
    "ImageLabels",
    "Neighbour",
    "Predictions",
    "Preprocessing",
    "Projection",
    "Similar",
    "Target",
    "TrainedRun",
    "activation_maps",
    "build_resnet",
    "classify",
    "convert",
    "duplicates",
    "evaluate",
    "extract_features",
    "load_checkpoint",
    "load_model",
    "preprocess",
    "project",
    "read_t7",
    "save_checkpoint",
    "save_model",
    "save_t7",
    "similar",
    "train",
]

_ROOMS = {
    "ActivationMaps": "compute.activation_maps",
    "Architecture": "nets.architecture",
    "Checkpoint": "checkpoints.checkpoint",
    "EvaluationResult": "jobs.evaluate",
    "ExtractedFeatures": "jobs.extract_features",
    "ImageLabels": "jobs.classify",
    "Neighbour": "features.similar",
    "Predictions": "jobs.classify",
    "Preprocessing": "data.transforms",
    "Projection": "features.projection",
    "Similar": "features.similar",
    "Target": "checkpoints.convert",
    "TrainedRun": "jobs.train",
    "activation_maps": "jobs.activation_maps",
    "build_resnet": "nets.resnet",
    "classify": "jobs.classify",
    "convert": "checkpoints.convert",
    "duplicates": "features.similar",
    "evaluate": "jobs.evaluate",
    "extract_features": "jobs.extract_features",
    "load_checkpoint": "checkpoints.checkpoint",
    "load_model": "checkpoints.checkpoint",
    "preprocess": "data.transforms",
    "project": "features.projection",
    "read_t7": "torch7.t7",
    "save_checkpoint": "checkpoints.nets_in_python",
    "save_model": "checkpoints.saving",
    "save_t7": "torch7.t7_writer",
    "similar": "features.similar",
    "train": "jobs.train",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
