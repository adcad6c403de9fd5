"""Tensors of a GPU that is not there: they have shapes and a device, but no values.

A computation on them fails where tensors of several devices meet, and `waits` has each call in which the program would
wait for a real GPU: a value that is read, or a copy from or to ordinary memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.cuda._utils import _get_device_index
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
READING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
ONLY_REAL = (
    "_fused_sgd_",
    "_amp_foreach_non_finite_check_and_unscale_",
    "_amp_update_scale_",
)  # change their arguments


class _Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        named = named or {}
        name = function.overloadpacket.__name__
        tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
        kinds = {one.device.type for one in tensors} | {torch.device(named.get("device") or "meta").type} - {"meta"}
        copies = name in ("_to_copy", "copy_") and kinds == {"cpu", "cuda"}
        not_waiting = named.get("non_blocking") or (name == "copy_" and arguments[2:3] == (True,))
        if (copies and not not_waiting) or (name in READING and "cuda" in kinds):
            self.names.append(name)
        if name in ONLY_REAL:
            return arguments[0] if name == "_amp_update_scale_" else None
        return function(*arguments, **named)


@contextmanager
def fake_gpu() -> Iterator[list[str]]:
    """Within the block tensors are made up; the names of the calls that would wait for the GPU."""
    waits = _Waits()
    with (
        patch.object(torch.nn.Module, "to", _moved),
        patch("torch.amp.grad_scaler.torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.set_device", lambda device: _get_device_index(device)),  # it must have a number
        patch("torch.cuda.is_bf16_supported", lambda **_: True),
        patch.object(FakeTensor, "__deepcopy__", _copied, create=True),
        FakeTensorMode(),
        waits,
        patch.object(torch.Tensor, "backward", _gradients_given),
    ):
        yield waits.names


def _moved(
    net: torch.nn.Module,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> torch.nn.Module:
    """`Module.to`, which cannot replace real tensors by others; the values are lost."""
    for part in net.modules():
        for kept in (part._parameters, part._buffers):
            for name, tensor in [(name, tensor) for name, tensor in kept.items() if tensor is not None]:
                kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
                layout = memory_format if tensor.ndim == 4 else torch.contiguous_format
                made = torch.empty(tensor.shape, device=device or tensor.device, dtype=kind, memory_format=layout)
                kept[name] = torch.nn.Parameter(made, tensor.requires_grad) if kept is part._parameters else made
    return net


def _copied(tensor: torch.Tensor, _: object) -> torch.Tensor:
    copied = tensor.detach().clone()
    return torch.nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else copied


def _gradients_given(loss: torch.Tensor) -> None:
    """`Tensor.backward`, whose threads are those of real GPUs: every parameter gets a gradient."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            if hasattr(node, "variable"):
                node.variable.grad = torch.zeros_like(node.variable)
