"""The description of a net as plain values, also from files that nobody vouches for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.errors import CheckpointError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import architecture_names, named_architecture
from resnet_tools.nets.resnet import ResNet
from tests.support.strategies import architectures

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@given(architectures())
def test_an_architecture_survives_json(net):
    assert Architecture.from_dict(json.loads(json.dumps(net.to_dict()))) == net


@pytest.mark.parametrize("name", architecture_names())
def test_every_named_architecture_survives_json(name):
    net = named_architecture(name)
    assert Architecture.from_dict(json.loads(json.dumps(net.to_dict()))) == net


@given(architectures())
def test_parameters_are_counted_without_the_net(net):
    with torch.device("meta"):
        assert net.parameters == sum(parameter.numel() for parameter in ResNet(net).parameters())


@given(architectures(), st.sampled_from(list(Architecture.__dataclass_fields__)), PLAIN | st.lists(PLAIN, max_size=3))
def test_any_damaged_value_is_an_error_of_ours_or_possible(net, field, value):
    values = net.to_dict() | {field: value}
    try:
        found = Architecture.from_dict(values)
    except CheckpointError:
        return
    assert {"in_channels": 3} | found.to_dict() == {"in_channels": 3} | values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [10**9] * 3}, "expected 1 to 10000 blocks"),
        ({"widths": [2**40, 1, 1]}, "are not all in 1 to"),
        ({"order": "post"}, "order is 'post', which is impossible"),
        ({"colour": 1}, "unknown fields colour"),
        ({"stages": [1]}, "differ in length"),
        ({"groups": 7}, "7 groups do not divide"),
        ({"bn_eps": float("nan")}, "bn_eps is nan"),
        ({"in_channels": 2}, "images of 2 channels; expected 3, or 1 for gray"),
        ({"in_channels": True}, "in_channels is True, which is impossible"),
        ({"stages": [1] * 5, "widths": [8] * 5, "inner_widths": [8] * 5}, "5 stages; expected 1 to 4"),
    ],
)
def test_impossible_values_are_named(change, message):
    values = named_architecture("cifar10-resnet-20").to_dict() | change
    with pytest.raises(CheckpointError, match=message):
        Architecture.from_dict(values)


def test_a_net_of_color_images_is_written_as_it_was_before_gray_ones_existed():
    net = named_architecture("cifar10-resnet-20")
    assert "in_channels" not in net.to_dict()
    assert replace(net, in_channels=1).to_dict()["in_channels"] == 1


@pytest.mark.parametrize("values", [None, [], "x", {}, {"block": "basic"}])
def test_what_is_no_description_is_refused(values):
    with pytest.raises(CheckpointError, match=r"expected a table|lacks the fields"):
        Architecture.from_dict(values)
