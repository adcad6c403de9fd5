"""The nets of the original program, read from its files, give its numbers."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from resnet_tools.errors import ModuleError, RecognitionError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import architecture
from resnet_tools.nets.state_dict import load_resnet
from resnet_tools.torch7.lua import LuaObject
from resnet_tools.torch7.modules import Module, module_tree
from resnet_tools.torch7.outline import outline
from resnet_tools.torch7.recognise import recognise_and_bind
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.torch7.template import bind
from resnet_tools.torch7.weights import state_dict
from tests.support.golden import DATA, ModelCase, model_cases, needs_golden, other_model_cases
from tests.support.lua_nets import LuaNet, child_of, lua_net
from tests.support.strategies import architectures

# float32 arithmetic in another order moves the logits of the deepest nets by 8e-5 of the largest (README of the golden
# data); features are held to the same absolute size.
TOLERANCE = 1e-4
SMALL = replace(architecture(18, num_classes=10), stem_width=8, widths=(8, 16, 24, 32), inner_widths=(8, 16, 24, 32))


def weights_of(tree: Module, net: Architecture = SMALL) -> dict[str, torch.Tensor]:
    return state_dict(bind(outline(tree), net), net)


def zero_biases(tree: Module) -> int:
    """Numbers that the original counts as parameters and that we leave out."""
    biases = [m.tensors["bias"] for m in tree.walk() if m.kind == "SpatialConvolution" and "bias" in m.tensors]
    return 0 if any(bias.any() for bias in biases) else sum(bias.size for bias in biases)


def assert_equal_to_the_original(case: ModelCase) -> None:
    first_upload = "first_upload" in case.name
    tree = module_tree(read_t7(case.path))
    net, bound = recognise_and_bind(tree)
    with pytest.warns(UserWarning, match="4 times too wide") if first_upload else contextlib.nullcontext():
        model = load_resnet(net, state_dict(bound, net))
    with torch.inference_mode():
        features = model.forward_features(torch.from_numpy(case.input()))
        logits = model.fc(features)
    expected, description = case.array("logits"), case.description
    scale = np.abs(expected).max()
    assert np.abs(logits.numpy() - expected).max() <= TOLERANCE * scale
    assert np.abs(features.numpy() - case.array("features")).max() <= TOLERANCE * max(
        scale, np.abs(case.array("features")).max()
    )
    assert sum(p.numel() for p in model.parameters()) == description["parameter_count"] - zero_biases(tree)
    top = [[number - 1 for number in row["classes_1based"]] for row in description["top"]]
    assert logits.topk(len(top[0])).indices.tolist() == top


@pytest.mark.parametrize("case", model_cases(DATA / "models"), ids=lambda case: case.name)
def test_logits_features_and_parameters_are_the_originals(case):
    assert_equal_to_the_original(case)


@needs_golden
@pytest.mark.parametrize("case", other_model_cases(), ids=lambda case: case.name)
def test_logits_features_and_parameters_are_the_originals_everywhere(case):
    assert_equal_to_the_original(case)


@settings(deadline=None, max_examples=30)
@given(architectures())
def test_any_net_fills_every_parameter_of_its_module(net):
    tree = module_tree(lua_net(net))
    model = load_resnet(net, weights_of(tree, net))
    with torch.inference_mode():
        logits = model(torch.zeros(2, net.in_channels, 32, 32))
    assert logits.shape == (2, net.num_classes)
    assert logits.isfinite().all()


def test_weights_in_half_and_double_become_single():
    tree = module_tree(lua_net(SMALL))
    expected = weights_of(tree)
    for dtype, tolerance in ((np.float16, 1e-3), (np.float64, 0)):
        found = weights_of(with_dtype(tree, dtype))
        assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in found.values())
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=tolerance, atol=tolerance)


def test_a_double_beyond_float32_is_refused_with_its_module():
    lua = lua_net(SMALL)
    weight = child_of(lua, 1).fields["weight"].astype(np.float64)
    weight[0, 0, 0, 0] = -1e39
    child_of(lua, 1).fields["weight"] = weight
    message = r"module 1 \(cudnn\.SpatialConvolution\): weight holds 1e\+39; expected at most 3\.4e\+38"
    with pytest.raises(ModuleError, match=message):
        weights_of(module_tree(lua))


def with_dtype(tree: Module, dtype: type) -> Module:
    tensors = {name: tensor.astype(dtype) for name, tensor in tree.tensors.items()}
    return replace(tree, tensors=tensors, children=tuple(with_dtype(child, dtype) for child in tree.children))


def test_a_batch_norm_without_affine_parameters_scales_by_one():
    lua = lua_net(SMALL)
    del child_of(lua, 2).fields["weight"]
    del child_of(lua, 2).fields["bias"]
    weights = weights_of(module_tree(lua))
    assert weights["bn1.weight"].eq(1).all()
    assert weights["bn1.bias"].eq(0).all()


class FirstUpload(LuaNet):
    """The 3 x 3 convolutions' batch norms are four times too wide and trained in the first quarter only."""

    def bn(self, width):
        norm = super().bn(width)
        for name, rest in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
            tensor = norm.fields[name]
            norm.fields[name] = np.concatenate([tensor, np.full(3 * width, rest, np.float32)])
        return norm


def test_batch_norms_that_are_too_wide_are_cut_with_a_warning():
    lua, wide = LuaNet(SMALL, 3).build(), FirstUpload(SMALL, 3).build()
    with pytest.warns(UserWarning, match=r"batch norms are 4 times too wide, .*module 2"):
        found = weights_of(module_tree(wide))
    for key, tensor in weights_of(module_tree(lua)).items():
        assert torch.equal(found[key], tensor), key


def test_a_batch_norm_that_is_too_wide_and_trained_is_refused():
    wide = FirstUpload(SMALL, 3).build()
    child_of(wide, 2).fields["running_mean"][-1] = 0.5
    with pytest.raises(RecognitionError, match=r"module 2 .*weight has size 32; expected 8"):
        weights_of(module_tree(wide))


def tied_net() -> LuaObject:
    """The second convolution of a block is its first."""
    lua = lua_net(SMALL)
    block = child_of(lua, 5, 2, 1, 1)
    block["modules"][4] = block["modules"][1]
    return lua


def test_tied_weights_are_copied_to_each_place():
    weights = weights_of(module_tree(tied_net()))
    assert torch.equal(weights["layer1.1.conv1.weight"], weights["layer1.1.conv2.weight"])


def test_a_few_numbers_that_would_become_many_weights_are_refused(monkeypatch):
    monkeypatch.setattr("resnet_tools.torch7.weights.MOST_TIED", 1000)
    monkeypatch.setattr("resnet_tools.torch7.weights.MAX_TYING", 1)
    with pytest.raises(ModuleError, match="expected each weight stored once"):
        weights_of(module_tree(tied_net()))
