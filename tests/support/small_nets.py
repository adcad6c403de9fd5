"""A net of one block a stage, images for it, and the training step on both."""

from __future__ import annotations

import numpy as np
import torch

from resnet_tools.data.samples import Samples
from resnet_tools.nets.resnet import ResNet, build_resnet
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.mixing import seeded
from resnet_tools.training.recipe import make_recipe
from resnet_tools.training.step import TrainStep

CPU = torch.device("cpu")


def small_net(num_classes: int = 10, seed: int = 0) -> ResNet:
    with seeded(seed):
        return build_resnet(depth=8, dataset="cifar10", num_classes=num_classes)


def small_train_step(model: ResNet | None = None, *, config: ComputeConfig | None = None, **changes) -> TrainStep:
    changes = {"lr": 0.05} | changes
    return TrainStep(
        model or small_net(), make_recipe("original", "cifar10", **changes), config or ComputeConfig(CPU, "double")
    )


def some_images(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, 3, 32, 32))
    return torch.from_numpy(images), torch.from_numpy(generator.integers(0, 10, count))


def weights(train_step: TrainStep) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in train_step.model.parameters()])


def sample_set(count: int = 12) -> Samples:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return Samples(pixels, [k % 3 for k in range(count)], ["a", "b", "c"])
