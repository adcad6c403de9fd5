"""Names from the command line -> what torch is told about the machine."""

from __future__ import annotations

from typing import Literal

import torch

from resnet_tools.errors import TrainingError
from resnet_tools.inference import keep_freed_memory
from resnet_tools.training.recipe import Recipe
from resnet_tools.training.step import Precision

Cudnn = Literal["fastest", "default", "deterministic"]
HALF_CAPABILITY = (7, 0)  # the first GPUs with tensor cores


def find_precision(wished: Precision | None, recipe: Recipe, device: torch.device) -> Precision:
    """What was asked for, or the fastest that trains as well: bf16 or else half on GPUs that have it, single elsewhere.

    `original` is single, as there. Raises: TrainingError if the device cannot compute in it.
    """
    if wished == "double" and device.type == "mps":
        raise TrainingError("--precision double: this GPU has none; give --device cpu")
    if wished is not None or recipe.name == "original" or device.type != "cuda":
        return wished or "single"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "half" if torch.cuda.get_device_capability(device) >= HALF_CAPABILITY else "single"


def configure(device: torch.device, cudnn: Cudnn, recipe: Recipe) -> None:
    """cuDNN as the original's -cudnn: `fastest` tries algorithms out, `deterministic` gives equal runs.

    `original` computes in full float32; elsewhere convolutions may use TF32.
    """
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = cudnn == "fastest"
        torch.backends.cudnn.deterministic = cudnn == "deterministic"
        torch.backends.cudnn.allow_tf32 = recipe.name != "original"
