"""The exponential moving average of a net's weights, which often has a lower error than the weights themselves."""

from __future__ import annotations

import copy

import torch

from resnet_tools.nets.resnet import ResNet


class WeightAverage:
    """`model` holds the average; after t updates the decay is min(decay, (1 + t) / (10 + t)), for a quick start."""

    def __init__(self, model: ResNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: ResNet) -> None:
        """Move parameters and running statistics towards those of `model`; counters are copied."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        means, values = self.model.state_dict().values(), model.state_dict().values()
        pairs = [(mean, value) for mean, value in zip(means, values, strict=True)]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floating], [value for _, value in floating], share)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)
