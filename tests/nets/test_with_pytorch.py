"""Nets and preprocessing in the hands of PyTorch's own tools, and a converted net in those of onnxruntime."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from resnet_tools import Target, classify, convert, load_checkpoint, preprocess
from tests.support.demo_images import PHOTOS

DIGITS = Path(PHOTOS[0]).parents[1] / "digits" / "val"


@pytest.fixture(scope="module")
def demo():
    return load_checkpoint("demo")


@pytest.fixture(scope="module")
def images(demo):
    return torch.stack([demo.preprocessing(path) for path in PHOTOS])  # (N, 3, 224, 224)


def test_compiling_gives_one_graph_with_the_same_outputs(demo, images):
    torch._dynamo.reset()
    compiled = torch.compile(demo.model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(images), demo.model(images), atol=1e-4)
    torch._dynamo.reset()


def test_loader_processes_of_pytorch_take_the_preprocessing(demo):
    data = ImageFolder(str(DIGITS), transform=demo.preprocessing)
    data.samples = data.samples[:4]
    loader = DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    loaded = torch.cat([batch for batch, _ in loader])
    assert torch.equal(loaded, torch.stack([preprocess(path, demo.preprocessing) for path, _ in data.samples]))


def test_nets_and_preprocessing_can_be_pickled(demo, images):
    net, preprocessing = pickle.loads(pickle.dumps((demo.model, demo.preprocessing)))
    assert preprocessing == demo.preprocessing
    assert torch.equal(net(images[:2]), demo.model(images[:2]))


def test_a_net_can_be_exported_for_any_number_of_images(demo, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        batch = {"x": {0: torch.export.Dim("images", min=1, max=64)}}
        exported = torch.export.export(demo.model, (images[:2],), dynamic_shapes=batch)
    with torch.no_grad():
        assert torch.allclose(exported.module()(images), demo.model(images), atol=1e-4)


def test_onnxruntime_quantises_a_converted_net(demo, images, tmp_path):
    onnx = pytest.importorskip("onnx")
    quantization = pytest.importorskip("onnxruntime.quantization")
    convert("demo", Target(tmp_path / "demo.onnx"))
    kind = quantization.QuantType.QUInt8  # which onnxruntime's convolutions take
    quantization.quantize_dynamic(tmp_path / "demo.onnx", tmp_path / "small.onnx", weight_type=kind)
    assert "ConvInteger" in {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    whole, small = classify(PHOTOS, tmp_path / "demo.onnx"), classify(PHOTOS, tmp_path / "small.onnx")
    for a, b in zip(whole, small, strict=True):
        if a.probability > 0.8:  # 8 bits change logits by some percent
            assert a.label == b.label
