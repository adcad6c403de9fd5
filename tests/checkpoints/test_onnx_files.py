""".onnx files: any batch and size, in each type, with a description; and files that are none."""

from __future__ import annotations

import sys
from dataclasses import replace

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from resnet_tools import load_checkpoint
from resnet_tools.checkpoints.checkpoint import description
from resnet_tools.checkpoints.onnx_files import METADATA, OnnxNet, write_onnx
from resnet_tools.data.transforms import CIFAR100, IMAGENET
from resnet_tools.errors import CheckpointError, ExportError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.resnet import ResNet, fold_batch_norm
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
    images = torch.randn(2, 3, 40, 56)
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
    with pytest.raises(CheckpointError, match=r"onnxruntime cannot run it on images \(1, 1, 32, 32\)"):
        OnnxNet(tmp_path / "net.onnx")(torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize("described", ['{"preprocessing": 3}', "[]", "{", "[" * 100_000])
def test_a_description_of_something_else_is_an_error(described, tmp_path):
    write_onnx(load_checkpoint().model, tmp_path / "net.onnx", DESCRIPTION)
    graph = onnx.load(tmp_path / "net.onnx")
    onnx.helper.set_model_props(graph, {METADATA: described})
    onnx.save(graph, tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match="its metadata 'resnet_tools' is not a description"):
        OnnxNet(tmp_path / "net.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_extras_the_message_says_how_to_install_them(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExportError, match=r"needs onnx and onnxruntime: pip install 'resnet_tools\[onnx\]'"):
        write_onnx(load_checkpoint().model, tmp_path / "net.onnx", DESCRIPTION)
