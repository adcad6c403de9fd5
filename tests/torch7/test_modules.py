"""Lua values -> module tree."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_tools.errors import ModuleError
from resnet_tools.torch7.lua import LuaObject, LuaTable
from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.t7 import read_t7
from tests.support.golden import DATA, ModelCase, model_cases, needs_golden, other_model_cases
from tests.support.lua_nets import container, module, sequential


def assert_modules_are_those_of_the_original(case: ModelCase) -> None:
    tree = module_tree(read_t7(case.path))
    expected = case.description["modules"]
    assert [(m.path, m.class_name) for m in tree.walk()] == [(e["path"], e["class"]) for e in expected]
    for found, wanted in zip(tree.walk(), expected, strict=True):
        names = {*wanted.get("parameters", []), *wanted.get("buffers", [])}
        assert set(found.tensors) == names, found.path
        for name, value in wanted.get("fields", {}).items():
            assert found.fields[name] == (tuple(value) if isinstance(value, list) else value), (found.path, name)


@pytest.mark.parametrize("case", model_cases(DATA / "models"), ids=lambda case: case.name)
def test_paths_classes_fields_and_tensors_are_the_originals(case):
    assert_modules_are_those_of_the_original(case)


@needs_golden
@pytest.mark.parametrize("case", other_model_cases(), ids=lambda case: case.name)
def test_paths_classes_fields_and_tensors_are_the_originals_everywhere(case):
    assert_modules_are_those_of_the_original(case)


def net() -> LuaObject:
    return sequential([module("nn.ReLU"), module("nn.Linear", weight=np.ones((2, 3), np.float32))])


@pytest.mark.parametrize(
    "value",
    [
        net(),
        LuaTable([(b"model", net()), (b"epoch", 3)]),
        LuaTable([(b"epoch", 3), (b"state", LuaTable([(b"net", net())]))]),
        LuaTable([(1, net())]),
        container("nn.DataParallelTable", [net()]),
        LuaObject("my.Trainer", 1, LuaTable([(b"epoch", 3), (b"opt", LuaTable()), (b"model", net())])),
        LuaTable(
            [(b"trainer", LuaObject("Trainer", 1, LuaTable([(b"timer", LuaObject("torch.Timer")), (b"net", net())])))]
        ),
        LuaObject("tds.Hash", 0, LuaTable([(b"model", net())])),
        LuaTable([(b"optimizer", module("optim.State")), (b"best", container("nn.DataParallelTable", [net()]))]),
    ],
)
def test_the_net_is_found_where_programs_put_it(value):
    tree = module_tree(value)
    assert [m.class_name for m in tree.walk()] == ["nn.Sequential", "nn.ReLU", "nn.Linear"]
    assert [m.path for m in tree.walk()] == ["", "1", "2"]


def test_a_data_parallel_table_inside_is_taken_apart():
    tree = module_tree(sequential([container("nn.DataParallelTable", [net()]), module("nn.Tanh")]))
    assert [m.class_name for m in tree.walk()] == ["nn.Sequential", "nn.Sequential", "nn.ReLU", "nn.Linear", "nn.Tanh"]


def test_the_key_model_wins_over_other_nets():
    other = sequential([module("nn.Tanh")])
    assert len(module_tree(LuaTable([(b"criterion", other), (b"model", net())])).children) == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "there is no network in it: the file holds nil"),
        (3, "the file holds a number"),
        (LuaTable(), "the file holds an empty table"),
        (LuaTable([(b"features", 1), (b"image_list", 2)]), "a table with the keys features, image_list"),
        (module("nn.Sequential", modules=3), "the root module .*modules is a number; expected a list of modules"),
        (module("nn.Sequential", modules=LuaTable([(2, net())])), "modules is not a list"),
        (module("nn.Sequential", modules=LuaTable([(1, b"x")])), "child 1 is a string; expected a module"),
        (module("nn.DataParallelTable"), "holds no network"),
        (sequential([net(), module("nn.Linear", weight=4)]), "module 2 .*weight is a number; expected a tensor"),
        (sequential([module("nn.Linear", weight=np.ones(3, np.int64))]), "module 1 .*expected a tensor of floating"),
    ],
)
def test_what_is_no_net_is_refused_with_the_place_and_what_is_there(value, message):
    with pytest.raises(ModuleError, match=message):
        module_tree(value)


def test_a_module_that_contains_itself_is_refused():
    loop = net()
    loop["modules"][3] = sequential([loop])
    with pytest.raises(ModuleError, match=r"module 3\.1 \(nn.Sequential\) contains itself"):
        module_tree(loop)


def test_a_tower_of_doubled_modules_is_refused_in_time():
    tower = net()
    for _ in range(60):
        tower = sequential([tower, tower])
    with pytest.raises(ModuleError, match="not a residual net"):
        module_tree(tower)


def test_one_module_may_stand_in_two_places():
    shared = module("nn.ReLU")
    assert [m.path for m in module_tree(sequential([shared, shared])).walk()] == ["", "1", "2"]


def test_running_std_of_class_version_1_becomes_the_variance():
    # running_std = (4 + eps)^-0.5, so the variance is 4 again
    std = np.array([(4 + 1e-3) ** -0.5], np.float32)
    norm = module("nn.SpatialBatchNormalization", eps=1e-3, running_mean=np.zeros(1, np.float32), running_std=std)
    tensors = module_tree(norm).tensors
    assert "running_std" not in tensors
    np.testing.assert_allclose(tensors["running_var"], [4], rtol=1e-6)
    assert tensors["running_var"].dtype == np.float32


def test_a_weight_of_more_elements_than_are_stored_is_refused(tmp_path):
    path = tmp_path / "bomb.t7"
    path.write_bytes(tensor_record(sizes=(1 << 20, 1 << 20), strides=(0, 0), stored=1))
    linear = module("nn.Linear", weight=read_t7(path))
    with pytest.raises(ModuleError, match="weight has 1099511627776 elements over fewer stored ones"):
        module_tree(linear)


def tensor_record(sizes: tuple[int, ...], strides: tuple[int, ...], stored: int) -> bytes:
    def text(value: bytes) -> bytes:
        return len(value).to_bytes(4, "little") + value

    def longs(*values: int) -> bytes:
        return b"".join(value.to_bytes(8, "little") for value in values)

    begin = (4).to_bytes(4, "little")
    tensor = begin + (1).to_bytes(4, "little") + text(b"V 1") + text(b"torch.FloatTensor")
    tensor += len(sizes).to_bytes(4, "little") + longs(*sizes, *strides, 1)
    storage = begin + (2).to_bytes(4, "little") + text(b"V 1") + text(b"torch.FloatStorage")
    return tensor + storage + longs(stored) + b"\0\0\x80?" * stored
