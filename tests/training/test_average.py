"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch

from resnet_tools.training.average import WeightAverage
from tests.support.small_nets import small_net

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_average_of_equal_weights_stays_and_follows_new_ones():
    model = small_net()
    average = WeightAverage(model, 0.5)
    average.update(model)
    assert torch.allclose(average.model.conv1.weight, model.conv1.weight)
    with torch.no_grad():
        model.fc.bias.fill_(1.0)
        model.bn1.num_batches_tracked.fill_(7)
    average.update(model)  # after one update the decay is min(0.5, 2 / 11)
    assert average.model.fc.bias.tolist() == pytest.approx([1 - 2 / 11] * 10)
    assert int(average.model.bn1.num_batches_tracked) == 7
