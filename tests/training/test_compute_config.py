"""Where and how a training computes does not change what it computes."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from resnet_tools.compute.processes import Processes
from resnet_tools.errors import TrainingError
from resnet_tools.training.compute_config import ComputeConfig
from tests.support.small_nets import CPU, small_train_step, some_images, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_compiled_net_takes_the_same_steps(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = small_train_step(), small_train_step(config=ComputeConfig(CPU, "double", compile=True))
    for train_step in (plain, compiled):
        train_step.train_mode()
        train_step.backward(*some_images(4), 4, last=True)
        train_step.update()
    assert compiled.wrapped is not compiled.model
    assert torch.allclose(weights(plain), weights(compiled), rtol=1e-10)


def test_synchronised_batch_norm_needs_gpus():
    with pytest.raises(TrainingError, match="--sync-bn"):
        small_train_step(config=ComputeConfig(CPU, "double", Processes(0, 2), sync_bn=True))
