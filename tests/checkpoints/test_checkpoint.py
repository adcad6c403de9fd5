"""Path <-> checkpoint, for every format and for files that are none."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from resnet_tools import load_checkpoint, save_model
from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.data.transforms import CIFAR10, CIFAR100, IMAGENET
from resnet_tools.errors import CheckpointError, RecognitionError, ResnetToolsError, T7Error
from resnet_tools.nets.catalog import architecture
from resnet_tools.nets.resnet import build_resnet
from resnet_tools.torch7.lua import LuaTable
from resnet_tools.torch7.modules import classes_in
from tests.support.golden import DATA, GOLDEN, needs_golden
from tests.support.lua_nets import lua_net

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def small_checkpoint() -> Checkpoint:
    return load_checkpoint(DATA / "models" / "variant_grads_stripped.t7")


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.inference_mode():
        return checkpoint.model(IMAGES)


def test_without_a_path_the_net_of_the_package_is_loaded():
    checkpoint = load_checkpoint()
    assert checkpoint.architecture.depth == 18
    assert checkpoint.class_names is not None
    assert checkpoint.class_names[:2] == ["ankle boot", "bag"]
    assert checkpoint.preprocessing == IMAGENET
    assert not checkpoint.model.training


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_what_is_saved_is_read_back(tmp_path, ending):
    saved = replace(small_checkpoint(), class_names=[f"name {n}" for n in range(10)], preprocessing=CIFAR100)
    path = tmp_path / f"net{ending}"
    save_model(saved, path)
    found = load_checkpoint(path)
    assert torch.equal(logits(found), logits(saved))
    assert (found.architecture, found.class_names) == (saved.architecture, saved.class_names)
    assert found.preprocessing == CIFAR100
    assert found.format == ending[1:]
    assert sorted(os.listdir(tmp_path)) == [path.name]


def test_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "net.t7"
    save_model(small_checkpoint(), tmp_path / "net.pt")
    os.replace(tmp_path / "net.pt", path)
    assert load_checkpoint(path).format == "pt"


@pytest.mark.parametrize(
    "name", ["resnet-18", "resnet-50", "resnext-50-32x4d", "wide-resnet-50-2", "cifar10-resnet-20"]
)
@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_state_dicts_of_torchvision_are_recognised_by_their_shapes(tmp_path, name, wrap):
    model = build_resnet(name, num_classes=3)
    torch.save(wrap(model.state_dict()), tmp_path / "net.pth")
    found = load_checkpoint(tmp_path / "net.pth")
    assert found.architecture == model.architecture
    assert found.format == "pth"
    assert found.preprocessing == (IMAGENET if model.architecture.stem == "imagenet" else CIFAR10)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_prefixes_half_precision_and_the_old_format_of_pytorch_are_read(tmp_path, options):
    model = build_resnet("resnet-18", num_classes=3)
    state = {f"module.{key}": t.half() if t.is_floating_point() else t for key, t in model.state_dict().items()}
    torch.save(state, tmp_path / "net.pth", **options)
    found = load_checkpoint(tmp_path / "net.pth").model
    assert found.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(found.conv1.weight, model.conv1.weight, rtol=1e-3, atol=1e-3)


def test_a_plain_safetensors_file_is_a_state_dict(tmp_path):
    model = build_resnet("resnet-18", num_classes=3)
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    assert load_checkpoint(tmp_path / "net.safetensors").architecture == model.architecture


def test_class_names_beside_the_file_are_taken(tmp_path):
    path = tmp_path / "my-net.t7"
    path.write_bytes((DATA / "models" / "variant_grads_stripped.t7").read_bytes())
    assert load_checkpoint(path).class_names is None
    (tmp_path / "my-net.classes.txt").write_text("".join(f"label {n}\n" for n in range(10)))
    assert load_checkpoint(path).class_names == [f"label {n}" for n in range(10)]
    (tmp_path / "my-net.classes.txt").write_text("one\ntwo\n")
    with pytest.warns(UserWarning, match=r"my-net.classes.txt is ignored: it has 2 lines; expected one for each"):
        assert load_checkpoint(path).class_names is None


def test_class_names_in_the_table_around_a_net_are_taken():
    names = LuaTable(enumerate((f"name {n}".encode() for n in range(10)), 1))
    net = lua_net(
        replace(architecture(20, dataset="cifar10"), stem_width=4, widths=(4, 8, 16), inner_widths=(4, 8, 16))
    )
    assert classes_in(LuaTable([(b"model", net), (b"classes", names)]), 10) == [f"name {n}" for n in range(10)]
    assert classes_in(LuaTable([(b"model", net), (b"classes", names)]), 7) is None
    assert classes_in(net, 10) is None


def test_a_net_that_is_not_recognised_says_how_to_look_at_it():
    path = DATA / "t7" / "nn_sequential.t7"
    with pytest.raises(RecognitionError, match=r"nn_sequential\.t7: .*expected .*`resnet inspect .*nn_sequential\.t7`"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["net.t7", "net.pt"])
def test_a_pipe_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="a pipe or device; expected a file"):
        load_checkpoint(tmp_path / name)


class Evil:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return os.system, ("touch /tmp/evil-was-here",)


def plain(state: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def compressed_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    return buffer.getvalue()


def expanded() -> dict[str, torch.Tensor]:
    state = build_resnet("resnet-18", num_classes=3).state_dict()
    return state | {"fc.weight": torch.zeros(1).expand(10**6, 512), "fc.bias": torch.zeros(1).expand(10**6)}


def overlapping() -> dict[str, torch.Tensor]:
    state = build_resnet("resnet-18", num_classes=3).state_dict()
    return {key: state["layer1.0.conv1.weight"] if "layer1" in key and "conv" in key else t for key, t in state.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (plain({}), "it holds an empty table; expected a state dict"),
        (plain({"a": 1}), "under the key 'a' it holds a whole number; expected parameter names and tensors"),
        (plain({"epoch": 1, "modelFile": "model_1.pt"}), "and no net; the net is in 'model_1.pt' beside it"),
        (plain({"a": torch.zeros(2)}), r"the key conv1\.weight is missing"),
        (plain({"a": torch.zeros(2).to_sparse()}), "a is a sparse tensor"),
        (plain({"a": torch.zeros(2, dtype=torch.int32)}), "expected floating-point weights"),
        (plain(expanded()), "fc.weight has 512000000 elements and its storage 1;"),
        (plain(overlapping()), "expected each weight stored once"),
        (plain({"format": "resnet_tools", "version": 99}), "version 99 of our format"),
        (plain({"format": "resnet_tools", "version": 1}), "the architecture is missing; expected a table"),
        (plain({"x": Evil()}), "it could run code"),
        (pickle.dumps({"x": Evil()}), "it could run code|not a whole PyTorch file"),
        (compressed_zip(), "a compressed zip archive"),
        (b"PK\x03\x04 and no more", "not a whole PyTorch file"),
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b'\x10\0\0\0\0\0\0\0{"a": 1}        ', "not a whole safetensors file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",  # torch 2.6 writes other bytes each time
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, message):
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(ResnetToolsError, match=message) as error:
        load_checkpoint(path)
    assert str(error.value).startswith(str(path))
    assert not os.path.exists("/tmp/evil-was-here")


def test_every_truncation_of_a_checkpoint_is_an_error_of_ours(tmp_path):
    save_model(small_checkpoint(), tmp_path / "net.pt")
    save_model(small_checkpoint(), tmp_path / "net.safetensors")
    for whole in (tmp_path / "net.pt", tmp_path / "net.safetensors"):
        content = whole.read_bytes()
        for size in np.linspace(0, len(content) - 1, 40).astype(int):
            whole.write_bytes(content[:size])
            with pytest.raises(ResnetToolsError):
                load_checkpoint(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a"]}, "class names are not 10 strings"),
        ({"classes": [1] * 10}, "class names are not 10 strings"),
        ({"preprocessing": {"resize_px": 10**9}}, "preprocessing is invalid"),
        ({"preprocessing": None}, "preprocessing is invalid"),
        ({"architecture": architecture(34, num_classes=10).to_dict()}, r"the shape .*; expected \(64, 3, 7, 7\)"),
        ({"state_dict": {}}, "expected a state dict"),
    ],
)
def test_a_description_that_does_not_fit_is_named(tmp_path, change, message):
    path = tmp_path / "net.pt"
    save_model(small_checkpoint(), path)
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_metadata_of_safetensors_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "net.safetensors"
    for metadata in ("{", "[" * 100_000, json.dumps([1])):
        save_file({"a": torch.zeros(1)}, path, metadata={"resnet_tools": metadata})
        with pytest.raises(CheckpointError, match=r"not JSON|the description is a list"):
            load_checkpoint(path)


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(ResnetToolsError, match=r"none\.t7: cannot be read: No such file"):
        load_checkpoint(tmp_path / "none.t7")
    with pytest.raises(ResnetToolsError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)


def test_saving_to_another_ending_or_place_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match=r"the extension '\.bin' is unknown"):
        save_model(small_checkpoint(), tmp_path / "net.bin")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(small_checkpoint(), tmp_path / "no" / "net.pt")
    assert os.listdir(tmp_path) == []


def test_a_truncated_lua_file_says_so(tmp_path):
    path = tmp_path / "net.t7"
    path.write_bytes(DEMO_PATH.read_bytes()[:100_000])
    with pytest.raises(T7Error, match=r"net\.t7: byte \d+"):
        load_checkpoint(path)


@needs_golden
def test_no_damaged_file_loads_as_a_model():
    for path in sorted((GOLDEN / "t7" / "bad").glob("*.t7")):
        with pytest.raises(ResnetToolsError):
            load_checkpoint(path)
