"""SGD in groups, frozen parts, and the momentum of an earlier run."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from resnet_tools.errors import TrainingError
from resnet_tools.training.optimizer import freeze, make_optimizer, momentum_of, set_momentum
from resnet_tools.training.recipe import make_recipe
from tests.support.small_nets import small_net, small_train_step

pytestmark = pytest.mark.usefixtures("one_thread")


def test_freezing_more_stages_than_there_are_is_refused():
    with pytest.raises(TrainingError, match="3 stages"):
        freeze(small_net(), 5)


def test_weight_decay_may_spare_batch_norms_and_biases():
    model = small_net()
    groups = make_optimizer(model, make_recipe("modern", "cifar10")).param_groups
    spared = [parameter for group in groups if group["weight_decay"] == 0 for parameter in group["params"]]
    assert all(parameter.ndim == 1 for parameter in spared)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    (everything,) = make_optimizer(model, make_recipe("original", "cifar10")).param_groups
    assert everything["weight_decay"] == 1e-4


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_a_first_step_that_overflows_leaves_weights_and_momentum_whole(momentum):
    """The scaler then leaves the step out, and the next one is that of an optimizer that begins with it."""
    stepped = []
    for values in ([math.inf, 1.0], [1.0]):
        model = small_net()
        recipe = make_recipe("original", "cifar10", momentum=momentum)
        optimizer, scaler = make_optimizer(model, recipe, scaled=True), torch.amp.GradScaler("cpu")
        for value in values:
            scaler.scale(value * sum(parameter.sum() for parameter in model.parameters())).backward()
            scaler.step(optimizer)
            scaler.update(1024.0)
            optimizer.zero_grad()
        stepped.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert all(buffer.isfinite().all() for buffer in momentum_of(model, optimizer).values())
    assert torch.equal(*stepped)


def test_zeros_for_the_momentum_are_no_other_start():
    weights = []
    for scaled in (False, True):
        model = small_net()
        optimizer = make_optimizer(model, make_recipe("original", "cifar10"), scaled=scaled)
        for _ in range(2):
            model(torch.ones(2, 3, 32, 32)).sum().backward()
            optimizer.step()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("scaled", [False, True])
def test_it_computes_what_torch_does_to_the_bit(momentum, scaled):
    recipe = replace(make_recipe("original", "cifar10"), momentum=momentum)
    nets = small_net(), small_net()
    nets[1].load_state_dict(nets[0].state_dict())
    options = {"momentum": momentum, "weight_decay": 1e-4, "nesterov": momentum > 0, "fused": True}
    ours, theirs = make_optimizer(nets[0], recipe, scaled=scaled), torch.optim.SGD(nets[1].parameters(), 0.1, **options)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        nets[0].conv1.weight.grad = nets[1].conv1.weight.grad = None if step == 1 else nets[0].conv1.weight.grad
        ours.step()
        theirs.step()
        for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.equal(one, other)
    ours.zero_grad()
    assert all(parameter.grad is None for parameter in nets[0].parameters())


def test_the_first_steps_of_a_training_do_not_import_the_compiler_of_torch():
    code = (
        "import sys, torch; from tests.support.small_nets import small_train_step; step = small_train_step();"
        "step.train_mode(); step.backward(torch.zeros(2, 3, 8, 8), torch.arange(2), 2, last=True); step.update();"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_momentum_of_another_net_is_refused():
    train_step = small_train_step()
    with pytest.raises(TrainingError, match=r"conv1\.weight"):
        set_momentum(train_step.model, train_step.optimizer, {"conv1.weight": torch.zeros(2, 2)})
