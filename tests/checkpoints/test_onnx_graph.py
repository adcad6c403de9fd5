"""The graph of a net against its module: every form of net, every layer, what it is made of, and what it costs."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings

from resnet_tools import load_checkpoint
from resnet_tools.checkpoints.onnx_bytes import bytes_without_weights, model_bytes
from resnet_tools.checkpoints.onnx_graph import Graph, folded, resnet_graph
from resnet_tools.features.layers import FeatureKind, features_of, layer_shapes
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.resnet import ResNet, fold_batch_norm
from tests.support.golden import DATA, ModelCase, model_cases, other_model_cases
from tests.support.strategies import architectures

OPERATIONS = {"Conv", "BatchNormalization", "Relu", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
ZERO_PADDING = {"Slice", "Pad"}
A_SUM = {"Mul"}  # the original's pooling without division


def arrays_of(model: ResNet) -> dict:
    return {key: tensor.numpy() for key, tensor in model.state_dict().items()}


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_graph(graph: Graph, images: torch.Tensor, output: str) -> torch.Tensor:
    session = session_of(bytes_without_weights(graph, [output], []))
    return torch.from_numpy(session.run([output], {"images": images.numpy()})[0])


def random_net(architecture: Architecture) -> ResNet:
    """With statistics and weights of batch norms as after a training."""
    torch.manual_seed(0)
    model = ResNet(architecture).eval()
    for key, tensor in model.state_dict().items():
        if ".weight" not in key and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "var" in key else tensor.normal_(0, 0.1)
    return model


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float, terms: torch.Tensor | None = None) -> bool:
    largest = (expected if terms is None else terms).abs().max()
    return found.shape == expected.shape and bool((found - expected).abs().max() <= tolerance * largest)


@settings(deadline=None, max_examples=15)
@given(architectures())
def test_any_net_is_the_same_as_its_module_folded_or_not(architecture: Architecture):
    model = random_net(architecture)
    images = torch.randn(2, architecture.in_channels, 33, 40)
    arrays = arrays_of(model)
    with torch.inference_mode():
        expected = model(images)
        features = features_of(model, images, FeatureKind("flatten", pool="none"))
    terms = features.abs() @ model.fc.weight.detach().abs().T  # what the logits are sums of, where it may cancel out
    for weights in (arrays, folded(architecture, arrays)):
        graph = resnet_graph(architecture, weights)
        used = {node.operation for node in graph.nodes}
        allowed = OPERATIONS | (A_SUM if architecture.pooling == "sum" else set())
        assert used <= allowed | (ZERO_PADDING if architecture.shortcut_type == "A" else set())
        assert close(run_graph(graph, images, "logits"), expected, 5e-6, terms)
    assert {key: tensor.shape for key, tensor in folded(architecture, arrays).items() if "tracked" not in key} == {
        key: tensor.shape for key, tensor in fold_batch_norm(model).state_dict().items() if "tracked" not in key
    }


@settings(deadline=None, max_examples=3)
@given(architectures())
def test_every_layer_is_a_tensor_of_the_graph(architecture: Architecture):
    model = random_net(architecture)
    graph = resnet_graph(architecture, arrays_of(model))
    shapes = layer_shapes(model, 32)
    assert list(graph.layers) == list(shapes)
    images = torch.randn(1, architecture.in_channels, 32, 32)
    names = list(dict.fromkeys(graph.layers.values()))
    made = [name for name in names if name != "images"]
    session = session_of(bytes_without_weights(graph, made, []))
    tensors = dict(zip(made, session.run(made, {"images": images.numpy()}), strict=True))
    for layer, tensor in graph.layers.items():
        expected = features_of(model, images, FeatureKind(layer, pool="none"))
        # An activation may be zero but for rounding, so that the error is no part of its own size.
        torch.testing.assert_close(torch.from_numpy(tensors[tensor]), expected, rtol=0, atol=1e-4)


def golden_cases() -> list:
    """The deep ones of the whole golden data take seconds."""
    deep = [case for case in other_model_cases() if any(number in case.name for number in ("101", "110", "152", "200"))]
    return [
        *(pytest.param(case, id=case.name) for case in model_cases(DATA / "models")),
        *(pytest.param(c, id=c.name, marks=[pytest.mark.slow] * (c in deep)) for c in other_model_cases()),
    ]


@pytest.mark.filterwarnings("ignore:66 batch norms are 4 times too wide")
@pytest.mark.parametrize("case", golden_cases())
def test_the_golden_nets_give_the_logits_of_their_modules(case: ModelCase):
    checkpoint = load_checkpoint(case.path)
    images = torch.from_numpy(case.input()).float()
    arrays = arrays_of(checkpoint.model)
    graphs = [resnet_graph(checkpoint.architecture, w) for w in (arrays, folded(checkpoint.architecture, arrays))]
    with torch.inference_mode():
        single, exact = checkpoint.model(images), checkpoint.model.double()(images.double())
    # Random weights in a hundred layers enlarge every rounding: where torch's own is above 1e-6, it is the measure.
    rounding = float((single - exact).abs().max() / exact.abs().max())
    for graph in graphs:
        found = run_graph(graph, images, graph.output)
        assert close(found, single, 1e-5) or close(found.double(), exact, 1.5 * rounding)


def test_the_file_is_a_valid_model_with_its_weights_as_they_are():
    checkpoint = load_checkpoint()
    graph = resnet_graph(checkpoint.architecture, arrays_of(checkpoint.model))
    model = onnx.load_from_string(b"".join(model_bytes(graph, {"key": "value", "né": "ü"})))
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"key": "value", "né": "ü"}
    state = checkpoint.model.state_dict()
    for tensor in model.graph.initializer:
        torch.testing.assert_close(torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()), state[tensor.name])
    assert [node.name for node in model.graph.node][-3:] == ["avgpool", "flatten", "logits"]
