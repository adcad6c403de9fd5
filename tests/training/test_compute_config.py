"""Where and how a training computes does not change what it computes."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import torch

from resnet_tools.compute.launcher import run_processes
from resnet_tools.compute.processes import Processes
from resnet_tools.errors import TrainingError
from resnet_tools.nets.resnet import build_resnet
from resnet_tools.training.compute_config import ComputeConfig, fast_layout
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


def test_only_the_largest_batch_is_compiled(monkeypatch):
    monkeypatch.setattr("resnet_tools.training.step.compiled", lambda module: noting(module, sizes))
    sizes = []
    train_step = small_train_step(config=ComputeConfig(CPU, "double", compile=True))
    train_step.train_mode()
    for count in (8, 8, 3, 8, 5):  # the last batch of an epoch is smaller
        train_step.backward(*some_images(count), count, last=True)
        train_step.update()
    assert sizes == [8, 8, 8]


def noting(module, sizes):
    def call(x):
        sizes.append(len(x))
        return module(x)

    return call


def test_equal_runs_on_a_gpu_need_contiguous_tensors():
    wide = build_resnet("resnet-18", num_classes=2)
    gpu = torch.device("cuda", 0)
    assert fast_layout(wide, ComputeConfig(gpu)) == torch.channels_last
    assert fast_layout(wide, ComputeConfig(gpu, deterministic=True)) == torch.contiguous_format
    assert fast_layout(wide, ComputeConfig(CPU, deterministic=True)) == torch.channels_last


WIDE = """
import os, torch
from resnet_tools.compute.processes import broadcast_buffers, joined_processes
from resnet_tools.nets.resnet import build_resnet
from resnet_tools.nets.catalog import named_architecture
from dataclasses import replace
from tests.support.small_nets import CPU, ComputeConfig, small_train_step
with joined_processes() as processes:
    torch.manual_seed(processes.rank)
    net = build_resnet(replace(named_architecture("resnet-50"), num_classes=2))
    train_step = small_train_step(net, config=ComputeConfig(CPU, "single", processes))
    train_step.train_mode()
    train_step.backward(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), 4, last=True)
    own = float(train_step.model.bn1.running_mean.norm())
    broadcast_buffers(train_step.model, processes)
    values = processes.gather((own, float(train_step.model.bn1.running_mean.norm())))
    counts = processes.gather(int(train_step.model.bn1.num_batches_tracked))
    if processes.rank == 0:
        print(values[0][0] != values[1][0], values[0][1] == values[1][1] == values[0][0], counts, flush=True)
os._exit(0)
"""


def test_processes_exchange_gradients_in_silence_and_take_the_statistics_of_the_first(capfd):
    assert run_processes([sys.executable, "-W", "default", "-c", WIDE], 2) == 0
    out, err = capfd.readouterr()
    assert out.split() == ["True", "True", "[1,", "1]"]
    assert "Grad strides" not in err
