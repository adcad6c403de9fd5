"""Names of devices and precisions become those that this machine has."""

from __future__ import annotations

import os

import pytest
import torch

from resnet_tools.compute import device
from resnet_tools.compute.device import configure, default_workers, find_device, find_precision
from resnet_tools.errors import ResnetToolsError
from tests.support.small_nets import CPU


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ResnetToolsError, match=f"device '{name}' is (unknown|not there)"):
        find_device(name)


def test_a_gpu_without_a_number_is_the_first(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(find_device(name)) for name in ("auto", "cuda", "cuda:1")] == ["cuda:0", "cuda:0", "cuda:1"]
    assert [str(find_device(name)) for name in ("0", "1")] == ["cuda:0", "cuda:1"]
    with pytest.raises(ResnetToolsError, match="device '2' is not there; this machine has"):
        find_device("2")


def test_precision_is_single_on_a_cpu_unless_it_is_asked_for():
    assert find_precision(None, CPU, automatic=True) == "single"
    assert find_precision("bf16", CPU, automatic=False) == "bf16"


@pytest.fixture
def restored_tf32():
    earlier = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = earlier


@pytest.mark.usefixtures("restored_tf32")
def test_deterministic_runs_ask_torch_for_equal_results(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *given, **named: asked.append((given, named)))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    configure(torch.device("cuda"), "fastest", allow_tf32=False)
    assert (asked, "CUBLAS_WORKSPACE_CONFIG" in os.environ) == ([], False)
    configure(torch.device("cuda"), "deterministic", allow_tf32=False)
    assert asked == [((True,), {"warn_only": True})]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def test_a_gpu_is_fed_by_the_cores_of_its_process(monkeypatch):
    monkeypatch.setattr(device, "usable_cpus", lambda: 24)
    assert default_workers(torch.device("cuda", 0)) == 16
    assert default_workers(torch.device("cpu")) == 2
    job = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**job, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert default_workers(torch.device("cuda", 1)) == 6
