"""Options -> how a training loads and computes."""

from __future__ import annotations

import pytest
import torch

from resnet_tools.training import setup


def test_a_gpu_is_fed_by_the_cores_of_its_process(monkeypatch):
    monkeypatch.setattr(setup, "usable_cpus", lambda: 24)
    assert setup._workers(torch.device("cuda", 0)) == 16
    assert setup._workers(torch.device("cpu")) == 2
    job = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**job, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert setup._workers(torch.device("cuda", 1)) == 6


@pytest.mark.parametrize(("precision", "tf32"), [("single", False), ("tf32", True), ("double", False), ("bf16", True)])
def test_single_is_float32(monkeypatch, precision, tf32):
    from types import SimpleNamespace

    from resnet_tools.compute.processes import ALONE
    from resnet_tools.training.recipe import make_recipe

    told = {}
    monkeypatch.setattr(setup, "configure", lambda *_, **named: told.update(named))
    options = SimpleNamespace(
        precision=precision, cudnn="deterministic", sync_bn=False, compile=False, checkpoint_activations=False
    )
    start = SimpleNamespace(state=SimpleNamespace(recipe=make_recipe("modern", "cifar10")))
    config = setup.set_up_compute(options, start, torch.device("cuda", 0), ALONE)
    assert told == {"allow_tf32": tf32}
    assert (config.precision, config.deterministic) == (precision, True)
