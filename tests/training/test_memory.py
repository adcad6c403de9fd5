"""Training in less memory, and what fits into it."""

from __future__ import annotations

import pytest
import torch

from resnet_tools.errors import DeviceMemoryError
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.memory import largest_that_fits
from tests.support.small_nets import CPU, small_train_step, some_images

pytestmark = pytest.mark.usefixtures("one_thread")


def test_checkpointed_activations_change_nothing():
    config = ComputeConfig(CPU, "double", checkpoint_activations=True)
    plain, saving = small_train_step(), small_train_step(config=config)
    for train_step in (plain, saving):
        for seed in range(2):
            train_step.train_mode()
            train_step.backward(*some_images(6, seed), 6, last=True)
            train_step.update()
    for (name, a), b in zip(plain.model.state_dict().items(), saving.model.state_dict().values(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-12, atol=1e-14), name


def test_the_largest_batch_that_fits_is_found():
    tried = []

    def try_batch(images):
        tried.append(images)
        if images > 9:
            raise DeviceMemoryError("too many")

    assert largest_that_fits(try_batch, 64) == 8
    assert tried == [32, 16, 8]

    def never(_):
        raise DeviceMemoryError("none fits")

    assert largest_that_fits(never, 4) == 0
