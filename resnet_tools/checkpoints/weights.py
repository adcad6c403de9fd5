"""The weights of a net as arrays, and the module over the same memory that is built when somebody asks for it."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.large_arrays import for_each_in_two_threads
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.parameters import COUNTER, check_weights
from resnet_tools.reading import collector_paused

if TYPE_CHECKING:
    from resnet_tools.nets.resnet import ResNet

Array = NDArray[Any]
TYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}


class Weights:
    """Checked against the architecture; `module` is built once and is what counts from then on.

    Raises: CheckpointError naming the first key that is missing, unknown, or differs in shape.
    """

    def __init__(self, architecture: Architecture, arrays: Mapping[str, Array]) -> None:
        self.architecture = architecture
        self._arrays: dict[str, Array] | None = {**check_weights(architecture, arrays), **arrays}
        self._module: ResNet | None = None
        self._building = threading.Lock()

    @property
    def module(self) -> ResNet:
        from resnet_tools.nets.state_dict import load_resnet

        with self._building, collector_paused():
            if self._module is None:
                self._module, self._arrays = load_resnet(self.architecture, self._arrays or {}), None
            return self._module

    @property
    def arrays(self) -> dict[str, Array]:
        return arrays_of(self._module) if self._arrays is None and self._module is not None else self._arrays or {}

    def __getstate__(self) -> dict[str, Any]:
        return {"architecture": self.architecture, "_arrays": self._arrays, "_module": self._module}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _building=threading.Lock())


def arrays_of(model: ResNet) -> dict[str, Array]:
    """Its state dict over the same memory, if it is on the CPU."""
    return {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}


class ModelField:
    """The field `model` of a checkpoint: it is given a module, or `Weights` of which one is made at its first use."""

    def __get__(self, checkpoint: object, owner: type | None = None) -> ResNet:
        if checkpoint is None:
            raise AttributeError("model")  # the class itself has none
        held = held_by(checkpoint)
        return held.module if isinstance(held, Weights) else held

    def __set__(self, checkpoint: object, given: ResNet | Weights) -> None:
        checkpoint.__dict__["model"] = given


def held_by(checkpoint: Any) -> ResNet | Weights:
    """What the field `model` was given, without building anything."""
    held: ResNet | Weights = checkpoint.__dict__["model"]
    return held


def weights_in(held: ResNet | Weights) -> dict[str, Array]:
    return held.arrays if isinstance(held, Weights) else arrays_of(held)


def read_safetensors_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]] | None:
    """Float32 weights, their batch counters, and the metadata of a .safetensors, without torch, in memory of their own.

    None for a file that is not whole or has numbers of other types: `tensor_files.read_safetensors` says more of it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as checked:  # the whole header; the numbers would be read from a map
            metadata = checked.metadata() or {}
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        arrays = _arrays_at(path, 8 + length, header)
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return None if arrays is None else (arrays, metadata)


def _arrays_at(path: Path, data: int, header: Mapping[str, Any]) -> dict[str, Array] | None:
    """The arrays of a header, whose places count from byte `data`; None if some are of other types or not there."""
    arrays = {}
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for key, entry in header.items():
            kind, (begin, end), shape = entry["dtype"], entry["data_offsets"], tuple(entry["shape"])
            if kind not in TYPES or (kind == "I64" and not key.endswith(COUNTER)):
                return None
            nbytes = math.prod(shape) * np.dtype(TYPES[kind]).itemsize
            if not 0 <= nbytes == end - begin <= size - data - begin:
                return None
            content = np.empty(nbytes, np.uint8)
            file.seek(data + begin)
            if nbytes and file.readinto(content.data) != nbytes:
                return None
            array = content.view(TYPES[kind]).reshape(shape)
            arrays[key] = array.astype(np.float32) if kind == "F16" else array
    return arrays


def not_finite(arrays: Mapping[str, Array]) -> str | None:
    """The name of the first array with a NaN or an infinite number, or None."""
    damaged: set[str] = set()

    def look_at(key: str) -> None:
        if not _is_finite(arrays[key]):
            damaged.add(key)

    for_each_in_two_threads(look_at, [key for key, array in arrays.items() if array.dtype.kind == "f"])
    return next((key for key in arrays if key in damaged), None)


def _is_finite(array: Array) -> bool:
    # A sum is the quickest look at all numbers, and this the quickest sum. It may overflow, so a second look follows.
    return bool(np.isfinite(np.einsum("i->", array.reshape(-1))) or np.isfinite(array).all())
