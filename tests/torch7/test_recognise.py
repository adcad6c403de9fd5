"""Module tree -> Architecture, for every net that can be written and for those that cannot."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.errors import ModuleError, RecognitionError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import PUBLISHED, architecture
from resnet_tools.torch7.lua import LuaObject
from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.recognise import recognise
from tests.support.lua_nets import LuaNet, child_of, lua_net, module, sequential
from tests.support.strategies import architectures


def small(depth: int = 18, **options: object) -> Architecture:
    """A net of the catalog with an eighth of its channels."""
    net = architecture(depth, **options)
    widths, inner_widths = (tuple(n // 8 for n in counts) for counts in (net.widths, net.inner_widths))
    return replace(net, stem_width=8, widths=widths, inner_widths=inner_widths, num_classes=10)


@settings(deadline=None, max_examples=60)
@given(architectures())
def test_any_net_that_can_be_expressed_is_recognised(net):
    assert recognise(module_tree(lua_net(net))) == net


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda p: p.file)
def test_the_published_structures_are_recognised(published):
    net = published.architecture
    narrow = replace(
        net,
        stem_width=2,
        widths=tuple(n // 32 for n in net.widths),
        inner_widths=tuple(n // 32 for n in net.inner_widths),
    )
    assert recognise(module_tree(lua_net(narrow))) == narrow


@pytest.mark.parametrize("path", [(1,), (5, 1, 1, 1, 2), (6, 1, 1, 2, 1), (8, 2, 3), (9,), (11,)])
def test_a_foreign_module_is_named_with_its_path_and_what_was_expected(path):
    net = lua_net(small())
    where = ".".join(map(str, path))
    parent = child_of(net, *path[:-1])
    parent["modules"][path[-1]] = module("nn.SpatialDropout", p=0.5)
    with pytest.raises(RecognitionError, match=rf"module {where} is nn\.SpatialDropout; expected \w+"):
        recognise(module_tree(net))


def test_a_missing_module_is_named_by_the_one_before_it():
    net = lua_net(small())
    branch = child_of(net, 5, 1, 1, 1)
    del branch["modules"][5]
    with pytest.raises(RecognitionError, match=r"module 5\.1 \(nn.Sequential\) lacks an nn\.SpatialBatchNormalization"):
        recognise(module_tree(net))


def test_a_module_too_many_is_named():
    net = lua_net(small())
    net["modules"][12] = module("nn.Linear", weight=np.ones((3, 10), np.float32))
    with pytest.raises(RecognitionError, match=r"module 12 is nn\.Linear; expected nothing more"):
        recognise(module_tree(net))


def test_a_convolution_with_another_stride_shows_both_shapes():
    net = lua_net(small(50))
    conv = child_of(net, 6, 1, 1, 1, 1)
    conv.fields["dW"] = conv.fields["dH"] = 2
    message = r"module 6\.1\.1\.1\.1 .* 32 -> 16, 1 x 1, stride 2, padding 0; expected 32 -> 16, 1 x 1, stride 1"
    with pytest.raises(RecognitionError, match=message):
        recognise(module_tree(net))


@pytest.mark.parametrize(
    "net",
    [
        sequential([module("nn.Linear", weight=np.ones((2, 3), np.float32))]),
        sequential([]),
        module("nn.Linear", weight=np.ones((2, 3), np.float32)),
        sequential([module("nn.SpatialConvolution", weight=np.ones((2, 3, 3, 3), np.float32))]),
    ],
)
def test_a_net_without_blocks_is_not_a_residual_net(net):
    with pytest.raises(RecognitionError, match="residual net"):
        recognise(module_tree(net))


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ((1,), "padH", 1),
        ((1,), "kH", 5),
        ((4,), "ceil_mode", True),
        ((4,), "kH", 2),
        ((4,), "dH", 1),
        ((4,), "padW", 0),
        ((5, 1, 1, 1, 1), "dH", 2),
        ((6, 1, 1, 2, 1), "dH", 1),
        ((6, 1, 1, 2, 2), "dimension", 3),
        ((9,), "kH", 8),
        ((9,), "padW", 1),
    ],
)
def test_a_net_that_computes_something_else_is_refused(path, field, value):
    net = lua_net(replace(small(shortcut_type="A"), stem_width=8))
    assert recognise(module_tree(net)).shortcut_type == "A"
    child_of(net, *path).fields[field] = value
    where = ".".join(map(str, path))
    with pytest.raises(RecognitionError, match=rf"module {where}\b.*expected"):
        recognise(module_tree(net))


def test_a_missing_padding_is_none():
    net = lua_net(small())
    for name in ("padW", "padH"):
        del child_of(net, 4).fields[name]
    with pytest.raises(RecognitionError, match=r"module 4 is nn\.SpatialMaxPooling"):
        recognise(module_tree(net))


def test_a_missing_height_is_the_width():
    net = lua_net(small())
    for conv in (child_of(net, 1), child_of(net, 5, 1, 1, 1, 1)):
        for name in ("kH", "dH"):
            del conv.fields[name]
    assert recognise(module_tree(net)) == small()


@pytest.mark.parametrize("path", [(1,), (5, 1, 1, 1, 1)])
@pytest.mark.parametrize("package", ["nn", "cudnn"])
def test_a_missing_padding_of_a_convolution_is_none(path, package):
    # updateOutput of both packages: self.padH = self.padH or 0
    net = LuaNet(small(), package=package).build()
    del child_of(net, *path).fields["padH"]
    where = ".".join(map(str, path))
    with pytest.raises(RecognitionError, match=rf"module {where} is {package}\.SpatialConvolution; expected a square"):
        recognise(module_tree(net))


@pytest.mark.parametrize("momentum", [0, 1, 0.01])
def test_momentum_does_not_matter(momentum):
    net = replace(small(), bn_momentum=momentum)
    assert recognise(module_tree(lua_net(net))) == net


def test_dropout_is_left_out():
    net = lua_net(small())
    net["modules"][12] = net["modules"][11]
    net["modules"][11] = module("nn.Dropout", p=0.5)
    assert recognise(module_tree(net)) == small()


def test_modules_without_effect_may_stand_anywhere():
    net = small()
    lua = lua_net(net)
    modules = lua["modules"]
    for number in range(len(modules), 8, -1):
        modules[number + 1] = modules[number]
    modules[9] = module("nn.Copy")
    assert recognise(module_tree(lua)) == net


def test_biases_that_are_zero_are_none():
    net = lua_net(replace(small(), conv_bias=True))
    for part in module_tree(net).walk():
        if part.kind == "SpatialConvolution":
            part.tensors["bias"][:] = 0
    assert not recognise(module_tree(net)).conv_bias


def test_one_bias_that_is_not_zero_keeps_them():
    net = lua_net(small())
    child_of(net, 6, 1, 1, 1, 1).fields["bias"] = np.array([0, 0, 1, *[0] * 13], np.float32)
    assert recognise(module_tree(net)).conv_bias


def test_different_eps_are_refused():
    net = lua_net(small())
    child_of(net, 8, 1, 1, 1, 2).fields["eps"] = 0.5
    with pytest.raises(RecognitionError, match=r"module 8\.1\.1\.1\.2 .*eps is 0\.5; expected 1e-05"):
        recognise(module_tree(net))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_damaged_net_gives_an_error_of_ours_or_a_net(data):
    lua = lua_net(small())
    parts = [part for part in _objects(lua) if part.fields]
    victim = data.draw(st.sampled_from(parts))
    key = data.draw(st.sampled_from(list(victim.fields.keys())))
    values = [None, -1, 0, 3, 1.5, float("nan"), float("inf"), 2**80, b"x", True, np.ones((0,), np.float32)]
    values += [np.ones((2, 3), np.float32), np.ones(7, np.int64), victim, module("nn.Foo")]
    value = data.draw(st.sampled_from(values))
    if value is None:
        del victim.fields[key]
    else:
        victim.fields[key] = value
    with contextlib.suppress(RecognitionError, ModuleError):
        assert recognise(module_tree(lua)).num_classes == 10


def _objects(net: LuaObject) -> list[LuaObject]:
    children = net.get("modules")
    return [net, *([o for c in children.to_list() for o in _objects(c)] if children else [])]
