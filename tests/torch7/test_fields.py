"""Nets with fields that change what a module computes: computed as Lua does, or refused with the module's name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from resnet_tools import load_checkpoint
from resnet_tools.errors import RecognitionError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import architecture
from resnet_tools.nets.resnet import ResNet
from resnet_tools.nets.state_dict import load_resnet
from resnet_tools.torch7.fields import FIELDS, NO_EFFECT, READ, Only
from resnet_tools.torch7.lua import LuaFunction, LuaObject
from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.recognise import recognise, recognise_and_bind
from resnet_tools.torch7.weights import state_dict
from tests.support.golden import DATA
from tests.support.lua_nets import LuaNet, child_of, lua_net, module, sequential

CASES = json.loads((DATA / "lua" / "index.json").read_text())
REFUSED = {"relu_threshold_field": r"module 3 \(nn\.ReLU\): threshold is 0\.3, so it is not max\(0, x\); expected 0"}
CIFAR = architecture(8, dataset="cifar10", shortcut_type="B")
TYPE_A = architecture(8, dataset="cifar10")
INPUT = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_net_that_lua_wrote_gives_its_logits_or_is_refused(case):
    path = DATA / "lua" / case["file"]
    if case["name"] in REFUSED:
        with pytest.raises(RecognitionError, match=REFUSED[case["name"]]):
            load_checkpoint(path)
        return
    x = torch.from_numpy(np.load(DATA / "models" / "inputs" / "cifar10.npz")[case["input_key"]])
    expected = np.load(DATA / "lua" / case["logits"])
    with torch.inference_mode():
        found = load_checkpoint(path).model(x).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def model_of(lua: LuaObject) -> ResNet:
    net, bound = recognise_and_bind(module_tree(lua))
    return load_resnet(net, state_dict(bound, net))


def insert(lua: LuaObject, at: int, item: LuaObject) -> None:
    modules = lua["modules"]
    for number in range(len(modules), at - 1, -1):
        modules[number + 1] = modules[number]
    modules[at] = item


def head_length(net: Architecture = CIFAR) -> int:
    return len(lua_net(net)["modules"])


@pytest.mark.parametrize("back", [0, 1, 2])  # in front of the nn.Linear, the nn.View, the pooling
@pytest.mark.parametrize("missing", [True, False])
def test_dropout_of_version_1_scales_by_1_less_p(back, missing):
    lua = lua_net(CIFAR)
    plain = model_of(lua)
    fields = {} if missing else {"v2": False}
    insert(lua, head_length() - back, module("nn.Dropout", p=0.25, **fields))
    with torch.inference_mode():
        expected = plain.fc(0.75 * plain.forward_features(INPUT))
        torch.testing.assert_close(model_of(lua)(INPUT), expected, rtol=1e-5, atol=1e-6)


def test_dropout_of_version_1_before_a_convolution_scales_its_weight():
    lua = lua_net(CIFAR)
    plain = model_of(lua)
    insert(child_of(lua, 4, 1, 1, 1), 4, module("nn.Dropout", p=0.5, v2=False))
    found = model_of(lua)
    torch.testing.assert_close(found.layer1[0].conv2.weight, 0.5 * plain.layer1[0].conv2.weight)
    assert torch.equal(found.layer1[0].conv1.weight, plain.layer1[0].conv1.weight)


def test_dropout_of_version_2_changes_nothing():
    lua = lua_net(CIFAR)
    expected = model_of(lua)(INPUT)
    insert(lua, head_length(), module("nn.Dropout", p=0.25, v2=True, stochastic_inference=False))
    assert torch.equal(model_of(lua)(INPUT), expected)


@pytest.mark.parametrize(("path", "at"), [((4, 1, 1, 1), 5), ((4, 1, 1, 1), 6), ((4, 1), 3), ((), 10)])
def test_dropout_of_version_1_whose_factor_has_nowhere_to_go_is_refused(path, at):
    lua = lua_net(CIFAR)
    at = min(at, len(child_of(lua, *path)["modules"]) + 1)
    insert(child_of(lua, *path), at, module("nn.Dropout", p=0.5))
    where = ".".join(map(str, (*path, at)))
    message = rf"module {where} \(nn\.Dropout\) is of version 1|module {where} is nn\.Dropout"
    with pytest.raises(RecognitionError, match=message):
        recognise(module_tree(lua))


def test_the_table_knows_no_other_effects():
    for effects in FIELDS.values():
        assert all(effect in (READ, NO_EFFECT) or isinstance(effect, Only) for effect in effects.values())


@pytest.mark.parametrize(
    ("net", "path", "field", "value", "message"),
    [
        (CIFAR, (3,), "threshold", 1e-6, "threshold is 1e-06, so it is not max"),
        (CIFAR, (4, 1, 3), "val", 0.1, "val is 0.1, so it is not max"),
        (CIFAR, (4, 1, 1, 1, 3), "mode", b"CUDNN_ACTIVATION_TANH", "mode is CUDNN_ACTIVATION_TANH"),
        (TYPE_A, (5, 1, 1, 2, 2, 2), "inplace", True, "inplace is true, so it overwrites"),
        (CIFAR, (1,), "dilationW", 2, "dilationW is 2"),
        (CIFAR, (1,), "updateOutput", LuaFunction(8, b""), "updateOutput is a function of its own"),
        (CIFAR, (), "forward", LuaFunction(8, b""), "forward is a function of its own"),
    ],
)
def test_a_field_with_which_a_module_computes_something_else_is_refused(net, path, field, value, message):
    lua = lua_net(net)
    child_of(lua, *path).fields[field] = value
    where = rf"module {'.'.join(map(str, path))} " if path else "the root module "
    with pytest.raises(RecognitionError, match=rf"{where}.*{message}"):
        recognise(module_tree(lua))


def test_stochastic_inference_is_refused():
    lua = lua_net(CIFAR)
    insert(lua, head_length(), module("nn.Dropout", p=0.25, v2=True, stochastic_inference=True))
    with pytest.raises(RecognitionError, match=r"\(nn\.Dropout\): stochastic_inference is true, so it draws at random"):
        recognise(module_tree(lua))


@pytest.mark.parametrize("path", [(1,), (4, 1, 1, 1, 1), (9,)])
def test_a_bias_longer_than_its_layer_is_refused(path):
    lua = lua_net(CIFAR)
    path = (head_length(),) if path == (9,) else path
    child_of(lua, *path).fields["bias"] = np.ones(100, np.float32)
    with pytest.raises(RecognitionError, match=rf"module {'.'.join(map(str, path))} .*a bias of its \d+ outputs"):
        recognise(module_tree(lua))


def test_a_classifier_with_a_weight_of_three_dimensions_is_refused():
    lua = lua_net(CIFAR)
    insert(lua, head_length(), module("nn.Linear", weight=np.ones((2, 3, 4), np.float32)))
    with pytest.raises(RecognitionError, match=r"module 9 \(nn\.Linear\) takes 0 inputs; expected 64"):
        recognise(module_tree(lua))


def test_groups_are_cudnns():
    lua = LuaNet(CIFAR, package="nn").build()
    child_of(lua, 1).fields["groups"] = 2
    with pytest.raises(RecognitionError, match=r"module 1 .*groups is 2, so it has no groups"):
        recognise(module_tree(lua))


def test_the_padding_of_2014_takes_the_place_of_both():
    lua = LuaNet(CIFAR, package="nn").build()
    conv = child_of(lua, 1)
    conv.fields["padding"], conv.fields["padW"], conv.fields["padH"] = 1, 0, 0
    assert recognise(module_tree(lua)) == CIFAR


@pytest.mark.parametrize("field", ["name", "learningRate", "frozen"])
def test_what_a_program_hung_on_a_module_has_no_effect(field):
    lua = lua_net(CIFAR)
    child_of(lua, 1).fields[field] = 3
    assert recognise(module_tree(lua)) == CIFAR


def test_a_class_of_another_package_is_not_taken_for_torchs():
    lua = lua_net(CIFAR)
    lua["modules"][3] = module("mine.ReLU")
    with pytest.raises(RecognitionError, match=r"module 3 is mine\.ReLU; expected nn\.ReLU"):
        recognise(module_tree(lua))


def test_running_std_counts_in_class_version_1_only():
    lua = lua_net(CIFAR)
    child_of(lua, 2).fields["running_std"] = np.ones(16, np.float32)  # the variance is 1 less eps
    assert np.allclose(model_of(lua).bn1.running_var, 1 - 1e-5)
    child_of(lua, 2)._version_number = 2
    assert not np.allclose(model_of(lua).bn1.running_var, 1 - 1e-5)


def test_a_view_that_mixes_images_is_refused():
    lua = lua_net(CIFAR)
    child_of(lua, head_length() - 1).fields["numElements"] = 128
    child_of(lua, head_length() - 1).fields["size"] = np.array([128], np.int64)
    with pytest.raises(RecognitionError, match=r"is nn\.View; expected one row of 64 numbers per image"):
        recognise(module_tree(lua))


# The same row of steps in other nn.Sequential is the same net.


def flat(lua: LuaObject) -> LuaObject:
    """All steps in the root."""
    return sequential(list(steps_of(lua)))


def steps_of(lua: LuaObject) -> list[LuaObject]:
    if lua.class_name != "nn.Sequential":
        return [lua]
    return [step for child in lua["modules"].to_list() for step in steps_of(child)]


def with_tails_behind(lua: LuaObject) -> LuaObject:
    """The ReLU (and batch norm) behind each addition stands behind its block."""
    net = []
    for child in lua["modules"].to_list():
        if child.class_name != "nn.Sequential":
            net.append(child)
            continue
        for block in child["modules"].to_list():
            steps = block["modules"].to_list()
            end = [step.class_name for step in steps].index("nn.CAddTable") + 1
            net += [sequential(steps[:end]), *steps[end:]]
    return sequential(net)


def flat_stages(lua: LuaObject) -> LuaObject:
    children = lua["modules"].to_list()
    return sequential([flat(child) if child.class_name == "nn.Sequential" else child for child in children])


ORDERS = ["post-activation", "bn-after-addition", "pre-activation", "pre-activation-raw-shortcut"]


@pytest.mark.parametrize("regroup", [flat, flat_stages, with_tails_behind])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("stem_batch_norm", [True, False])
def test_how_steps_are_grouped_does_not_matter(regroup, order, stem, stem_batch_norm):
    net = Architecture("basic", (2, 2), (4, 8), (4, 8), 4, order, stem, stem_batch_norm, num_classes=5)
    if not stem_batch_norm and not net.pre_activation:
        pytest.skip("the original always has it")
    lua = lua_net(net)
    expected = model_of(lua)
    found = model_of(regroup(lua))
    with torch.inference_mode():
        assert torch.equal(found.eval()(INPUT), expected.eval()(INPUT))


def test_a_foreign_module_in_a_flat_net_is_named():
    lua = flat(lua_net(CIFAR))
    names = [step.class_name for step in lua["modules"].to_list()]
    at = names.index("nn.CAddTable") + 2
    lua["modules"][at] = module("nn.Tanh")
    with pytest.raises(RecognitionError, match=rf"module {at} is nn\.Tanh; expected nn\.ReLU"):
        recognise(module_tree(lua))


@pytest.mark.parametrize("shortcut_type", ["A", "B"])
def test_a_stage_may_keep_its_width(shortcut_type):
    net = Architecture("basic", (1, 2), (4, 4), (4, 4), 4, stem="cifar", shortcut_type=shortcut_type, num_classes=5)
    lua = lua_net(net)
    if shortcut_type == "A":
        pool = module("nn.SpatialAveragePooling", kW=1, kH=1, dW=2, dH=2, divide=True)
        child_of(lua, 5, 1, 1)["modules"][2] = pool
    else:
        builder = LuaNet(net)
        child_of(lua, 5, 1, 1)["modules"][2] = sequential([builder.conv(4, 4, 1, 2, 0), builder.bn(4)])
    assert recognise(module_tree(lua)) == net
    assert isinstance(model_of(lua).layer1[0].downsample, nn.Identity)
