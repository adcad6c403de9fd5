""".onnx files: any batch and size, in each type, with a description; and files that are none."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision
from hypothesis import HealthCheck, given, settings

from resnet_tools import load_checkpoint
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.convert import Target, convert
from resnet_tools.checkpoints.onnx_export import METADATA, write_onnx
from resnet_tools.checkpoints.onnx_files import OnnxNet, load_onnx
from resnet_tools.checkpoints.runnable import load_runnable
from resnet_tools.checkpoints.saving import description
from resnet_tools.data.transforms import CIFAR100, IMAGENET
from resnet_tools.errors import CheckpointError, ExportError, ResnetToolsError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.resnet import ResNet, fold_batch_norm
from tests.support.demo_images import PHOTOS
from tests.support.strategies import architectures

DESCRIPTION = {"preprocessing": IMAGENET.to_dict()}


def operations(path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_batch_height_and_width_are_free(tmp_path):
    checkpoint = load_checkpoint()
    write_onnx(checkpoint.model, tmp_path / "net.onnx", DESCRIPTION)
    net = OnnxNet(tmp_path / "net.onnx")
    for shape in ((1, 3, 224, 224), (3, 3, 32, 50), (2, 3, 96, 64)):
        images = torch.randn(shape)
        with torch.inference_mode():
            expected = checkpoint.model(images)
        torch.testing.assert_close(net(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(architectures())
def test_any_net_can_be_written(tmp_path, architecture: Architecture):
    torch.manual_seed(0)
    model = ResNet(architecture).eval()
    write_onnx(model, tmp_path / "net.onnx", DESCRIPTION)
    images = torch.randn(2, architecture.in_channels, 40, 56)
    with torch.inference_mode():
        expected = model(images)
    found = OnnxNet(tmp_path / "net.onnx")(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item() + 1e-6)


def test_the_description_is_in_the_metadata(tmp_path):
    checkpoint = replace(load_checkpoint(), preprocessing=CIFAR100)
    write_onnx(checkpoint.model, tmp_path / "net.onnx", description(checkpoint))
    assert OnnxNet(tmp_path / "net.onnx").preprocessing == CIFAR100
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"), full_check=True)


def test_batch_norms_are_kept_unless_they_are_folded(tmp_path):
    model = load_checkpoint().model
    write_onnx(model, tmp_path / "net.onnx", DESCRIPTION)
    assert operations(tmp_path / "net.onnx").count("BatchNormalization") == 20
    fold_batch_norm(model)
    write_onnx(model, tmp_path / "folded.onnx", DESCRIPTION)
    assert "BatchNormalization" not in operations(tmp_path / "folded.onnx")


def test_half_weights_take_and_give_single(tmp_path):
    model = load_checkpoint().model
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
    write_onnx(model.half(), tmp_path / "net.onnx", DESCRIPTION)
    found = OnnxNet(tmp_path / "net.onnx")(images)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.01 * expected.abs().max()


def test_writing_says_nothing(tmp_path, capfd):
    write_onnx(load_checkpoint().model, tmp_path / "net.onnx", DESCRIPTION)
    OnnxNet(tmp_path / "net.onnx")(torch.zeros(1, 3, 32, 32))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"no net", b"\x08\x07" * 100])
def test_a_file_that_is_no_net_is_refused(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.onnx: (not a net that onnxruntime can load|expected one input)"):
        OnnxNet(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"net\.onnx: not a net that onnxruntime can load"):
        OnnxNet(tmp_path / "net.onnx")


def save_graph(path, shape: list[object], output, operation: str, **attributes: object) -> None:
    """One operation from `x`, float32 of that shape, to `y`."""
    images = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operation, ["x"], ["y"], **attributes)], "g", [images], [output]
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)


def test_a_net_that_takes_something_else_than_images_is_refused(tmp_path):
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])
    save_graph(tmp_path / "net.onnx", [1, 4], output, "Relu")
    with pytest.raises(CheckpointError, match=r"expected one input of float32 images \(N, 3, H, W\)"):
        OnnxNet(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("operation", "attributes", "found"),
    [
        ("Relu", {}, r"float32 \(2, 3, 4, 5\)"),
        ("ReduceMean", {"axes": [1, 2, 3], "keepdims": 0}, r"float32 \(2,\)"),
        ("ArgMax", {"axis": 1}, r"int64 \(2, 1, 4, 5\)"),
        ("Cast", {"to": onnx.TensorProto.STRING}, "object"),
        ("SequenceConstruct", {}, "list"),
    ],
)
def test_a_net_that_gives_something_else_than_logits_is_refused(tmp_path, operation, attributes, found):
    kind = {"ArgMax": onnx.TensorProto.INT64, "Cast": onnx.TensorProto.STRING}.get(operation, onnx.TensorProto.FLOAT)
    is_list = operation == "SequenceConstruct"
    describe = onnx.helper.make_tensor_sequence_value_info if is_list else onnx.helper.make_tensor_value_info
    save_graph(tmp_path / "net.onnx", ["N", 3, "H", "W"], describe("y", kind, None), operation, **attributes)
    with pytest.raises(CheckpointError, match=rf"net\.onnx: its output is {found}.*; expected a row of logits"):
        OnnxNet(tmp_path / "net.onnx")(torch.zeros(2, 3, 4, 5))


def test_images_that_do_not_fit_are_an_error(tmp_path):
    write_onnx(load_checkpoint().model, tmp_path / "net.onnx", DESCRIPTION)
    with pytest.raises(CheckpointError, match="its graph is for images of 3 channels; these have 1"):
        OnnxNet(tmp_path / "net.onnx")(torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize("described", ['{"preprocessing": 3}', "[]", "{", "[" * 100_000])
def test_a_description_of_something_else_is_an_error(described, tmp_path):
    write_onnx(load_checkpoint().model, tmp_path / "net.onnx", DESCRIPTION)
    graph = onnx.load(tmp_path / "net.onnx")
    onnx.helper.set_model_props(graph, {METADATA: described})
    onnx.save(graph, tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match="its metadata 'resnet_tools' is not a description"):
        OnnxNet(tmp_path / "net.onnx")


def test_metadata_that_are_no_text_are_an_error(tmp_path):
    write_onnx(load_checkpoint().model, tmp_path / "net.onnx", DESCRIPTION)
    content = (tmp_path / "net.onnx").read_bytes()
    at = content.index(b"{", content.rindex(METADATA.encode()))
    (tmp_path / "net.onnx").write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with pytest.raises(CheckpointError, match=r"net\.onnx: its metadata are not UTF-8 text"):
        OnnxNet(tmp_path / "net.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_extras_the_message_says_how_to_install_them(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExportError, match=r"needs onnx and onnxruntime: pip install 'resnet_tools\[onnx\]'"):
        write_onnx(load_checkpoint().model, tmp_path / "net.onnx", DESCRIPTION)


# As MODEL of the commands.


def exported(path, model, shape=(2, 3, 224, 224), **options) -> None:
    """As people export: `torch.onnx.export`, by default for images of one size, so many at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.zeros(shape),), str(path), dynamo=False, **options)


FREE = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "N", 2: "H", 3: "W"}, "y": {0: "N"}}}


def random_resnet18(num_classes: int = 7) -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=num_classes).eval()


def classified(capsys, model, *options: str) -> list[dict]:
    assert run(["classify", str(model), *PHOTOS, "--json", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def demo_onnx(tmp_path):
    convert("demo", Target(tmp_path / "demo.onnx"))
    return tmp_path / "demo.onnx"


def test_our_export_is_classified_as_the_net_it_was_made_from(demo_onnx, capsys):
    expected, found = classified(capsys, "demo"), classified(capsys, demo_onnx)
    for one, other in zip(expected, found, strict=True):
        assert [c["label"] for c in one["classes"]] == [c["label"] for c in other["classes"]]
        assert other["classes"][0]["probability"] == pytest.approx(one["classes"][0]["probability"], abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_features_are_the_input_of_the_classifier(tmp_path, dtype):
    convert("demo", Target(tmp_path / "demo.onnx", dtype=dtype))
    for name, model in (("a.npy", "demo"), ("b.npy", str(tmp_path / "demo.onnx"))):
        assert run(["extract-features", model, *PHOTOS, "--output", str(tmp_path / name), "--quiet"]) == 0
    expected, found = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    tolerance = 1e-4 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_the_exports_of_other_libraries_give_their_logits_and_features(tmp_path, library):
    torch.manual_seed(0)
    model = random_resnet18() if library == "torchvision" else timm.create_model("resnet18", num_classes=7).eval()
    exported(tmp_path / "net.onnx", model, **FREE)
    found = load_runnable(tmp_path / "net.onnx")
    assert (found.num_classes, found.architecture, found.preprocessing) == (7, None, IMAGENET)
    images = torch.randn(3, 3, 96, 64)
    logits = []
    model.fc.register_forward_pre_hook(lambda _, inputs: logits.append(inputs[0]))
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model(images), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.model.forward_features(images), logits[0], rtol=0, atol=1e-4)


def test_probabilities_at_the_end_are_not_taken_for_logits(tmp_path):
    model = random_resnet18()
    exported(tmp_path / "net.onnx", torch.nn.Sequential(model, torch.nn.Softmax(1)), **FREE)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(OnnxNet(tmp_path / "net.onnx")(images), model(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_graph_for_a_fixed_number_of_images_takes_any_number(tmp_path, count):
    model = random_resnet18()
    exported(tmp_path / "net.onnx", model, (2, 3, 96, 96))
    found = load_onnx(tmp_path / "net.onnx")
    assert (found.preprocessing.crop_px, found.preprocessing.resize_px) == (96, 110)  # 96 * 256 / 224 = 109.7
    images = torch.randn(count, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model(images), rtol=0, atol=1e-4)


def test_another_size_than_the_fixed_one_is_refused(tmp_path, capsys):
    exported(tmp_path / "net.onnx", random_resnet18(), (1, 3, 96, 96))
    assert run(["classify", str(tmp_path / "net.onnx"), PHOTOS[0], "--crop-size", "64"]) == 1
    assert "its graph is for images of 96 rows; these have 64 (--crop-size)" in capsys.readouterr().err
    exported(tmp_path / "wide.onnx", random_resnet18(), (1, 3, 96, 64))
    with pytest.raises(CheckpointError, match="its graph is for images of 96 x 64: crops are square here"):
        load_onnx(tmp_path / "wide.onnx")


def test_a_gray_export_gets_gray_images(tmp_path):
    model = random_resnet18()
    model.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    exported(tmp_path / "net.onnx", model, (1, 1, 64, 64))
    assert load_onnx(tmp_path / "net.onnx").preprocessing.channels == 1


def test_names_beside_a_graph_are_used(tmp_path, capsys):
    exported(tmp_path / "net.onnx", random_resnet18(3), (1, 3, 64, 64))
    (tmp_path / "net.classes.txt").write_text("ant\nbee\ncat\n")
    [first, *_] = classified(capsys, tmp_path / "net.onnx")
    assert {c["label"] for c in first["classes"]} == {"ant", "bee", "cat"}


def test_a_graph_is_evaluated_as_the_net_it_was_made_from(demo_onnx, tmp_path, capsys):
    names = load_checkpoint().class_names
    for name, photo in zip(names, PHOTOS, strict=False):
        folder = tmp_path / "data" / name.replace("/", "-")
        folder.mkdir(parents=True)
        shutil.copy(photo, folder)
    (tmp_path / "names.txt").write_text("".join(f"{name.replace('/', '-')}\n" for name in names))
    figures = []
    for model in ("demo", str(demo_onnx)):
        arguments = ["--data", str(tmp_path / "data"), "--class-names", str(tmp_path / "names.txt"), "--json"]
        assert run(["evaluate", model, *arguments, "--quiet"]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[0]["top1_error"] == figures[1]["top1_error"]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], abs=1e-4)
    assert figures[0]["architecture"] == figures[1]["architecture"]


def test_layers_that_a_graph_does_not_have_are_refused(demo_onnx, capsys):
    assert run(["extract-features", str(demo_onnx), "--list-layers"]) == 0
    features = load_checkpoint().architecture.feature_length
    assert capsys.readouterr().out == f"flatten\t{features}\nfc\t10\n"
    assert run(["extract-features", str(demo_onnx), PHOTOS[0], "--layer", "layer3"]) == 2
    assert "--list-layers shows those that are" in capsys.readouterr().err


def test_inspect_shows_a_graph(demo_onnx, tmp_path, capsys):
    assert run(["inspect", str(demo_onnx)]) == 0
    shown = capsys.readouterr().out
    assert "ONNX graph" in shown
    assert f"Parameters: {load_checkpoint().architecture.parameters:,}" in shown
    exported(tmp_path / "net.onnx", random_resnet18(), (1, 3, 64, 64))
    assert run(["inspect", str(tmp_path / "net.onnx"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["architecture"]) == ("ONNX graph", None)
    assert "it has 7 outputs" in report["problem"]


def test_what_needs_weights_refuses_a_graph_and_says_what_takes_it(demo_onnx, tmp_path, capsys):
    shutil.copy(demo_onnx, tmp_path / "renamed.pth")  # told by its content
    for path in (demo_onnx, tmp_path / "renamed.pth"):
        with pytest.raises(ResnetToolsError, match="this is an ONNX graph, which can be run but neither trained nor"):
            load_checkpoint(path)
        assert run(["convert", str(path), str(tmp_path / "out.pt")]) == 1
        assert run(["classify", str(path), PHOTOS[0], "--precision", "half"]) == 1
        assert "an .onnx computes in its own type" in capsys.readouterr().err
        assert run(["classify", str(path), PHOTOS[0], "--weights", "ema"]) == 1
        assert "an .onnx holds one net" in capsys.readouterr().err


def test_weights_may_lie_in_a_file_beside_the_graph_and_nowhere_else(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    model = random_resnet18()
    exported(folder / "net.onnx", model, (1, 3, 64, 64))
    graph = onnx.load(folder / "net.onnx")
    onnx.save(graph, folder / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=1024)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(OnnxNet(folder / "net.onnx")(images), model(images), rtol=0, atol=1e-4)
    (folder / "net.onnx.data").rename(tmp_path / "else-where")
    with pytest.raises(CheckpointError, match=r"net\.onnx: not a net that onnxruntime can load"):
        OnnxNet(folder / "net.onnx")
    content = (folder / "net.onnx").read_bytes()
    (folder / "net.onnx").write_bytes(content.replace(b"net.onnx.data", b"../else-where"))
    with pytest.raises(CheckpointError, match=r"net\.onnx: not a net that onnxruntime can load"):
        OnnxNet(folder / "net.onnx")
