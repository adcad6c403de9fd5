"""SGD in groups, frozen parts, and the momentum of an earlier run."""

from __future__ import annotations

import math

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


def test_momentum_of_another_net_is_refused():
    train_step = small_train_step()
    with pytest.raises(TrainingError, match=r"conv1\.weight"):
        set_momentum(train_step.model, train_step.optimizer, {"conv1.weight": torch.zeros(2, 2)})
