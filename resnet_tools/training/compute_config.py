"""Where and how a training computes: device, precision, processes -> the net made ready for it.

None of it changes what is computed, except for rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resnet_tools.compute.device import Precision
from resnet_tools.compute.processes import ALONE, Processes
from resnet_tools.errors import TrainingError
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.memory import checkpoint_activations

MIN_INPUTS = 16
AUTOCAST = {"half": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ComputeConfig:
    """half and bf16 are mixed precision: the weights stay float32."""

    device: torch.device
    precision: Precision = "single"
    processes: Processes = ALONE
    sync_bn: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    deterministic: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return torch.float64 if self.precision == "double" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the net computes."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()


def wrap_for_training(model: ResNet, config: ComputeConfig) -> nn.Module:
    """What is called in place of the model, with the same weights: with gradients exchanged, and so on.

    Raises: TrainingError if the device cannot do what is asked for.
    """
    wrapped: nn.Module = model
    if config.checkpoint_activations:
        checkpoint_activations(model)
    if config.processes.count > 1:
        on_gpu = config.device.type == "cuda"
        if config.sync_bn and not on_gpu:
            raise TrainingError("--sync-bn needs GPUs: PyTorch has no synchronised batch norm for the CPU")
        if config.sync_bn:
            _synchronise_batch_norms(model)
        # It is about speed, and comes from how 1 x 1 convolutions lay out what is one number long.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has another name from torch 2.15 on
            # Each process keeps running statistics of its own; those of process 0 are broadcast before validation.
            wrapped = nn.parallel.DistributedDataParallel(
                model, device_ids=[config.device.index] if on_gpu else None, broadcast_buffers=False
            )
    return wrapped


def compiled(module: nn.Module) -> nn.Module:
    """Compiled anew for each size of batch that it is called with, when it is."""
    return torch.compile(module, dynamic=False)  # type: ignore[return-value]


def _synchronise_batch_norms(module: nn.Module) -> None:
    """Make every batch norm, in place, compute its statistics over the images of all processes."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            module.set_submodule(name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
        else:
            _synchronise_batch_norms(child)


def fast_layout(model: ResNet, config: ComputeConfig) -> torch.memory_format:
    """Channels last, except for narrow nets on a CPU, and for equal runs on a GPU.

    With it the backward pass of oneDNN writes beyond its memory at 1 x 1 convolutions of stride 2 with fewer than 16
    inputs (torch 2.15, AVX-512); and that of max pooling adds on a GPU in an order that changes from run to run.
    Source of the latter: ATen/native/cuda/DilatedMaxPool2d.cu of PyTorch.
    """
    if config.deterministic and config.device.type == "cuda":
        return torch.contiguous_format
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)][1:]  # after the stem's
    narrow = any(conv.in_channels < MIN_INPUTS for conv in convolutions)
    return torch.contiguous_format if narrow and config.device.type == "cpu" else torch.channels_last


@contextmanager
def compiler_errors(config: ComputeConfig) -> Iterator[None]:
    """Turns an error of torch.compile, which compiles when the net is first called, into a TrainingError."""
    try:
        yield
    except Exception as error:
        module = type(error).__module__
        if not config.compile or not module.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"torch.compile does not work here ({reason:.300}); leave out --compile") from error
