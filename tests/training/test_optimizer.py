"""SGD in groups, frozen parts, and the momentum of an earlier run."""

from __future__ import annotations

import pytest
import torch

from resnet_tools.errors import TrainingError
from resnet_tools.training.optimizer import freeze, make_optimizer, set_momentum
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


def test_a_first_step_that_overflows_leaves_the_momentum_whole():
    optimizer = make_optimizer(small_net(), make_recipe("original", "cifar10"), scaled=True)
    assert not optimizer.param_groups[0]["fused"]


def test_momentum_of_another_net_is_refused():
    train_step = small_train_step()
    with pytest.raises(TrainingError, match=r"conv1\.weight"):
        set_momentum(train_step.model, train_step.optimizer, {"conv1.weight": torch.zeros(2, 2)})
