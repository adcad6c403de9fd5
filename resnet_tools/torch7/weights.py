"""Module tree -> state dict: the weights of a file under the parameter names of `nets.resnet`, as float32.

The tensors are copies, aligned and independent of the file; pages of the file are given back as soon as they are
copied, so that the peak memory is about that of the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from resnet_tools.errors import ModuleError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.torch7.lua import release
from resnet_tools.torch7.modules import Module, stored_in
from resnet_tools.torch7.outline import BN, CONV, conv_shape
from resnet_tools.torch7.template import FIRST_UPLOAD_FACTOR, bind

Array = np.ndarray[Any, Any]


def state_dict(tree: Module, architecture: Architecture) -> dict[str, torch.Tensor]:
    """Every parameter and buffer of `ResNet(architecture)`, float32 (batch counters int64), from the net in `tree`.

    Warns when batch norms of the first upload of resnet-200 are cut to the width that was trained.
    Raises: RecognitionError if the tree is not this architecture; ModuleError if its weights overlap in the file.
    """
    bound = bind(tree, architecture)
    _check_storage([module for module, _ in bound.values()])
    weights: dict[str, torch.Tensor] = {}
    cut: list[str] = []
    for key, (module, expected) in bound.items():
        if module.kind == BN:
            cut += [module.path] if expected.width < module.tensors["running_var"].size else []
            _add_batch_norm(weights, key, module, expected.width)
        elif module.kind == CONV:
            _add_convolution(weights, key, module, architecture.conv_bias)
        else:
            weights[f"{key}.weight"] = _copy(module.tensors["weight"])
            weights[f"{key}.bias"] = _filled(module.tensors.get("bias"), module.tensors["weight"].shape[0], 0)
    if cut:
        warnings.warn(
            f"{len(cut)} batch norms are {FIRST_UPLOAD_FACTOR} times too wide, as in the first upload of resnet-200 "
            f"(first: module {cut[0]}); only their trained first quarter is used",
            stacklevel=3,
        )
    return weights


def _check_storage(modules: Iterable[Module]) -> None:
    """A few stored numbers that many modules view would multiply in memory."""
    used, stored = 0, {}
    for module in modules:
        for tensor in module.tensors.values():
            storage = stored_in(tensor)
            used += tensor.size
            stored[id(storage)] = storage.size
    if used > sum(stored.values()):
        raise ModuleError(
            f"the net has {used} weights over {sum(stored.values())} stored numbers; expected each weight stored once"
        )


def _add_batch_norm(weights: dict[str, torch.Tensor], key: str, module: Module, width: int) -> None:
    tensors = module.tensors
    weights[f"{key}.weight"] = _filled(tensors.get("weight"), width, 1)
    weights[f"{key}.bias"] = _filled(tensors.get("bias"), width, 0)
    weights[f"{key}.running_mean"] = _copy(tensors["running_mean"][:width])
    weights[f"{key}.running_var"] = _copy(tensors["running_var"][:width])
    weights[f"{key}.num_batches_tracked"] = torch.tensor(0)


def _add_convolution(weights: dict[str, torch.Tensor], key: str, module: Module, with_bias: bool) -> None:
    conv = conv_shape(module)
    shape = (conv.outputs, conv.inputs // conv.groups, conv.kernel, conv.kernel)
    weights[f"{key}.weight"] = _copy(module.tensors["weight"].reshape(shape))
    if with_bias:
        weights[f"{key}.bias"] = _filled(module.tensors.get("bias"), conv.outputs, 0)


def _filled(array: Array | None, width: int, default: float) -> torch.Tensor:
    return torch.full((width,), float(default)) if array is None else _copy(array[:width])


def _copy(array: Array) -> torch.Tensor:
    """A float32 tensor of its own; the array may be unaligned, strided, half or double."""
    tensor = torch.empty(array.shape, dtype=torch.float32)
    np.copyto(tensor.numpy(), array, casting="same_kind")
    release(array)
    return tensor
