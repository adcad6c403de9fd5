"""Nets as Lua modules: field for field what the original program saved, and read back as the same net."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from resnet_tools import load_checkpoint, read_t7, save_t7
from resnet_tools.checkpoints.checkpoint import Checkpoint, default_preprocessing
from resnet_tools.checkpoints.convert import Target, convert
from resnet_tools.checkpoints.saving import save_model
from resnet_tools.errors import ModuleError
from resnet_tools.nets.architecture import POOL_WINDOW_PX, Architecture
from resnet_tools.nets.catalog import architecture, named_architecture
from resnet_tools.nets.resnet import ResNet
from resnet_tools.torch7.export_modules import BATCH, SIDE_PX, lua_modules
from resnet_tools.torch7.lua import LuaObject, LuaTable, T7Storage, T7Tensor
from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.recognise import crop_px as recognise_crop_px
from resnet_tools.torch7.recognise import recognise, recognise_and_bind
from resnet_tools.torch7.weights import state_dict
from tests.support.golden import DATA, GOLDEN, ModelCase, model_cases, needs_golden, other_model_cases
from tests.support.strategies import architectures

GOLDEN_BATCH = 6  # of the forward pass before the golden files were saved
COPIED = ["cifar10_preresnet20", "preresnet18_shortcutA", "variant_conv_bias", "variant_nn_avgpool_no_divide"]
OTHERS = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet18_shortcutA", "resnet18_shortcutC"),
    *("preresnet18", "preresnet50", "preresnet200", "cifar10_resnet20", "cifar10_resnet56", "cifar100_resnet20"),
    *("resnet50_bn_after_add", "resnet50_bn_after_add_shortcut_bn", "variant_classes_3", "variant_share_gradinput"),
]
PUBLISHED = [
    "published_resnet18",
    "published_resnet50_sequential_shortcut",
    "published_resnet200",
    "published_resnet101",
]


def arrays(model: ResNet) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in model.state_dict().items()}


def written_again(case: ModelCase, folder: Path, **options: Any) -> LuaObject:
    """The net of a golden file, loaded, exported, written and read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first upload's batch norms
        checkpoint = load_checkpoint(case.path)
    path = folder / "net.t7"
    save_t7(lua_modules(checkpoint.architecture, arrays(checkpoint.model), **options), path)
    return read_t7(path)


def plain(value: object, storages: dict[int, int]) -> object:
    """A value to compare: tensors with their place in their storage, storages by the order in which they occur."""
    if isinstance(value, LuaObject):
        fields = {key: plain(value.fields[key], storages) for key in sorted(value.fields)}
        return value.class_name, value.version, fields
    if isinstance(value, LuaTable):
        return {key: plain(value[key], storages) for key in sorted(value)}
    if isinstance(value, T7Tensor):
        place = None
        if value.storage is not None:
            number = storages.setdefault(id(value.storage), len(storages))
            place = number, value.storage.size, value.storage_offset, value.strides
        return value.torch_type, value.shape, place, value.tobytes()
    return (value.torch_type, value.tolist()) if isinstance(value, T7Storage) else value


@pytest.mark.parametrize("name", COPIED)
def test_every_field_is_what_the_original_saved(name, tmp_path):
    case = ModelCase(name, DATA / "models")
    assert plain(written_again(case, tmp_path, batch=GOLDEN_BATCH), {}) == plain(read_t7(case.path), {})


@needs_golden
@pytest.mark.parametrize("name", OTHERS)
def test_every_field_is_what_the_original_saved_everywhere(name, tmp_path):
    case = ModelCase(name, GOLDEN / "models")
    assert plain(written_again(case, tmp_path, batch=GOLDEN_BATCH), {}) == plain(read_t7(case.path), {})


def test_nn_classes_are_those_that_cudnn_convert_made(tmp_path):
    case = ModelCase("variant_nn_classes", DATA / "models")
    found = written_again(case, tmp_path, package="nn", batch=GOLDEN_BATCH)
    assert plain(found, {}) == plain(read_t7(case.path), {})


def classes_by_path(tree: Any) -> list[tuple[str, str]]:
    return [(module.path, module.class_name) for module in tree.walk()]


@pytest.mark.parametrize(
    "case",
    [case for case in [*model_cases(DATA / "models"), *other_model_cases()] if case.name in PUBLISHED],
    ids=lambda case: case.name,
)
def test_the_structure_of_the_published_files_is_kept(case, tmp_path):
    assert classes_by_path(module_tree(written_again(case, tmp_path))) == classes_by_path(
        module_tree(read_t7(case.path))
    )


@settings(deadline=None, max_examples=30)
@given(architectures())
def test_any_net_is_read_back_as_it_was(net: Architecture):
    last_px = SIDE_PX[net.stem] // 2 ** (len(net.stages) - 1) // (4 if net.stem == "imagenet" else 1)
    assume(net.pooling == "average" or last_px == POOL_WINDOW_PX[net.stem])
    torch.manual_seed(0)
    model = ResNet(net)
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensor.uniform_(0.5, 1)
    found, bound = recognise_and_bind(module_tree(lua_modules(net, arrays(model))))
    assert found == net
    state = state_dict(bound, found)
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())


def test_all_weights_are_in_one_storage_and_all_gradients_in_another():
    model = ResNet(architecture(8, dataset="cifar10"))
    tree = module_tree(lua_modules(model.architecture, arrays(model)))
    storages = {
        name: {id(m.item[name].storage) for m in tree.walk() if name in m.item}
        for name in ("weight", "bias", "gradWeight", "gradBias", "running_mean")
    }
    assert len(storages["weight"] | storages["bias"]) == 1
    assert len(storages["gradWeight"] | storages["gradBias"]) == 1
    assert storages["weight"].isdisjoint(storages["gradWeight"])
    assert len(storages["running_mean"]) == sum(m.kind == "SpatialBatchNormalization" for m in tree.walk())


def test_buffers_are_objects_of_their_own():
    model = ResNet(architecture(8, dataset="cifar10"))
    outputs = [m.item["output"] for m in module_tree(lua_modules(model.architecture, arrays(model))).walk()]
    assert len({id(output) for output in outputs}) == len(outputs)


def test_convolutions_in_groups_are_noted_as_cudnn_computes_them():
    net = replace(architecture(50, num_classes=4), groups=2, inner_widths=(4,) * 4, widths=(8,) * 4, stem_width=8)
    lua = lua_modules(net, arrays(ResNet(net)))
    conv = lua["modules"][5]["modules"][1]["modules"][1]["modules"][1]["modules"][4]
    assert conv["groups"] == 2
    assert conv["input_offset"] == conv["output_offset"] == 2 * 56 * 56  # 4 channels in 2 groups
    assert conv["weight_offset"] == 2 * 2 * 9
    assert conv["autotunerHash"].startswith(f"-dimA{BATCH},2,56,56 -filtA4,2,3,3 {BATCH},2,56,56 -padA1,1")


def test_nn_has_no_groups():
    net = replace(architecture(50), groups=32)
    with pytest.raises(ModuleError, match=r"nn.SpatialConvolution has no groups, and this net has 32; write cudnn"):
        lua_modules(net, {}, package="nn")


def test_pooling_covers_the_last_stage_of_any_net():
    net = replace(architecture(18), stages=(1, 1, 1), widths=(8, 16, 32), inner_widths=(8, 16, 32), stem_width=8)
    assert lua_modules(net, arrays(ResNet(net)))["modules"][8]["kW"] == 14  # 224 / 2 / 2 / 2 / 2
    net = replace(net, pooling="sum")
    with pytest.raises(ModuleError, match="it sums over 7 x 7 positions, and its last stage has 14 x 14"):
        lua_modules(net, arrays(ResNet(net)))


@pytest.mark.parametrize("package", ["nn", "cudnn"])
@pytest.mark.parametrize(
    ("net", "crop_px", "window_px"),
    [
        (architecture(18, num_classes=3), 32, 1),
        (architecture(18, num_classes=3), 100, 4),  # 100, 50, 25, 13, 7, 4
        (architecture(18, num_classes=3), 320, 10),
        (architecture(8, dataset="cifar10"), 64, 16),
        (architecture(8, dataset="cifar10"), 28, 7),
    ],
)
def test_pooling_fits_the_crop_which_is_read_back(net, crop_px, window_px, package):
    narrow = replace(net, stem_width=4, widths=(4, 8, 16, 32)[: len(net.stages)])
    narrow = replace(narrow, inner_widths=narrow.widths)
    lua = lua_modules(narrow, arrays(ResNet(narrow)), package=package, crop_px=crop_px)
    tree = module_tree(lua)
    pool = [module for module in tree.walk() if module.kind == "SpatialAveragePooling"][-1]
    assert (pool.item["kW"], pool.item["kH"]) == (window_px, window_px)
    assert recognise(tree) == narrow
    assert recognise_crop_px(tree, narrow) == crop_px


def test_without_a_note_of_cudnn_the_crop_is_the_largest_that_fits():
    net = architecture(8, dataset="cifar10")
    tree = module_tree(lua_modules(net, arrays(ResNet(net)), crop_px=30))
    assert recognise_crop_px(tree, net) == 30
    del tree.children[0].item.fields["iSize"]
    assert recognise_crop_px(tree, net) == 32  # 32, 16, 8, as 30, 15, 8


@pytest.mark.parametrize("package", ["nn", "cudnn"])
def test_a_converted_net_is_read_back_with_its_crop(package, tmp_path):
    net = replace(architecture(18, num_classes=3), stem_width=4, widths=(4, 8, 16, 32), inner_widths=(4, 8, 16, 32))
    preprocessing = replace(default_preprocessing(net), resize_px=37, crop_px=32)
    save_model(Checkpoint(ResNet(net).eval(), net, None, preprocessing, "pt"), tmp_path / "net.pt")
    convert(tmp_path / "net.pt", Target(tmp_path / "net.t7", package=package))
    found = load_checkpoint(tmp_path / "net.t7").preprocessing
    assert (found.crop_px, found.resize_px) == (32, 37)  # 37 / 32 is 256 / 224


@pytest.mark.parametrize("name", ["published-resnet-18", "published-resnet-34"])
def test_the_bare_shortcuts_of_the_published_files_keep_a_bias_that_can_be_trained(name):
    net = replace(named_architecture(name), stem_width=2, widths=(2, 4, 8, 16), inner_widths=(2, 4, 8, 16))
    tree = module_tree(lua_modules(net, arrays(ResNet(net))))
    biased = [module for module in tree.walk() if module.kind == "SpatialConvolution" and "bias" in module.item]
    assert [module.path for module in biased] == ["6.1.1.2", "7.1.1.2", "8.1.1.2"]
    for module, width in zip(biased, (4, 8, 16), strict=True):
        assert module.item["bias"].tolist() == module.item["gradBias"].tolist() == [0] * width
        assert module.item["bias"].storage is module.item["weight"].storage
        assert module.item["bias"].storage_offset == module.item["weight"].storage_offset + module.item["weight"].size
    assert recognise(tree) == net


def test_a_net_of_gray_images_is_written_with_one_input_plane():
    net = replace(architecture(8, dataset="cifar10"), in_channels=1)
    lua = lua_modules(net, arrays(ResNet(net)))
    assert lua["modules"][1]["nInputPlane"] == 1
    assert recognise(module_tree(lua)) == net


def test_shortcuts_of_type_a_double_the_channels():
    net = replace(architecture(8, dataset="cifar10"), widths=(16, 24, 64))
    with pytest.raises(ModuleError, match="the shortcut of stage 2 goes from 16 to 24 channels"):
        lua_modules(net, arrays(ResNet(net)))
