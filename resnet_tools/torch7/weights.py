"""Bound modules -> the weights of a file under the parameter names of `nets.resnet`, as float32.

They are copies, independent of the file: arrays, or tensors over the same memory (`state_dict`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_tools.errors import ModuleError
from resnet_tools.large_arrays import in_one_block
from resnet_tools.nets.architecture import Architecture, ConvShape
from resnet_tools.torch7.copying import copy_all
from resnet_tools.torch7.modules import Module, stored_in
from resnet_tools.torch7.outline import BN
from resnet_tools.torch7.template import FIRST_UPLOAD_FACTOR, Bound

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]
MAX_TYING = 4  # weights per stored number
MOST_TIED = 1 << 22  # this many weights may be tied in any way: 16 MB


def state_dict(bound: Bound, architecture: Architecture) -> dict[str, Tensor]:
    """What `weights_of` gives, as tensors."""
    import torch

    return {key: torch.from_numpy(array) for key, array in weights_of(bound, architecture).items()}


def weights_of(bound: Bound, architecture: Architecture) -> dict[str, Array]:
    """Every parameter and buffer of `ResNet(architecture)`, float32 (batch counters int64), from the bound modules.

    Warns when batch norms of the first upload of resnet-200 are cut to the width that was trained.
    Raises: ModuleError if the weights overlap in the file, or a double is too large for float32.
    """
    _check_storage([module for module, _ in bound.values()])
    weights = _Weights()
    cut: list[str] = []
    for key, (module, expected) in bound.items():
        if module.kind == BN:
            cut += [module.path] if expected.width < module.tensors["running_var"].size else []
            weights.add_batch_norm(key, module, expected.width)
        elif expected.conv:
            weights.add_convolution(key, module, expected.conv, architecture.conv_bias)
        else:
            weights.add_linear(key, module)
    weights.copy()
    weights.check_range(bound)
    for key, scale in weights.scales.items():
        weights.state[key] *= np.float32(scale)
    if cut:
        warnings.warn(
            f"{len(cut)} batch norms are {FIRST_UPLOAD_FACTOR} times too wide, as in the first upload of resnet-200 "
            f"(first: module {cut[0]}); only their trained first quarter is used",
            stacklevel=3,
        )
    return weights.state


def _check_storage(modules: Iterable[Module]) -> None:
    """Refuse stored numbers that many modules view, which would multiply in memory; a few tied weights are fine."""
    used, stored = 0, {}
    for module in modules:
        for tensor in module.tensors.values():
            storage = stored_in(tensor)
            used += tensor.size
            stored[id(storage)] = storage.size
    if used > max(MOST_TIED, MAX_TYING * sum(stored.values())):
        raise ModuleError(
            f"the net has {used:,} weights over {sum(stored.values()):,} stored numbers; "
            "expected each weight stored once, but for a few that are tied"
        )


class _Weights:
    """Weights under construction: `sources` are those of the file, which `state` holds too until they are copied."""

    def __init__(self) -> None:
        self.state: dict[str, Array] = {}
        self.sources: dict[str, Array] = {}
        self.scales: dict[str, float] = {}  # the factor of a weight that stands for the scaling of its module's input

    def copy(self) -> None:
        """Make the weights independent of the file. One copy of all lets neighbours in the file be read together."""
        targets = in_one_block([source.shape for source in self.sources.values()])
        self.state.update(zip(self.sources, targets, strict=True))
        with np.errstate(over="ignore"):  # `check_range` finds it
            copy_all(list(zip(self.sources.values(), targets, strict=True)))

    def check_range(self, bound: Bound) -> None:
        """Raises: ModuleError if a number of double precision has become infinite in single precision."""
        for key, source in self.sources.items():
            target = self.state[key]
            if source.dtype == np.float64 and np.isinf(target).any() and np.isfinite(source[np.isinf(target)]).any():
                prefix, _, name = key.rpartition(".")
                module = bound[prefix][0]
                raise ModuleError(
                    f"{module.where} ({module.class_name}): {name} holds {np.abs(source).max():g}; "
                    "expected at most 3.4e+38, the largest number in float32"
                )

    def add_batch_norm(self, key: str, module: Module, width: int) -> None:
        tensors = module.tensors
        self.add_or_fill(f"{key}.weight", tensors.get("weight"), width, 1)
        self.add_or_fill(f"{key}.bias", tensors.get("bias"), width, 0)
        self.add(f"{key}.running_mean", tensors["running_mean"][:width])
        self.add(f"{key}.running_var", tensors["running_var"][:width])
        self.state[f"{key}.num_batches_tracked"] = np.array(0, np.int64)

    def add_convolution(self, key: str, module: Module, conv: ConvShape, with_bias: bool) -> None:
        shape = (conv.outputs, conv.inputs // conv.groups, conv.kernel, conv.kernel)
        self.add(f"{key}.weight", module.tensors["weight"].reshape(shape), module.input_scale)
        if with_bias:
            self.add_or_fill(f"{key}.bias", module.tensors.get("bias"), conv.outputs, 0)

    def add_linear(self, key: str, module: Module) -> None:
        self.add(f"{key}.weight", module.tensors["weight"], module.input_scale)
        self.add_or_fill(f"{key}.bias", module.tensors.get("bias"), module.tensors["weight"].shape[0], 0)

    def add_or_fill(self, key: str, array: Array | None, width: int, default: float) -> None:
        if array is None:
            self.state[key] = np.full(width, default, np.float32)
        else:
            self.add(key, array[:width])

    def add(self, key: str, array: Array, scale: float = 1.0) -> None:
        self.state[key] = self.sources[key] = array
        if scale != 1:
            self.scales[key] = scale
