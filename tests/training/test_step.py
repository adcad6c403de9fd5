"""The training step: accumulation, frozen parts, precision, and several processes."""

from __future__ import annotations

import copy
import math
import sys

import pytest
import torch

from resnet_tools.compute.launcher import run_processes
from resnet_tools.errors import DeviceMemoryError, TrainingError
from resnet_tools.metrics import ErrorCounts
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.counts import check_loss, read_counts
from resnet_tools.training.optimizer import freeze
from tests.support.fake_gpu import GPU, fake_gpu
from tests.support.small_nets import CPU, small_net, small_train_step, some_images, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def test_accumulated_batches_are_one_large_batch():
    # With frozen statistics images do not see each other, so the mean gradient is the same.
    images, targets = some_images(10)
    whole, parts = (small_train_step(freeze_bn=True) for _ in range(2))
    whole.train_mode()
    parts.train_mode()
    whole.backward(images, targets, 10, last=True)
    parts.backward(images[:7], targets[:7], 10, last=False)
    parts.backward(images[7:], targets[7:], 10, last=True)
    whole.update()
    parts.update()
    assert torch.allclose(weights(whole), weights(parts), rtol=1e-10, atol=1e-12)


def test_frozen_parts_stay_as_they_are():
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    freeze(model, 2)  # the stem and layer1
    train_step = small_train_step(model, freeze=2)
    for _ in range(2):
        train_step.train_mode()
        train_step.backward(*some_images(6), 6, last=True)
        train_step.update()
    after = train_step.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name].double(), after[name].double())}
    assert not [name for name in moved if name.startswith(("conv1", "bn1", "layer1"))]
    assert {"layer2.0.conv1.weight", "layer2.0.bn1.running_mean", "fc.bias"} <= moved


def test_frozen_batch_norms_stay_as_they_are():
    train_step = small_train_step(freeze_bn=True)
    before = copy.deepcopy(train_step.model.state_dict())
    train_step.train_mode()
    train_step.backward(*some_images(6), 6, last=True)
    train_step.update()
    moved = {name for name, tensor in train_step.model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert not [name for name in moved if "bn" in name]
    assert "conv1.weight" in moved


def test_a_single_image_keeps_the_running_statistics():
    train_step = small_train_step()
    train_step.train_mode()
    before = train_step.model.bn1.running_mean.clone()
    train_step.backward(*some_images(1), 1, last=True)
    assert torch.equal(train_step.model.bn1.running_mean, before)
    assert train_step.model.bn1.training
    train_step.backward(*some_images(2), 2, last=True)
    assert not torch.equal(train_step.model.bn1.running_mean, before)


@pytest.mark.parametrize("precision", ["single", "bf16"])
def test_other_precisions_learn_the_same_way(precision):
    exact, rough = small_train_step(), small_train_step(config=ComputeConfig(CPU, precision))
    images, targets = some_images(8)
    losses = []
    for train_step in (exact, rough):
        train_step.train_mode()
        losses.append(train_step.backward(images, targets, 8, last=True).read().loss)
        train_step.update()
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if precision == "single" else 0.05)
    assert rough.model.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_with_what_to_try(loss):
    with pytest.raises(TrainingError, match=r"epoch 2, batch 5: the loss is .* 0\.3.*--lr"):
        check_loss(ErrorCounts(4, 1, 1, loss), "epoch 2, batch 5", 0.3)


TWO = """
import os, torch
from resnet_tools.compute.processes import joined_processes
from tests.support.small_nets import CPU, ComputeConfig, small_train_step, some_images, weights
torch.set_num_threads(1)
with joined_processes() as processes:
    train_step = small_train_step(config=ComputeConfig(CPU, "double", processes), freeze_bn=True)
    for seed in range(3):
        images, targets = some_images(15, seed)
        mine = slice(0, 8) if processes.rank == 0 else slice(8, 15)
        train_step.train_mode()
        counts = train_step.backward(images[mine], targets[mine], 15, last=True).read()
        train_step.update()
        total = sum(part.loss_sum for part in processes.gather(counts))
    if processes.rank == 0:
        print(total, float(weights(train_step).norm()), flush=True)
os._exit(0)  # as the command line ends: gloo's threads may abort a process that tears down torch
"""


def test_two_processes_take_the_steps_of_one(capfd):
    assert run_processes([sys.executable, "-c", TWO], 2) == 0
    loss, norm = map(float, capfd.readouterr().out.split())
    train_step = small_train_step(freeze_bn=True)
    for seed in range(3):
        train_step.train_mode()
        counts = train_step.backward(*some_images(15, seed), 15, last=True).read()
        train_step.update()
    assert loss == pytest.approx(counts.loss_sum, rel=1e-10)
    assert norm == pytest.approx(float(weights(train_step).norm()), rel=1e-12)


def test_frozen_batch_norms_get_no_gradient():
    model = small_net()
    freeze(model, 0, norms=True)
    train_step = small_train_step(model, freeze_bn=True)
    train_step.train_mode()
    train_step.backward(*some_images(6), 6, last=True)
    without = {name for name, parameter in train_step.model.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in train_step.model.named_parameters() if "bn" in name}


def test_nothing_in_a_step_waits_for_the_device(monkeypatch):
    """A GPU is waited for when a number is asked of a tensor."""
    train_step = small_train_step(config=ComputeConfig(CPU, "single"), ema=0.9, label_smoothing=0.1)
    asked = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
        whole = getattr(torch.Tensor, name)

        def noted(self, *arguments, whole=whole, name=name):
            asked.append(name)
            return whole(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, noted)
    images, targets = some_images(8)
    counts = []
    for _ in range(3):
        train_step.train_mode()
        counts.append(train_step.backward(images, targets, 8, last=True))
        train_step.update()
    assert asked == []
    read = read_counts(counts)
    assert asked == ["tolist"]
    assert [count.images for count in read] == [8, 8, 8]
    assert read[2].loss < read[0].loss


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 asks the driver to change a made-up tensor's layout")
@pytest.mark.parametrize("precision", ["single", "half", "bf16"])
@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "label_smoothing": 0.1}, {"freeze_bn": True}])
def test_a_step_on_a_gpu_stays_there_and_waits_for_nothing(precision, changes):
    model = small_net()
    images, targets = ((8, 3, 32, 32), torch.float32), ((8,), torch.int64)
    with fake_gpu() as waits:
        train_step = small_train_step(model, config=ComputeConfig(GPU, precision), **changes)
        images, targets = (torch.empty(shape, dtype=kind, device=GPU) for shape, kind in (images, targets))
        del waits[:]
        for _ in range(2):
            train_step.train_mode()
            counts = train_step.backward(images, targets, 8, last=True)
            train_step.update()
    assert counts.values.device == GPU
    assert waits == []


def test_a_net_without_room_on_the_device_is_said(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model = small_net()
    monkeypatch.setattr(model, "to", full)
    with pytest.raises(DeviceMemoryError, match="not enough memory for the net"):
        small_train_step(model)
