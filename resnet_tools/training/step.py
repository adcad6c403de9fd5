"""The training step: a batch -> its gradient -> new weights, in one process or as one of several.

The gradient is that of the mean loss over all images of a step: those of every process, and of every batch that is
accumulated, whatever their sizes. Shapes: N images in this process, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_tools.compute.inference import memory_errors
from resnet_tools.compute.processes import lost_processes
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.average import WeightAverage
from resnet_tools.training.compute_config import (
    ComputeConfig,
    compiled,
    compiler_errors,
    fast_layout,
    wrap_for_training,
)
from resnet_tools.training.counts import BatchCounts, batch_counts
from resnet_tools.training.mixing import mixed
from resnet_tools.training.optimizer import batch_norms, frozen_parts, make_optimizer
from resnet_tools.training.recipe import Recipe


class TrainStep:
    """The net, its optimizer and everything else that changes with each step: `backward` for each batch, `update`
    after the last one of a step.

    `model` is the plain net on the device; `wrapped` is what computes: see `wrap_for_training`; compiled on request.
    Nothing here waits for the device. Raises: DeviceMemoryError, TrainingError, ProcessError.
    """

    def __init__(self, model: ResNet, recipe: Recipe, config: ComputeConfig) -> None:
        self.recipe, self.config = recipe, config
        self.layout = fast_layout(model, config)
        with memory_errors(0), lost_processes():
            self.model = model.to(config.device, config.dtype).to(memory_format=self.layout)
            self.optimizer = make_optimizer(self.model, recipe, scaled=config.precision == "half")
            self.scaler = torch.amp.GradScaler(config.device.type, enabled=config.precision == "half")
            self.average = WeightAverage(self.model, recipe.ema) if recipe.ema else None
            self._eager = wrap_for_training(self.model, config)
        self.wrapped = compiled(self._eager) if config.compile else self._eager
        self._compiled_images = 0
        self._has_gradient = False

    def train_mode(self) -> None:
        """Training mode, except for frozen batch norms, which keep their running statistics."""
        self.model.train()
        frozen = [self.model] if self.recipe.freeze_bn else frozen_parts(self.model, self.recipe.freeze)
        for norm in (norm for part in frozen for norm in batch_norms(part)):
            norm.eval()

    def backward(self, images: Tensor, targets: Tensor, step_images: int, *, last: bool, seed: int = 0) -> BatchCounts:
        """Add the gradient of these images; (N, 3, H, W), (N,) on any device. The counts are before the update.

        step_images: the number of images in the whole step. last: no other batch follows in this step. seed: for mixup
        and CutMix. Raises: DeviceMemoryError; TrainingError if the net cannot be compiled; ProcessError if another
        process ended.
        """
        with memory_errors(len(images)), lost_processes(), compiler_errors(self.config):
            # 1. Copy the batch to the device; mix images, and their labels into shares of classes.
            x = images.to(self.config.device, non_blocking=True).to(self.config.dtype)
            labels = targets.to(self.config.device, non_blocking=True)  # (N,)
            x = x.contiguous(memory_format=self.layout)
            x, mixed_targets = mixed(x, labels, self.recipe, self.model.architecture.num_classes, seed)

            with self._gradient_exchange(last), self._running_statistics_for_one(len(x)):
                # 2. Forward, in mixed precision if that is asked for; the loss is summed over the images.
                with self.config.autocast():
                    logits = self._computing(len(x))(x)  # (N, K)
                loss = self._loss(logits, mixed_targets)

                # 3. Backward. Processes average their gradients, hence their number; the scaler keeps small values of
                #    half precision from vanishing, and `update` divides by the same scale.
                mean_over_step = self.config.processes.count / step_images
                self.scaler.scale(loss * mean_over_step).backward()  # type: ignore[no-untyped-call]
            self._has_gradient = True
            return batch_counts(logits.detach().float(), labels, loss.detach())

    def update(self) -> None:
        """Apply the gradient to the weights and clear it; nothing if there is none. Raises: DeviceMemoryError."""
        if not self._has_gradient:
            return
        # The scaler undoes its scale, and leaves the step out if a gradient of half precision overflowed.
        with memory_errors(self.recipe.batch_size):  # the momentum is allocated by the first update
            self.scaler.step(self.optimizer)  # type: ignore[arg-type]  # it needs no more than ours has
        self.scaler.update()
        self.optimizer.zero_grad()
        self._has_gradient = False
        if self.average is not None:
            self.average.update(self.model)

    @property
    def evaluated_model(self) -> ResNet:
        """The net that is validated and saved: the average of the weights if the recipe keeps one."""
        return self.model if self.average is None else self.average.model

    def _computing(self, images: int) -> nn.Module:
        """What computes a batch of that size. Only the largest is compiled: the last one of an epoch comes once."""
        if images < self._compiled_images:
            return self._eager
        self._compiled_images = images
        return self.wrapped

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the images, in float32 or float64; targets (N,) classes or (N, K) shares."""
        values = logits if logits.dtype == torch.float64 else logits.float()
        return cross_entropy(values, targets, reduction="sum", label_smoothing=self.recipe.label_smoothing)

    def _gradient_exchange(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once per step, in the backward pass of its last batch."""
        no_sync = getattr(self._eager, "no_sync", None)
        return no_sync() if no_sync is not None and not last else nullcontext()

    @contextmanager
    def _running_statistics_for_one(self, images: int) -> Iterator[None]:
        """A single image has no statistics: as in Torch7, batch norm then uses its running ones and keeps them."""
        if images > 1 or (self.config.sync_bn and self.config.processes.count > 1):
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
