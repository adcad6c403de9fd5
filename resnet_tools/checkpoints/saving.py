"""A net with its class names and preprocessing -> a `.pt` or `.safetensors` of ours, and what a `.pt` holds besides."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_tools.checkpoints.checkpoint import FORMAT, VERSION, Checkpoint
from resnet_tools.errors import CheckpointError
from resnet_tools.writing import written_whole


def save_model(checkpoint: Checkpoint, path: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint as `.pt` or `.safetensors`, by the extension of `path`; only a whole file replaces one.

    extra: plain values that a .pt also holds, such as the recipe of its training; they do not change what is loaded.
    A net without a checkpoint is written by `save_checkpoint`.
    Raises: CheckpointError for another extension, or if the file cannot be written.

    >>> from resnet_tools import load_checkpoint, save_model
    >>> save_model(load_checkpoint("demo"), "demo.safetensors")
    >>> load_checkpoint("demo.safetensors").num_classes
    10
    """
    target = Path(path)
    if target.suffix.lower() not in (".pt", ".safetensors"):
        raise CheckpointError(f"{target}: the extension {target.suffix!r} is unknown; expected .pt or .safetensors")
    try:
        with written_whole(target) as partial:
            write_model(checkpoint, partial, extra)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error


def write_model(checkpoint: Checkpoint, path: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write a `.pt` or `.safetensors` where it belongs, and leave what is there when that fails.

    Raises: OSError.
    """
    from resnet_tools.checkpoints.tensor_files import torch_write, write_safetensors

    state = {key: tensor.cpu().contiguous() for key, tensor in checkpoint.model.state_dict().items()}
    described = description(checkpoint)
    if path.suffix.lower() == ".pt":
        torch_write(dict(extra or {}) | described | {"state_dict": state}, path)
    else:
        write_safetensors(state, path, {FORMAT: json.dumps(described)})


def extra_content(path: Path) -> dict[str, Any]:
    """What a `.pt` of ours holds beside the net, its classes and its preprocessing."""
    from resnet_tools.checkpoints.stored import load_value
    from resnet_tools.checkpoints.torch_files import read_torch

    content = read_torch(path).content
    own = {"format", "version", "architecture", "classes", "preprocessing", "state_dict"}
    extra: dict[str, Any] = load_value({key: value for key, value in content.items() if key not in own})
    return extra


def description(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a file says about a net besides its weights, as plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "architecture": checkpoint.architecture.to_dict(),
        "classes": checkpoint.class_names,
        "preprocessing": checkpoint.preprocessing.to_dict(),
    }
