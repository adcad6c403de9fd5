"""The names and shapes of a net's tensors are those of its module, in its order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.parameters import tensor_shapes
from resnet_tools.nets.resnet import ResNet
from tests.support.strategies import architectures


@settings(deadline=None, max_examples=40)
@given(architectures())
def test_they_are_those_of_the_module(architecture: Architecture):
    for net in (architecture, replace(architecture, num_classes=0)):
        expected = {key: tuple(tensor.shape) for key, tensor in ResNet(net).state_dict().items()}
        assert list(tensor_shapes(net).items()) == list(expected.items())
