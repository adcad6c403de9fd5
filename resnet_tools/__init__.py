"""The Lua Torch ResNets of fb.resnet.torch in PyTorch, with the numbers of the original program.

The public names are imported on first use, so `import resnet_tools` itself loads neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint, load_model, save_model
    from resnet_tools.checkpoints.convert import Target, convert
    from resnet_tools.data.transforms import Preprocessing, preprocess
    from resnet_tools.features.projection import Projection, project
    from resnet_tools.features.similar import Neighbour, Similar, duplicates, similar
    from resnet_tools.nets.architecture import Architecture
    from resnet_tools.nets.resnet import build_resnet
    from resnet_tools.torch7.t7 import read_t7
    from resnet_tools.torch7.t7_writer import save_t7

__version__ = "0.1.0"
__all__ = [
    "Architecture",
    "Checkpoint",
    "Neighbour",
    "Preprocessing",
    "Projection",
    "Similar",
    "Target",
    "build_resnet",
    "convert",
    "duplicates",
    "load_checkpoint",
    "load_model",
    "preprocess",
    "project",
    "read_t7",
    "save_model",
    "save_t7",
    "similar",
]

_ROOMS = {
    "Architecture": "nets.architecture",
    "Checkpoint": "checkpoints.checkpoint",
    "Neighbour": "features.similar",
    "Preprocessing": "data.transforms",
    "Projection": "features.projection",
    "Similar": "features.similar",
    "Target": "checkpoints.convert",
    "build_resnet": "nets.resnet",
    "convert": "checkpoints.convert",
    "duplicates": "features.similar",
    "load_checkpoint": "checkpoints.checkpoint",
    "load_model": "checkpoints.checkpoint",
    "preprocess": "data.transforms",
    "project": "features.projection",
    "read_t7": "torch7.t7",
    "save_model": "checkpoints.checkpoint",
    "save_t7": "torch7.t7_writer",
    "similar": "features.similar",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
