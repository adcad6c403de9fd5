"""The files of other trainers: whatever stands around the weights, they are read, and what is no such net is named."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import json
import pathlib
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from resnet_tools import Checkpoint, load_checkpoint
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.checkpoints.runnable import require_classifier
from resnet_tools.checkpoints.tensor_files import tensors_in
from resnet_tools.errors import CheckpointError, ResnetToolsError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.resnet import build_resnet
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.torch7.t7_writer import save_t7

NET = Architecture("basic", (1, 1, 1, 1), (4, 6, 8, 10), (4, 6, 8, 10), 4, num_classes=3)
MODEL = build_resnet(NET).eval()
STATE = MODEL.state_dict()
BODY = {key: tensor for key, tensor in STATE.items() if not key.startswith("fc.")}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
State = dict[str, Any]


def prefixed(prefix: str, state: State = STATE) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def other(state: State = STATE) -> State:
    return {key: t + 1 if key == "fc.bias" else t for key, t in state.items()}


def loaded(tmp_path: pathlib.Path, content: Any, weights: str | None = None, **options: Any) -> tuple[Checkpoint, str]:
    """The checkpoint that is read from a file of this content, and all warnings."""
    torch.save(content, tmp_path / "net.pth", **options)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        checkpoint = load_checkpoint(tmp_path / "net.pth", weights=weights)
    assert len(found) <= 1
    return checkpoint, " ".join(str(warning.message) for warning in found)


@torch.inference_mode()
def gives(checkpoint: Checkpoint, expected: nn.Module = MODEL) -> bool:
    return torch.equal(checkpoint.model(IMAGES), expected(IMAGES))


class Ours(collections.OrderedDict[str, Any]):
    """A subclass whose code is not run."""


class Settings:
    def __init__(self) -> None:
        self.inner = {"deep": [Ours(a=1), {1, 2}, frozenset("ab")]}


EXTRAS: dict[str, Any] = {
    "namespace": argparse.Namespace(model="resnet18", lr=0.1),
    "numpy scalar": np.float64(70.5),
    "numpy array": np.arange(6.0).reshape(2, 3),
    "numpy objects": np.array(["a", None], dtype=object),
    "path": pathlib.Path("/data"),
    "date": datetime.datetime(2024, 1, 2),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "subclass": Ours(a=1),
    "random state": random.getstate(),
    "numpy random state": np.random.default_rng(0).bit_generator.state,
    "unknown class": Settings(),
    "function": gives,
    "complex": 1j,
    "class as a key": {Settings: 1, (1, (2, 3)): 2, 1 << 70: 3},
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS.keys())
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_objects_beside_the_weights_do_not_hide_them(tmp_path, extra, options):
    found, _ = loaded(tmp_path, {"model": STATE, "optimizer": {}, "extra": extra}, **options)
    assert gives(found)


def test_a_pickled_state_dict_without_torch_save_is_read(tmp_path):
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"state_dict": STATE}))
    assert gives(load_checkpoint(tmp_path / "net.pkl"))


def test_weights_as_numpy_arrays_and_parameters_are_read(tmp_path):
    assert gives(loaded(tmp_path, {key: tensor.numpy() for key, tensor in STATE.items()})[0])
    parameters = {k: nn.Parameter(t) if t.is_floating_point() else t for k, t in STATE.items()}
    assert gives(loaded(tmp_path, parameters)[0])


def test_a_pickled_module_is_refused_by_the_name_of_its_class(tmp_path):
    for content in (MODEL, {"model": nn.DataParallel(MODEL), "epoch": 1}):
        with pytest.raises(
            CheckpointError, match=r"whole pickled model of the class [\w.]+(ResNet|DataParallel).*state_dict"
        ):
            loaded(tmp_path, content)


PREFIXES = ("_orig_mod.", "module._orig_mod.", "model.", "model.module.", "net.encoder.", "student.backbone.resnet.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_taken_off_and_told(tmp_path, prefix):
    found, told = loaded(tmp_path, {"state_dict": prefixed(prefix)})
    assert gives(found)
    assert f"the prefix '{prefix}' is stripped" in told


@pytest.mark.parametrize("key", ["net", "weights", "model_state_dict", "state_dict_ema", "ema", "anything"])
def test_a_table_of_any_name_may_hold_the_weights(tmp_path, key):
    assert gives(loaded(tmp_path, {"epoch": 1, key: STATE, "optimizer": {"state": {0: {"m": torch.zeros(3)}}}})[0])


HEADS: dict[str, Callable[[Tensor, Tensor], State]] = {
    "Dropout, Linear": lambda w, b: {"fc.1.weight": w, "fc.1.bias": b},
    "classifier": lambda w, b: {"classifier.weight": w, "classifier.bias": b},
    "last_linear": lambda w, b: {"last_linear.weight": w, "last_linear.bias": b},
    "head.fc": lambda w, b: {"head.fc.weight": w, "head.fc.bias": b},
    "another": lambda w, b: {"my_output.0.layer.weight": w, "my_output.0.layer.bias": b},
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("prefix", ["", "backbone.", "module.encoder."])
def test_the_linear_layer_on_the_features_is_the_classifier(tmp_path, head, prefix):
    found, told = loaded(tmp_path, {"state_dict": prefixed(prefix, BODY) | head(STATE["fc.weight"], STATE["fc.bias"])})
    assert gives(found)
    assert "is its classifier" in told


def test_a_sequential_of_the_children_is_the_same_net(tmp_path):
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7", "fc": "9"}
    numbered = {f"{numbers[key.partition('.')[0]]}.{key.partition('.')[2]}": t for key, t in STATE.items()}
    assert gives(loaded(tmp_path, prefixed("features.", numbered))[0])


def test_other_names_of_the_shortcut_are_read(tmp_path):
    assert gives(loaded(tmp_path, {key.replace("downsample", "shortcut"): t for key, t in STATE.items()})[0])


def test_a_classifier_without_bias_has_a_bias_of_zero(tmp_path):
    found, _ = loaded(tmp_path, {key: t for key, t in STATE.items() if key != "fc.bias"})
    assert found.model.fc.bias.eq(0).all()


SEVERAL: dict[str, tuple[State, str]] = {
    "MLP": ({"fc.0.weight": torch.ones(7, 10), "fc.2.weight": torch.ones(3, 7)}, r"encoder_q\.fc\.0, encoder_q\.fc\.2"),
    "batch norm before": ({"neck.running_mean": torch.ones(10), "fc.weight": torch.ones(3, 10)}, r"encoder_q\.neck"),
    "two modules": ({"fc.weight": torch.ones(7, 10), "out.weight": torch.ones(3, 7)}, r"encoder_q\.fc, encoder_q\.out"),
}


@pytest.mark.parametrize(("head", "layers"), SEVERAL.values(), ids=SEVERAL.keys())
def test_a_head_of_several_layers_is_named_and_no_classifier(tmp_path, head, layers):
    found, told = loaded(tmp_path, prefixed("encoder_q.", BODY | head))
    assert "several layers" in told
    assert found.architecture.num_classes == 0
    with pytest.raises(CheckpointError, match=rf"net\.pth: .*several layers: .*{layers}.*--reset-classifier"):
        require_classifier(found, tmp_path / "net.pth")


def test_a_net_without_classifier_gives_features(tmp_path):
    found, told = loaded(tmp_path, BODY)
    assert told == ""
    assert torch.equal(found.model(IMAGES), MODEL.forward_features(IMAGES))
    save_file(BODY, tmp_path / "net.safetensors")
    assert load_checkpoint(tmp_path / "net.safetensors").architecture == found.architecture
    with pytest.raises(CheckpointError, match=r"no nn\.Linear follows its features"):
        require_classifier(found, "net.pth")


def test_a_lua_net_without_classifier_gives_features(tmp_path):
    net = read_t7(DEMO_PATH)
    for _ in range(2):  # without nn.Linear, then without nn.View too
        del net["modules"][len(net["modules"])]
        save_t7(net, tmp_path / "net.t7")
        found = load_checkpoint(tmp_path / "net.t7")
        assert found.architecture.num_classes == 0
        assert torch.equal(found.model(IMAGES), load_checkpoint().model.forward_features(IMAGES))


CHOICES = [
    ({"state_dict": STATE, "state_dict_ema": other()}, "state_dict", "state_dict_ema"),
    ({"ema": other(), "model": STATE}, "model", "ema"),
    ({"last": other(), "best": STATE}, "best", "last"),
    ({"teacher": other(), "student": STATE}, "student", "teacher"),
    (prefixed("encoder_k.", other()) | prefixed("encoder_q."), "encoder_q", "encoder_k"),
    ({**STATE, "ema": other()}, ".", "ema"),
]


@pytest.mark.parametrize(("content", "chosen", "rest"), CHOICES)
def test_of_several_nets_one_is_chosen_and_told_and_another_can_be(tmp_path, content, chosen, rest):
    found, told = loaded(tmp_path, content)
    assert f"the weights at {chosen} are used; --weights chooses others: {rest}" in told
    assert gives(found)
    found, _ = loaded(tmp_path, content, weights=rest)
    assert torch.equal(found.model.fc.bias, STATE["fc.bias"] + 1)
    with pytest.raises(CheckpointError, match=f"--weights none: .*{rest}"):
        loaded(tmp_path, content, weights="none")


def test_of_several_lua_nets_one_is_chosen(tmp_path):
    good, bad = read_t7(DEMO_PATH), read_t7(DEMO_PATH)
    last = bad["modules"][len(bad["modules"])]
    last.fields["bias"] = np.asarray(last["bias"]) + 1
    save_t7({"last": bad, "best": good}, tmp_path / "nets.t7")
    with pytest.warns(UserWarning, match="the weights at best are used; --weights chooses others: last"):
        assert torch.equal(load_checkpoint(tmp_path / "nets.t7").model.fc.bias, load_checkpoint().model.fc.bias)
    found = load_checkpoint(tmp_path / "nets.t7", weights="last")
    torch.testing.assert_close(found.model.fc.bias, load_checkpoint().model.fc.bias + 1)


def test_classes_is_the_documented_name_of_class_names():
    demo = load_checkpoint()
    assert demo.classes == demo.class_names


NAMES = ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    "said",
    [
        {"classes": NAMES},
        {"class_to_idx": {"owl": 2, "cat": 0, "dog": 1}},
        {"meta": {"CLASSES": tuple(NAMES)}},
        {"names": dict(enumerate(NAMES))},
        {"idx_to_class": {"0": "cat", "1": "dog", "2": "owl"}},
        {"args": argparse.Namespace(class_names=NAMES)},
        {"class_to_idx": {"owl": np.int64(2), "cat": np.int64(0), "dog": np.int64(1)}},
    ],
)
def test_class_names_inside_the_file_are_used(tmp_path, said):
    assert loaded(tmp_path, {"state_dict": STATE, **said})[0].class_names == NAMES


@pytest.mark.parametrize("numbers", [(1, 2, 3), (0, 1, 5), (0, 1, 1), (0, 1, -1)])
def test_class_names_with_other_numbers_are_told_and_left(tmp_path, numbers):
    found, told = loaded(tmp_path, {"state_dict": STATE, "class_to_idx": dict(zip(NAMES, numbers, strict=True))})
    assert found.class_names is None
    assert "class_to_idx in it is ignored: expected 3 names with the numbers 0 to 2" in told


def test_class_names_of_another_count_are_told_and_left(tmp_path):
    found, told = loaded(tmp_path, {"state_dict": STATE, "classes": ["a", "b"]})
    assert found.class_names is None
    assert "classes in it is ignored: it has 2 names; expected one for each of 3" in told


def test_the_configuration_beside_a_file_is_used(tmp_path):
    config = {"input_size": [3, 192, 192], "crop_pct": 0.75, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    config |= {"interpolation": "bilinear", "label_names": NAMES}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": config}))
    save_file(STATE, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="scaled with 'bilinear' interpolation, and are scaled with bicubic here"):
        found = load_checkpoint(tmp_path / "model.safetensors")
    assert found.class_names == NAMES
    assert (found.preprocessing.crop_px, found.preprocessing.resize_px) == (192, 256)  # 192 / 0.75
    assert (found.preprocessing.mean, found.preprocessing.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


OTHER_NETS = "resnetaa50 resnetblur18 seresnet50 legacy_seresnet18 resnet50d resnet26t resnet50d.ra2_in1k resnetv2_50"
OTHER_NETS += " gluon_resnet50_v1d resnet50_dilated ecaresnet50t"
OUR_NETS = "resnet18 resnet50.a1_in1k resnext50_32x4d wide_resnet50_2 tv_resnet34 resnext101_32x8d.fb_wsl"
OUR_NETS += " gluon_resnet50_v1b resnet50_dogs baseresnet mine"


@pytest.mark.parametrize("name", OTHER_NETS.split())
def test_a_net_that_computes_something_else_is_refused_by_its_name(tmp_path, name):
    for said in ({"arch": name}, {"args": argparse.Namespace(model=name)}):
        with pytest.raises(CheckpointError, match=f"{name}.*computes something else"):
            loaded(tmp_path, {"state_dict": STATE, **said})


@pytest.mark.parametrize("name", OUR_NETS.split())
def test_the_names_of_our_nets_are_not_refused(tmp_path, name):
    assert gives(loaded(tmp_path, {"state_dict": STATE, "arch": name})[0])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"layer1.0.se.fc1.weight": torch.ones(1, 4, 1, 1)}, r"layer1\.0\.se\.fc1\.weight.*squeeze-and-excitation"),
        ({"conv1.0.weight": torch.ones(4, 3, 3, 3)}, r"conv1\.0\.weight.*stem is of several convolutions"),
        ({"layer2.0.downsample.2.weight": torch.ones(6)}, r"downsample\.2\.weight.*pool before the convolution"),
        ({"layer1.0.extra.weight": torch.ones(6)}, r"layer1\.0\.extra\.weight is unknown"),
        ({"neck.weight": torch.ones(64, 64, 3, 3)}, r"neck\.weight is unknown"),
    ],
)
def test_structural_differences_are_named(tmp_path, extra, message):
    with pytest.raises(CheckpointError, match=message):
        loaded(tmp_path, prefixed("model.", STATE | extra))


def test_a_key_that_stands_under_a_prefix_is_not_called_missing(tmp_path):
    with pytest.raises(CheckpointError) as error:
        loaded(tmp_path, {"state_dict": {"body.conv1.weight": torch.ones(4, 3, 7, 7)}})
    assert "conv1.weight is missing" not in str(error.value).replace("layer1.0.conv1.weight", "")
    assert "state_dict.body.conv1.weight" in str(error.value)


def test_a_torchscript_archive_is_named_and_its_weights_are_read(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(MODEL, IMAGES), str(tmp_path / "net.pt"))
    with pytest.warns(UserWarning, match="a TorchScript archive: its weights are read and its code is not run"):
        assert gives(load_checkpoint(tmp_path / "net.pt"))


def test_wrong_and_cut_files_say_what_they_are(tmp_path):
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    np.savez_compressed(tmp_path / "b.npz", a=np.zeros(3))
    np.save(tmp_path / "c.npy", np.zeros(3))
    (tmp_path / "cut.pth").write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(600))
    (tmp_path / "x.tar").write_bytes(b"name".ljust(257, b"\0") + b"ustar\0" + bytes(600))
    for name, message in {
        "a.npz": r"\.npz archive of NumPy", "b.npz": r"\.npz archive of NumPy", "c.npy": r"NumPy array",
        "cut.pth": "is the download complete", "x.mat": "MATLAB", "x.tar": "tar archive", "": "Is a directory",
        "https://host/net.pth": "this is an address; download the file",
    }.items():  # fmt: skip
        with pytest.raises(ResnetToolsError, match=message):
            load_checkpoint(name if "//" in name else tmp_path / name)


def test_weights_that_are_no_numbers_are_told(tmp_path):
    bias = torch.tensor([1.0, float("nan"), 0.0])
    assert "fc.bias holds NaN or infinite numbers" in loaded(tmp_path, STATE | {"fc.bias": bias})[1]


def test_numbers_beyond_float32_are_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"fc\.bias holds 1e\+300, which is beyond float32"):
        loaded(tmp_path, STATE | {"fc.bias": torch.tensor([1.0, 1e300, 0.0], dtype=torch.float64)})


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_file_that_is_overwritten_in_place_changes_no_net_that_was_loaded(tmp_path, name):
    path = tmp_path / name
    save_file(STATE, path) if name.endswith("safetensors") else torch.save(STATE, path)
    found = load_checkpoint(path)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
        file.truncate(10)
    assert gives(found)


HOSTILE: dict[str, bytes] = {
    "deep nesting": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "deep key": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    "memo far away": b"\x80\x02}r\xff\xff\xff\x7f.",
    "long int": b"\x80\x02\x8b" + (2_000_000).to_bytes(4, "little") + b"\x7f" * 2_000_000 + b".",
    "long int without data": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "long text number": b"\x80\x02L" + b"9" * 300_000 + b"L\n.",
    "bytes without data": b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b".",
    "references": b"\x80\x02}q\x00"
    + b"".join(b"}q\x01(X\1\0\0\0ah\x00X\1\0\0\0bh\x00uq\x00" for _ in range(60))
    + b".",
    "bytearray": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "storage": b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R.",
    "itself": b"\x80\x02}q\x00X\1\0\0\0ah\x00s.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_pickles_are_errors(tmp_path, content):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "net.pt")


def test_tables_that_are_named_many_times_are_refused_by_the_files_name(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_tools.checkpoints.tensor_files.MAX_VISITED", 10_000)
    content: dict[str, object] = {"weight": torch.zeros(1)}
    for _ in range(11):  # 4**11 ways to the tensor
        content = dict.fromkeys("abcd", content)
    path = tmp_path / "ways.pth"
    torch.save(content, path)
    for read in (load_checkpoint, tensors_in):
        with pytest.raises(CheckpointError, match=r"ways\.pth: its tables hold more than"):
            read(path)


def test_a_table_that_holds_itself_many_times_holds_it_once(tmp_path):
    content: dict[str, object] = {"state_dict": {"weight": torch.zeros(1)}}
    content |= {"a": content, "b": content, "c": content}
    torch.save(content, tmp_path / "cycle.pth")
    assert list(tensors_in(tmp_path / "cycle.pth")) == ["state_dict/weight"]
    with pytest.raises(CheckpointError, match=r"cycle\.pth: it is not a residual net"):
        load_checkpoint(tmp_path / "cycle.pth")
