"""The exponential moving average of a net's weights, which often has a lower error than the weights themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from resnet_tools.nets.resnet import ResNet


class WeightAverage:
    """`model` holds the average; after t updates the decay is min(decay, (1 + t) / (10 + t)), for a quick start."""

    def __init__(self, model: ResNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0
        self._means: tuple[list[Tensor], list[Tensor]] | None = None
        self._values: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, model: ResNet) -> None:
        """Move parameters and running statistics towards those of `model`; counters are copied."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        if self._means is None or self._values is None:  # training changes tensors in place, never for others
            self._means, self._values = _tensors(self.model), _tensors(model)
        torch._foreach_lerp_(self._means[0], self._values[0], share)
        torch._foreach_copy_(self._means[1], self._values[1])


def _tensors(model: ResNet) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and running statistics; counters."""
    tensors = list(model.state_dict().values())
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]
