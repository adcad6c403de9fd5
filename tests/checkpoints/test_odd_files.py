"""Files that hold something else than expected: each is read all the same, or what it holds is named."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from resnet_tools import load_checkpoint
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.convert import Target, convert
from resnet_tools.checkpoints.inspect import inspect_file
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.checkpoints.tensor_files import format_of, tensors_in
from resnet_tools.errors import CheckpointError, ResnetToolsError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.resnet import build_resnet
from resnet_tools.torch7.lua import LuaObject, LuaTable
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.torch7.t7_writer import save_t7

NET = Architecture("basic", (1, 1, 1, 1), (4, 6, 8, 10), (4, 6, 8, 10), 4, num_classes=3)
MODEL = build_resnet(NET).eval()
STATE = MODEL.state_dict()
BODY = {key: tensor for key, tensor in STATE.items() if not key.startswith("fc.")}
FC = STATE["fc.weight"]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NAMES = ["cat", "dog", "owl"]


def loaded(tmp_path: Path, content: Any) -> tuple[Any, str]:
    """The checkpoint in a file of this content, and all warnings."""
    torch.save(content, tmp_path / "net.pth")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        checkpoint = load_checkpoint(tmp_path / "net.pth")
    return checkpoint, " ".join(str(warning.message) for warning in found)


@torch.inference_mode()
def gives(checkpoint: Any) -> bool:
    return torch.equal(checkpoint.model(IMAGES), MODEL(IMAGES))


def odd_tensors(weight: torch.Tensor) -> dict[str, tuple[torch.Tensor, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse CSR is in beta, quantization is deprecated
        flat = weight.reshape(len(weight), -1)
        scales, zeros = torch.ones(len(weight)), torch.zeros(len(weight))
        return {
            "sparse": (weight.to_sparse(), r"is a sparse tensor; call to_dense\(\)"),
            "sparse CSR": (flat.to_sparse_csr(), r"is a sparse tensor; call to_dense\(\)"),
            "quantized": (
                torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
                r"is a quantized tensor \(qint8\); call dequantize\(\)",
            ),
            "quantized by channel": (
                torch.quantize_per_channel(weight, scales, zeros, 0, torch.quint8),
                r"is a quantized tensor \(quint8\); call dequantize\(\)",
            ),
            "meta": (weight.to("meta"), "is a tensor without numbers"),
            "complex": (weight.to(torch.complex64), "holds torch.complex64; expected floating-point"),
            "bool": (weight > 0, "holds torch.bool; expected floating-point"),
            "int8": (weight.to(torch.int8), "holds torch.int8; expected floating-point"),
            "uint16": (weight.abs().to(torch.uint16), "holds torch.uint16; expected floating-point"),
            "fp8": (weight.to(torch.float8_e4m3fn), "holds torch.float8_e4m3fn, whose scale is not known"),
            "expanded": (weight[:1].clone().expand_as(weight), r"has \d+ elements and its storage \d+; .*clone\(\)"),
        }


ODD = odd_tensors(FC)
ODD_CONV = {kind: odd for kind, odd in odd_tensors(STATE["layer1.0.conv1.weight"]).items() if kind != "sparse CSR"}


@pytest.mark.parametrize("kind", ODD)
def test_a_classifier_that_is_no_dense_tensor_of_floats_is_named(tmp_path, kind):
    tensor, message = ODD[kind]
    with pytest.raises(CheckpointError, match=rf"net\.pth: fc\.weight {message}"):
        loaded(tmp_path, {"state_dict": {f"module.{k}": t for k, t in (STATE | {"fc.weight": tensor}).items()}})


@pytest.mark.parametrize("kind", ODD_CONV)
def test_a_convolution_that_is_no_dense_tensor_of_floats_is_not_called_missing(tmp_path, kind):
    tensor, message = ODD_CONV[kind]
    with pytest.raises(CheckpointError, match=rf"net\.pth: layer1\.0\.conv1\.weight {message}"):
        loaded(tmp_path, STATE | {"layer1.0.conv1.weight": tensor})
    problem = inspect_file(tmp_path / "net.pth").problem
    assert problem is not None
    assert "missing" not in problem


def test_a_net_whose_linear_layers_are_quantized_is_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        small = torch.ao.quantization.quantize_dynamic(MODEL, {nn.Linear}, torch.qint8)
    with pytest.raises(CheckpointError, match=r"fc\._packed_params\._packed_params\.0 is a quantized tensor \(qint8\)"):
        loaded(tmp_path, small.state_dict())


def test_tensors_of_other_kinds_beside_the_net_do_not_matter(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prototype
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    extra = {"mask": torch.eye(3).to_sparse(), "x": nested, "state": {"bits": torch.ones(3, dtype=torch.bool)}}
    found, told = loaded(tmp_path, STATE | extra)
    assert gives(found)
    assert "left out: mask, x" in told
    assert tensors_in(tmp_path / "net.pth")["mask"].kind == "sparse tensor"
    save_file(STATE | {"x": torch.ones(3).to(torch.float8_e5m2)}, tmp_path / "net.safetensors")
    with pytest.warns(UserWarning, match="left out: x"):
        assert gives(load_checkpoint(tmp_path / "net.safetensors"))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "bool", "uint16"])
def test_a_safetensors_with_another_dtype_is_named(tmp_path, dtype):
    if dtype == "uint16":  # safetensors.torch 0.4 cannot write it
        arrays = {key: tensor.numpy() for key, tensor in STATE.items()}
        save_arrays(arrays | {"fc.weight": FC.abs().numpy().astype(np.uint16)}, tmp_path / "net.safetensors")
    else:
        save_file(STATE | {"fc.weight": FC.abs().to(getattr(torch, dtype))}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match=rf"net\.safetensors: fc\.weight holds torch\.{dtype}"):
        load_checkpoint(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    "of",
    [lambda a: a.astype(a.dtype.newbyteorder(">")), lambda a: np.asfortranarray(a).reshape(a.shape, order="A")],
    ids=["big-endian", "Fortran order"],
)
def test_arrays_of_numpy_in_any_order_are_read(tmp_path, of):
    assert gives(loaded(tmp_path, {key: of(tensor.numpy()) for key, tensor in STATE.items()})[0])


def test_a_list_may_hold_the_weights(tmp_path):
    assert gives(loaded(tmp_path, [STATE, {"epoch": 3}])[0])
    assert gives(loaded(tmp_path, ({"optimizer": [1, 2]}, [{"state_dict": STATE}]))[0])


CLASS_ARRAYS: dict[str, Any] = {
    "strings": np.array(NAMES),
    "bytes": np.array([name.encode() for name in NAMES]),
    "big-endian": np.array(NAMES).astype(">U3"),
    "objects": np.array(NAMES, dtype=object),
    "scalars": [np.str_(name) for name in NAMES],
    "list of bytes": [name.encode() for name in NAMES],
    "tuple": tuple(NAMES),
    "scalars as keys": {np.str_(name): np.int32(number) for number, name in enumerate(NAMES)},
}


@pytest.mark.parametrize("classes", CLASS_ARRAYS.values(), ids=CLASS_ARRAYS.keys())
def test_class_names_in_arrays_are_used(tmp_path, classes):
    found, told = loaded(tmp_path, {"state_dict": STATE, "classes": classes})
    assert (found.class_names, told) == (NAMES, "")


class Index:
    """Stands for an object of another package, such as a pandas.Index."""

    def __init__(self) -> None:
        self.data = np.array(NAMES)


NO_NAMES: dict[str, tuple[Any, str]] = {
    "too few": (np.array(NAMES[:2]), "it has 2 names; expected one for each of 3"),
    "set": (set(NAMES), "a set, which has no order"),
    "frozenset": (frozenset(NAMES), "a set, which has no order"),
    "matrix": (np.array([NAMES]), "an array of NumPy that is not a list of strings"),
    "objects": (np.array([*NAMES[:2], None], dtype=object), "an array of NumPy that is not a list of strings"),
    "numbers": ([0, 1, 2], "a list that holds a whole number"),
    "string": ("cat,dog,owl", "a string"),
    "another class": (Index(), f"an object of the class {Index.__module__}.Index"),
}


@pytest.mark.parametrize(("classes", "why"), NO_NAMES.values(), ids=NO_NAMES.keys())
def test_class_names_that_cannot_be_read_are_told(tmp_path, classes, why):
    found, told = loaded(tmp_path, {"state_dict": STATE, "classes": classes})
    assert found.class_names is None
    assert "net.pth: classes in it is ignored: " in told
    assert told.endswith(why)


@pytest.mark.parametrize("classes", [None, 3, np.int64(3)])
def test_a_number_of_classes_is_no_list_of_names(tmp_path, classes):
    assert loaded(tmp_path, {"state_dict": STATE, "classes": classes})[1] == ""


def test_class_names_of_another_count_in_a_lua_table_are_told(tmp_path):
    save_t7({"model": read_t7(DEMO_PATH), "classes": list("abcdefghi")}, tmp_path / "net.t7")
    with pytest.warns(UserWarning, match="classes in it is ignored: it has 9 names; expected one for each of 10"):
        assert load_checkpoint(tmp_path / "net.t7").class_names is None


def test_a_table_that_holds_itself_is_listed_once(tmp_path):
    content: dict[str, Any] = {"state_dict": dict(STATE)}
    content["self"] = content["state_dict"]["parent"] = content
    content["list"] = [content]
    found, told = loaded(tmp_path, content)
    assert gives(found)
    assert told == ""
    assert set(tensors_in(tmp_path / "net.pth")) == {f"state_dict/{key}" for key in STATE}


@pytest.mark.parametrize("said", ["resnet50", "resnext101_32x8d", "tv_resnet34", "resnet152.a1_in1k"])
def test_a_name_of_another_depth_than_the_weights_is_told(tmp_path, said):
    found, told = loaded(tmp_path, {"state_dict": STATE, "arch": said})
    assert gives(found)
    assert f"arch in it says '{said}', but its weights, which count, are those of a ResNet-10" in told  # 4 x 2 + 2


def test_a_stage_that_is_missing_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"the stage layer3 .* is missing; the file has layer1, layer2, layer4"):
        loaded(tmp_path, {key: tensor for key, tensor in STATE.items() if "layer3" not in key})


HEADS = {
    "weight norm": {"fc.weight_g": torch.ones(3, 1), "fc.weight_v": FC},
    "parametrized": {"fc.parametrizations.weight.original1": FC},
    "pruned": {"fc.weight_orig": FC, "fc.weight_mask": torch.ones(3, 10)},
    "convolution": {"fc.weight": FC[:, :, None, None]},
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_a_classifier_of_another_form_is_named(tmp_path, head):
    found, told = loaded(tmp_path, BODY | head)
    assert found.num_classes == 0
    assert f"its head fc is not a plain nn.Linear; it holds {next(iter(head)).removeprefix('fc.')} " in told


def test_a_frozen_torchscript_archive_is_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.freeze(torch.jit.trace(MODEL, IMAGES)), str(tmp_path / "net.pt"))
    with pytest.raises(CheckpointError, match=r"TorchScript archive without parameters: torch\.jit\.freeze"):
        load_checkpoint(tmp_path / "net.pt")


PLAIN = {
    "list": ([1, 2], "it holds a list; expected a state dict"),
    "tensor": (torch.ones(3), "it holds a tensor; expected a state dict"),
    "bytes": (b"abc", "it holds a string of bytes; expected a state dict"),
    "number": (3, "it holds a whole number; expected a state dict"),
    "nothing": (None, r"it holds nothing \(None\); expected a state dict"),
    "empty": ({}, "it holds an empty table; expected a state dict"),
    "lists as weights": ({"conv1.weight": [1.0]}, r"under the key 'conv1\.weight' it holds a list; expected parameter"),
}


@pytest.mark.parametrize(("content", "message"), PLAIN.values(), ids=PLAIN.keys())
def test_content_that_holds_no_weights_is_named(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        loaded(tmp_path, content)


WHOLE = "is the download complete"
CONTENTS = {
    "empty.safetensors": (b"", "the file is empty: is the download complete"),
    "empty.onnx": (b"", "the file is empty: is the download complete"),
    "cut.safetensors": (b"\x28\x2a\0\0\0\0\0\0", rf"not a whole safetensors file \(8 bytes\); {WHOLE}"),
    "cut4.SafeTensors": (b"\x28\x2a\0\0", rf"not a whole safetensors file \(4 bytes\); {WHOLE}"),
    "cut1.pth": (b"P", rf"not a whole PyTorch file \(1 byte\); {WHOLE}"),
    "cut3.PT": (b"PK\x03", rf"not a whole PyTorch file \(3 bytes\); {WHOLE}"),
    "cut.ckpt": (b"\x80\x02\x8a\x0al", rf"not a whole PyTorch file .*ends too early.*; {WHOLE}"),
    "noise": (b"\xf0\x9f" * 300, "its content is of no kind that is read here"),
    "page.onnx": (b"<!DOCTYPE html><html>", "this is a web page"),
    "answer.pth": (b'{"message": "Not Found"}', "this is JSON, not a model"),
    "notes.t7": (b"some notes\n", "this is plain text, not a model"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_wrong_content_is_named_without_the_format_that_it_is_not(tmp_path, name):
    content, message = CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    for read in (load_checkpoint, inspect_file):
        with pytest.raises(CheckpointError, match=message) as error:
            read(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        assert "Lua Torch" not in str(error.value)


def test_a_missing_onnx_is_missing(tmp_path):
    for name in ("no.onnx", "no.ONNX"):
        with pytest.raises(CheckpointError, match=r"no\.(onnx|ONNX): cannot be read: No such file"):
            inspect_file(tmp_path / name)


@pytest.mark.parametrize("ending", [".PT", ".T7", ".SafeTensors"])
def test_endings_may_be_of_capital_letters(tmp_path, ending):
    first, second = tmp_path / f"x{ending}", tmp_path / "y.Pt"
    convert("demo", Target(first))
    convert(first, Target(second))
    assert format_of(first) == {".T7": "t7", ".SafeTensors": "safetensors"}.get(ending, "pt")
    assert first.with_name("x.classes.txt").exists() == (ending == ".T7")
    assert load_checkpoint(second).class_names == load_checkpoint().class_names


def test_the_file_of_class_names_is_named_if_they_are_too_few(tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    image = str(Path(__file__).parents[2] / "resnet_tools" / "assets" / "images" / "bag.png")
    assert run(["classify", "demo", image, "--labels", str(names)]) == 1
    assert f"{names}: the net has 10 classes, but 2 names are here" in capsys.readouterr().err
    assert run(["convert", "demo", str(tmp_path / "x.pt"), "--classes", str(names)]) == 1
    assert f"{names}: the net has 10 classes, but 2 names are here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["classify", "demo", ""], r"argument 3 \(after demo\) is empty"),
        (["inspect", ""], r"argument 2 \(after inspect\) is empty"),
        (["convert", "demo", "x.pt", "--classes", ""], r"argument 5 \(after --classes\) is empty"),
        ([""], r"argument 1 \(the first\) is empty"),
    ],
)
def test_an_empty_argument_is_named(arguments, where, capsys):
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith("Error: " + where.replace("\\", ""))


def test_errors_of_files_are_errors_of_ours(tmp_path):
    """What is cut at any place is refused, or is still the same net."""
    torch.save(STATE, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for size in (0, 1, 2, 3, 4, 30, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        with pytest.raises(ResnetToolsError, match=WHOLE):
            load_checkpoint(tmp_path / "cut.pth")


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"])
def test_wrappers_inside_the_net_are_taken_out_of_the_keys(tmp_path, wrapper):
    inside = {re.sub(r"^(layer[12]\.0|conv1|fc)\.", rf"\1.{wrapper}.", key): t for key, t in STATE.items()}
    found, told = loaded(tmp_path, {f"net.{key}": tensor for key, tensor in inside.items()})
    assert gives(found)
    assert f"'{wrapper}' is taken out of its keys" in told


def name_in_transformers(key: str) -> str:
    """As modeling_resnet.py of transformers names the modules: ResNetEmbeddings, ResNetStage, ResNetShortCut."""
    kinds = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    if key.startswith("fc."):
        return key.replace("fc.", "classifier.1.")
    if stem := re.match(r"(conv|bn)1\.(.*)", key):
        return f"resnet.embedder.embedder.{kinds[stem[1]]}.{stem[2]}"
    stage, block, rest = re.fullmatch(r"layer(\d)\.(\d)\.(.*)", key).groups()
    start = f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}"
    if shortcut := re.match(r"downsample\.(\d)\.(.*)", rest):
        return f"{start}.shortcut.{kinds[shortcut[1]]}.{shortcut[2]}"
    layer = re.fullmatch(r"(conv|bn)(\d)\.(.*)", rest)
    return f"{start}.layer.{int(layer[2]) - 1}.{kinds[layer[1]]}.{layer[3]}"


def test_the_names_of_transformers_are_read(tmp_path):
    save_file({name_in_transformers(key): t for key, t in STATE.items()}, tmp_path / "model.safetensors")
    config = {
        "architectures": ["ResNetForImageClassification"],
        "id2label": dict(enumerate(NAMES)),
        "hidden_act": "relu",
    }
    (tmp_path / "config.json").write_text(json.dumps(config | {"downsample_in_bottleneck": False}))
    with pytest.warns(UserWarning, match="its parameters have the names of transformers' ResNet"):
        found = load_checkpoint(tmp_path / "model.safetensors")
    assert gives(found)
    assert found.class_names == NAMES


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("act_layer", "silu"),
        ("global_pool", "max"),
        ("avg_down", True),
        ("output_stride", 16),
        ("hidden_act", "gelu"),
        ("downsample_in_bottleneck", True),
    ],
)
def test_options_that_change_what_a_net_computes_are_refused(tmp_path, option, value):
    for said in ({option: value}, {"model_args": {option: value}}):
        with pytest.raises(CheckpointError, match=f"{option} in it says {value!r}"):
            loaded(tmp_path, {"state_dict": STATE, **said})


def test_a_mean_of_bytes_is_of_pixels_from_0_to_255(tmp_path):
    config = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    found, told = loaded(tmp_path, {"state_dict": STATE, "pretrained_cfg": config})
    assert (found.preprocessing.pixel_max, found.preprocessing.mean, told) == (255.0, (123.675, 116.28, 103.53), "")


CONFIGS = {
    "no numbers": ({"input_size": "big"}, "ignored .*: input_size is 'big' and crop_pct 0.875; expected numbers"),
    "no square": ({"input_size": [3, 224, 160]}, "its images were 224 x 160, and are cropped to a square here"),
}


@pytest.mark.parametrize(("config", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_preprocessing_that_cannot_be_done_is_told(tmp_path, config, message):
    assert re.search(message, loaded(tmp_path, {"state_dict": STATE, "pretrained_cfg": config})[1])


def test_batch_counters_of_another_shape_do_not_matter(tmp_path):
    state = {key: t.reshape(1) if key.endswith("tracked") else t for key, t in STATE.items()}
    assert gives(loaded(tmp_path, state)[0])


def test_a_damaged_tensor_is_named(tmp_path):
    torch.save(STATE, tmp_path / "net.pth")
    content = bytearray((tmp_path / "net.pth").read_bytes())
    at = content.index(FC.numpy().tobytes())
    content[at] ^= 1
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.pth: damaged: the 120 bytes from byte [\d,]+ on"):  # 3 x 10 floats
        load_checkpoint(tmp_path / "net.pth")


def trainer(**fields: Any) -> LuaObject:
    return LuaObject("my.Trainer", 1, LuaTable((name.encode(), value) for name, value in fields.items()))


def test_of_several_nets_in_lua_objects_one_is_chosen_and_told(tmp_path):
    good, bad = read_t7(DEMO_PATH), read_t7(DEMO_PATH)
    last = bad["modules"][len(bad["modules"])]
    last.fields["bias"] = np.asarray(last["bias"]) + 1
    for content, chosen, rest in (
        (trainer(model=good, epoch=3), None, None),
        (trainer(ema=bad, net=good), "net", "ema"),
        ({"last": trainer(model=bad), "best": trainer(model=good)}, "best.model", "last.model"),
    ):
        save_t7(content, tmp_path / "net.t7")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = load_checkpoint(tmp_path / "net.t7")
        assert torch.equal(found.model.fc.bias, load_checkpoint().model.fc.bias)
        said = f"the weights at {chosen} are used; --weights chooses others: {rest}"
        assert [said in str(warning.message) for warning in told] == [True] * bool(chosen)
