"""Parameters -> SGD with the original's update, in groups that share a learning rate and a weight decay.

optim.sgd with momentum m, Nesterov and dampening 0: v = m v + g (v = g at first), p = p - lr (g + m v), where g
includes the weight decay. torch.optim.SGD computes the same. Source: torch/optim, sgd.lua.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from resnet_tools.errors import TrainingError
from resnet_tools.nets.resnet import ResNet
from resnet_tools.text import counted
from resnet_tools.training.recipe import Recipe

STEM = ("conv1", "bn1")  # what `Recipe.freeze` = 1 freezes; then layer1, layer2, ...


def freeze(model: ResNet, stages: int, *, norms: bool = False) -> None:
    """Exclude the stem and the first `stages - 1` stages from training, and with `norms` every batch norm.

    Raises: TrainingError if the net has fewer stages.
    """
    if stages > len(model.stages) + 1:
        raise TrainingError(
            f"--freeze {stages}: the net has only the stem and {counted(len(model.stages), 'stage')}; the most is "
            f"{len(model.stages) + 1}"
        )
    for part in [*frozen_parts(model, stages), *(batch_norms(model) if norms else [])]:
        part.requires_grad_(False)


def frozen_parts(model: ResNet, stages: int) -> list[nn.Module]:
    names = [*STEM, *model.stages[: stages - 1]] if stages else []
    return [model.get_submodule(name) for name in names]


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Every batch norm, including synchronised ones, which have the same fields."""
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
    return [cast(nn.BatchNorm2d, part) for part in module.modules() if isinstance(part, kinds)]


class Sgd:
    """The update of torch.optim.SGD by the function that computes it there; `param_groups` and `state` are as there.

    The first use of that class imports torch's compiler: 892 modules, more than a second of the start of a training.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], momentum: float, *, fused: bool) -> None:
        self.param_groups, self.momentum, self.fused = list(groups), momentum, fused
        self.state: dict[Tensor, dict[str, Any]] = {}
        # A GradScaler sets `grad_scale` and `found_inf` during a step instead of waiting for the device.
        self._step_supports_amp_scaling = fused

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            with_momentum = parameters if self.momentum else []
            buffers = [self.state.get(parameter, {}).get("momentum_buffer") for parameter in with_momentum]
            sgd(
                parameters,
                [parameter.grad for parameter in parameters],
                buffers,
                fused=self.fused,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                weight_decay=group["weight_decay"],
                momentum=self.momentum,
                lr=group["lr"],
                dampening=0,
                nesterov=self.momentum > 0,
                maximize=False,
            )
            for parameter, buffer in zip(with_momentum, buffers, strict=True):
                self.state.setdefault(parameter, {})["momentum_buffer"] = buffer


def make_optimizer(model: ResNet, recipe: Recipe, *, scaled: bool = False) -> Sgd:
    """SGD over the parameters that are not frozen; each group keeps its rate before the schedule as `base_lr`.

    scaled: gradients come through a GradScaler. Then the momentum starts as zeros, which is the same (m 0 + g = g): a
    fused first step that overflows, which does nothing, would leave it without a value.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    norms = {id(parameter) for norm in batch_norms(model) for parameter in norm.parameters()}
    for name, parameter in model.named_parameters():
        is_norm = id(parameter) in norms or name.endswith(".bias")
        decay = recipe.weight_decay if recipe.decay_norm or not is_norm else 0.0
        lr = recipe.classifier_lr if name.startswith("fc.") else recipe.lr
        if parameter.requires_grad and not (recipe.freeze_bn and id(parameter) in norms):
            groups.setdefault((lr, decay), []).append(parameter)
    optimizer = Sgd(
        [{"params": p, "lr": lr, "base_lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()],
        recipe.momentum,
        fused=model.conv1.weight.device.type in ("cuda", "cpu"),  # otherwise a GradScaler waits for the device
    )
    for trained in (p for group in groups.values() for p in group if scaled and recipe.momentum):
        optimizer.state[trained] = {"momentum_buffer": torch.zeros_like(trained)}
    return optimizer


def set_lr(optimizer: Sgd, factor: float) -> None:
    """Set the learning rate of each group to `factor` times its full one."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def momentum_of(model: ResNet, optimizer: Sgd) -> dict[str, Tensor]:
    """The momentum buffers by the names of their parameters: on the CPU, float32 or float64."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: state["momentum_buffer"].detach().cpu()
        for parameter, state in optimizer.state.items()
        if state.get("momentum_buffer") is not None
    }


def set_momentum(model: ResNet, optimizer: Sgd, momentum: Mapping[str, Any]) -> None:
    """Continue with the momentum of an earlier run. Parameters without one (frozen then, or new) start at zero.

    Raises: TrainingError if it is not a mapping of tensors, or a shape differs from that of the parameter.
    """
    if not isinstance(momentum, Mapping):
        kind = type(momentum).__name__
        raise TrainingError(f"the optimizer state holds a {kind} for the momentum; expected tensors by name")
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if not momentum or id(parameter) not in trained:
            continue
        buffer = momentum.get(name)
        fits = isinstance(buffer, Tensor) and buffer.layout == torch.strided and buffer.shape == parameter.shape
        if buffer is not None and not fits:
            raise TrainingError(f"the optimizer state does not fit the net: its momentum for {name} has another shape")
        start = torch.zeros_like(parameter)
        optimizer.state.setdefault(parameter, {})["momentum_buffer"] = start if buffer is None else start.copy_(buffer)
