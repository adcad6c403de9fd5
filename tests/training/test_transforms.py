"""Training images are normalised crops, drawn reproducibly."""

from __future__ import annotations

import pytest
import torch

from resnet_tools.data.transforms import CIFAR10
from resnet_tools.training.batches import random_numbers
from resnet_tools.training.transforms import augmentation, training_transform
from tests.support.small_nets import sample_set


@pytest.mark.parametrize("name", ["original", "light", "trivial", "none"])
@pytest.mark.parametrize("dataset", ["imagenet", "cifar10"])
def test_every_augmentation_gives_normalised_crops(name, dataset):
    transform = training_transform(name, dataset, CIFAR10)
    views = [transform(sample_set().images[0], random_numbers(0, 1, k)) for k in range(8)]
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.float32 for view in views)
    assert all(bool(view.isfinite().all()) and float(view.abs().max()) < 6 for view in views)
    assert torch.equal(views[0], transform(sample_set().images[0], random_numbers(0, 1, 0)))
    drawn = any(not torch.equal(views[0], view) for view in views[1:])
    assert drawn == (name != "none")
    assert augmentation(name, dataset).flip == (name != "none")
