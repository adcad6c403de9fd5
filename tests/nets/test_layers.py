"""Nets over given weights are the regular nets, attribute by attribute."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import fx, nn

from resnet_tools.nets.catalog import architecture
from resnet_tools.nets.layers import layer, without_values
from resnet_tools.nets.resnet import ResNet
from resnet_tools.nets.state_dict import load_resnet
from tests.support.strategies import architectures

CIFAR = architecture(8, dataset="cifar10")


def attributes(model: nn.Module) -> Iterator[tuple[str, type, dict[str, Any]]]:
    """The name and class of each module and all that it holds; of tensors what they are, and their numbers."""
    for name, module in model.named_modules():
        held = dict(module.__dict__)
        for kind in ("_parameters", "_buffers"):
            held[kind] = {key: None if t is None else described(t) for key, t in held[kind].items()}
        held["_modules"] = list(held["_modules"])
        yield name, type(module), held


def described(tensor: torch.Tensor) -> tuple[Any, ...]:
    return type(tensor), tensor.requires_grad, tensor.dtype, tensor.device, tensor.is_leaf, tensor.tolist()


@settings(deadline=None, max_examples=20)
@given(architectures())
def test_a_net_over_given_weights_is_the_net_that_loads_them(net):
    state = {key: value.clone() for key, value in ResNet(net).state_dict().items()}
    regular = ResNet(net)
    regular.load_state_dict(state)
    over = load_resnet(net, state)
    assert list(attributes(over)) == list(attributes(regular.eval()))
    assert repr(over) == repr(regular)
    assert list(over.state_dict()) == list(regular.state_dict())
    assert over.conv1.weight.data_ptr() == state["conv1.weight"].data_ptr()


@pytest.mark.parametrize("change", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), fx.symbolic_trace])
def test_such_a_net_can_be_copied_pickled_and_traced(change):
    model = load_resnet(CIFAR, ResNet(CIFAR).state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    changed = change(model)
    assert torch.equal(changed(images), model(images))
    assert {"conv1", "layer1.0.bn2", "fc"} <= {name for name, _ in changed.named_modules()}  # layers stay layers


def test_nothing_is_drawn_without_values():
    before = torch.get_rng_state()
    with without_values():
        model = ResNet(CIFAR)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_layers_have_values_again_afterwards():
    with pytest.raises(ZeroDivisionError), without_values():
        raise ZeroDivisionError
    assert torch.equal(layer(nn.BatchNorm2d, 2).weight, torch.ones(2))


def test_a_default_device_of_the_program_is_not_where_a_loaded_net_lies():
    state = ResNet(CIFAR).state_dict()
    with torch.device("meta"):
        model = load_resnet(CIFAR, {key: value.numpy() for key, value in state.items()})
    assert torch.equal(model.fc.weight, state["fc.weight"])
