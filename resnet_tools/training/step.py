"""A batch -> one step of the training, on one process or as a part of several.

The gradient is that of the mean loss over all images of a step: those of every process, and of every batch that is
accumulated, whatever their sizes. Shapes: N images in this process, K classes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_tools.compute.device import Precision
from resnet_tools.compute.inference import memory_errors
from resnet_tools.compute.processes import ALONE, Processes, lost_processes
from resnet_tools.errors import TrainingError
from resnet_tools.metrics import ErrorCounts, error_counts
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.average import WeightAverage
from resnet_tools.training.memory import checkpoint_activations
from resnet_tools.training.mixing import mixed
from resnet_tools.training.optimizer import batch_norms, frozen_parts, make_optimizer
from resnet_tools.training.recipe import Recipe

MIN_INPUTS = 16
AUTOCAST = {"half": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """What the training runs on, and how: none of it changes what is computed but for rounding."""

    device: torch.device
    precision: Precision = "single"
    processes: Processes = ALONE
    sync_bn: bool = False
    compile: bool = False
    checkpoint_activations: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """In which the net computes: mixed precision where it is half or bf16."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()


class Stepper:
    """The net, its optimizer and what else changes with each step. `model` is the plain net, on the device."""

    def __init__(self, model: ResNet, recipe: Recipe, machine: Machine) -> None:
        self.recipe, self.machine = recipe, machine
        dtype = torch.float64 if machine.precision == "double" else torch.float32
        self.layout = _fast_layout(model, machine.device)
        self.model = model.to(machine.device, dtype).to(memory_format=self.layout)
        self.optimizer = make_optimizer(self.model, recipe, scaled=machine.precision == "half")
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "half")
        self.average = WeightAverage(self.model, recipe.ema) if recipe.ema else None
        self.trained = _wrapped(self.model, machine)
        self._has_gradient = False

    def train_mode(self) -> None:
        """Training mode, but for the batch norms that are frozen: those keep their running statistics."""
        self.model.train()
        frozen = [self.model] if self.recipe.freeze_bn else frozen_parts(self.model, self.recipe.freeze)
        for norm in (norm for part in frozen for norm in batch_norms(part)):
            norm.eval()

    def backward(self, images: Tensor, targets: Tensor, total: int, *, last: bool, seed: int = 0) -> ErrorCounts:
        """Add the gradient of these images; (N, 3, H, W), (N,) on any device.

        total: the images of the whole step. last: no other batch follows in this step. seed: of mixup and cutmix.
        Raises: MemoryShortage; TrainingError if the net cannot be compiled; ProcessError if another process ended.
        """
        with memory_errors(len(images)), lost_processes(), self._compiler_errors():
            return self._backward(images, targets, total, last=last, seed=seed)

    def _backward(self, images: Tensor, targets: Tensor, total: int, *, last: bool, seed: int) -> ErrorCounts:
        device, dtype = self.machine.device, self.model.conv1.weight.dtype
        images = images.to(device, non_blocking=True).to(dtype).contiguous(memory_format=self.layout)
        labels = targets.to(device, non_blocking=True)
        images, soft = mixed(images, labels, self.recipe, self.model.architecture.num_classes, seed)
        with self._gradients_shared(last), self._single_image(len(images)):
            with self.machine.autocast():
                logits = self.trained(images)  # (N, K)
            loss = self._loss(logits, soft)
            scale = self.machine.processes.count / total  # processes' gradients are averaged
            self.scaler.scale(loss * scale).backward()  # type: ignore[no-untyped-call]
        self._has_gradient = True
        mean = float(loss.detach()) / len(images)
        return error_counts(logits.detach().float(), labels, mean)

    def step(self) -> None:
        """Apply and clear the gradient, if there is one. Raises: MemoryShortage."""
        if not self._has_gradient:
            return
        with memory_errors(self.recipe.batch_size):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self._has_gradient = False
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)

    @property
    def evaluated(self) -> ResNet:
        """The net that is validated and saved: the mean of the weights where the recipe keeps one."""
        return self.model if self.average is None else self.average.model

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the images; targets (N,) classes or (N, K) shares. At least float32."""
        values = logits if logits.dtype == torch.float64 else logits.float()
        return cross_entropy(values, targets, reduction="sum", label_smoothing=self.recipe.label_smoothing)

    def _gradients_shared(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Processes exchange gradients once a step, with the last batch."""
        no_sync = getattr(self.trained, "no_sync", None)
        return no_sync() if no_sync is not None and not last else contextlib.nullcontext()

    @contextmanager
    def _single_image(self, images: int) -> Iterator[None]:
        """One image alone has no statistics: batch norm uses and keeps its running ones, as Torch7's does."""
        if images > 1 or (self.machine.sync_bn and self.machine.processes.count > 1):
            yield
            return
        training = [norm for norm in batch_norms(self.model) if norm.training]
        for norm in training:
            norm.eval()
        try:
            yield
        finally:
            for norm in training:
                norm.train()

    @contextmanager
    def _compiler_errors(self) -> Iterator[None]:
        """torch.compile works, and fails, when the net is first called."""
        try:
            yield
        except Exception as error:
            module = type(error).__module__
            if not self.machine.compile or not module.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(f"torch.compile does not work here ({reason:.300}); leave out --compile") from error


def check_loss(counts: ErrorCounts, where: str, lr: float) -> None:
    """Raises: TrainingError if the loss is not finite."""
    if not abs(counts.loss_sum) < float("inf"):  # true for nan too
        raise TrainingError(
            f"{where}: the loss is {counts.loss_sum} at a learning rate of {lr:g}. Training has diverged: try a tenth "
            "of --lr, a longer --warmup-epochs, or --precision single. The checkpoints of earlier epochs are kept"
        )


def _fast_layout(model: ResNet, device: torch.device) -> torch.memory_format:
    """Channels last, but for narrow nets on a CPU.

    With it the backward pass of oneDNN writes beyond its memory at 1 x 1 convolutions of stride 2 with fewer than 16
    inputs (torch 2.15, AVX-512).
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)][1:]  # behind the stem's
    narrow = any(conv.in_channels < MIN_INPUTS for conv in convolutions)
    return torch.contiguous_format if narrow and device.type == "cpu" else torch.channels_last


def _wrapped(model: ResNet, machine: Machine) -> nn.Module:
    trained: nn.Module = model
    if machine.checkpoint_activations:
        checkpoint_activations(model)
    if machine.processes.count > 1:
        on_gpu = machine.device.type == "cuda"
        if machine.sync_bn and not on_gpu:
            raise TrainingError("--sync-bn needs GPUs: torch's synchronised batch norm has no version for the CPU")
        if machine.sync_bn:
            _synchronise_batch_norms(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has another name from torch 2.15 on
            trained = nn.parallel.DistributedDataParallel(
                model, device_ids=[machine.device.index] if on_gpu else None, broadcast_buffers=False
            )
    return torch.compile(trained) if machine.compile else trained  # type: ignore[return-value]


def _synchronise_batch_norms(module: nn.Module) -> None:
    """Every batch norm computes its statistics over the images of all processes, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            module.set_submodule(name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
        else:
            _synchronise_batch_norms(child)
