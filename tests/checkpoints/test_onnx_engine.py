"""--engine: all engines give the same, whatever the batch, and only torch needs torch."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from resnet_tools import classify, evaluate, extract_features, load_checkpoint
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.checkpoints.onnx_engine import EngineNet, engine_net
from resnet_tools.checkpoints.openvino_session import openvino_core, openvino_module
from resnet_tools.checkpoints.runnable import load_classifier
from resnet_tools.compute.engines import engine_threads, find_engine
from resnet_tools.compute.predictions import Loading, Prediction, classify_arrays
from resnet_tools.errors import DeviceMemoryError, NotFiniteError, ResnetToolsError
from resnet_tools.features.layers import FeatureKind, features_of, layer_shapes, may_fold
from tests.support.demo_images import PHOTOS
from tests.support.golden import DATA, model_cases

OTHER_ENGINES = ["onnxruntime", "openvino"]
ENGINES = ["torch", *OTHER_ENGINES]


def needs(engine: str) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")


@pytest.fixture(autouse=True)
def _installed(request):
    if "engine" in request.fixturenames:
        needs(request.getfixturevalue("engine"))


@pytest.fixture
def bf16():
    """Skips where the CPU has no bf16."""
    needs("openvino")
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16")


@pytest.mark.parametrize("engine", OTHER_ENGINES)
@pytest.mark.parametrize("case", model_cases(DATA / "models"), ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:66 batch norms are 4 times too wide")
def test_they_give_the_originals_logits_and_features(case, engine):
    checkpoint = load_checkpoint(case.path)
    for layer, expected in (("fc", case.array("logits")), ("flatten", case.array("features"))):
        found = engine_net(checkpoint, layer, engine=engine)(case.input())
        assert np.abs(found - expected).max() <= 1e-4 * max(np.abs(expected).max(), np.abs(case.array("logits")).max())


def test_a_net_that_was_made_half_is_run_with_folded_batch_norms():
    checkpoint = load_checkpoint()
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    expected = engine_net(checkpoint)(images)
    checkpoint.model.half()
    found = engine_net(checkpoint)(images)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("weight", "factor"),
    [("layer2.0.conv1.weight", np.nan), ("conv1.weight", np.inf), ("bn1.running_var", -1), ("bn1.weight", 1e38)],
)
def test_openvino_refuses_weights_whose_overflow_it_would_hide(weight, factor):
    needs("openvino")
    checkpoint = load_checkpoint()
    arrays = {**checkpoint.arrays, weight: checkpoint.arrays[weight] * np.float32(factor)}
    with np.errstate(all="ignore"), pytest.raises(ResnetToolsError, match="holds NaN or numbers beyond 1e\\+18"):
        EngineNet(checkpoint.architecture, arrays, engine="openvino")


def test_a_device_of_the_cpu_may_have_a_number():
    assert find_engine("auto", "cpu:0") == find_engine("auto", "cpu")
    needs("onnxruntime")
    assert find_engine("onnxruntime", "cpu:0") == "onnxruntime"


SIGNAL_AFTER_TWO_NETS = """
import gc, signal
from resnet_tools import load_checkpoint
from resnet_tools.checkpoints.onnx_engine import engine_net
nets = [engine_net(load_checkpoint(), "fc", engine="openvino") for _ in range(2)]
while nets:
    del nets[0]
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


def test_signals_are_handled_after_nets_of_openvino_are_gone():
    needs("openvino")
    done = subprocess.run([sys.executable, "-c", SIGNAL_AFTER_TWO_NETS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prediction_does_not_depend_on_its_batch(engine):
    checkpoint = load_checkpoint()
    classified = load_classifier("demo", "cpu", engine=engine).classify
    alone = [next(iter(classified([p], loading=Loading(checkpoint.preprocessing, workers=0)))) for p in PHOTOS]
    for batch_size, workers in ((1, 0), (2, 1), (3, 2), (100, 4)):
        loading = Loading(checkpoint.preprocessing, batch_size, workers=workers)
        for found, expected in zip(classified(PHOTOS, loading=loading), alone, strict=True):
            assert isinstance(found, Prediction)
            assert (found.path, found.indices) == (expected.path, expected.indices)
            np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5)


@pytest.mark.parametrize("precision", ["single", "bf16"])
def test_bf16_does_not_depend_on_the_batch_either(precision, bf16):
    checkpoint = load_checkpoint(DATA / "models" / "published_resnet18.t7")
    net = engine_net(checkpoint, engine="openvino", precision=precision)
    images = np.random.default_rng(0).standard_normal((9, 3, 224, 224)).astype(np.float32)
    alone = np.concatenate([net(images[k : k + 1]) for k in range(9)])
    for size in (2, 5, 9):
        together = np.concatenate([net(images[k : k + size]) for k in range(0, 9, size)])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6 * np.abs(alone).max())


def test_openvino_computes_in_the_precision_that_was_asked_for(bf16):
    checkpoint = load_checkpoint(DATA / "models" / "published_resnet18.t7")
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    exact = engine_net(checkpoint, engine="onnxruntime")(images)
    apart = {
        precision: np.abs(engine_net(checkpoint, engine="openvino", precision=precision)(images) - exact).max()
        for precision in ("single", "bf16")
    }
    # bf16 has 8 bits, of which each of 18 convolutions loses some; float32 has 24.
    assert apart["single"] <= 1e-5 * np.abs(exact).max()
    assert 1e-4 * np.abs(exact).max() < apart["bf16"] < 0.05 * np.abs(exact).max()


def test_a_cpu_without_bf16_is_named(monkeypatch):
    needs("openvino")
    monkeypatch.setattr(openvino_module().Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(ResnetToolsError, match="this CPU has no bf16 arithmetic; leave out --precision bf16"):
        engine_net(load_checkpoint(), engine="openvino", precision="bf16")


def test_openvino_tells_nobody_that_it_is_used(tmp_path):
    needs("openvino")
    script = (
        "import sys\nfrom resnet_tools.__main__ import run\ncode = run(sys.argv[1:])\n"
        "sys.exit(str([m for m in sys.modules if m.startswith('openvino_telemetry')] or '') or code)"
    )
    command = [sys.executable, "-c", script, "classify", "demo", PHOTOS[0], "--engine", "openvino"]
    environment = {**os.environ, "HOME": str(tmp_path), "CI": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", OTHER_ENGINES)
@pytest.mark.parametrize("ten_crop", [False, True])
def test_the_engines_agree_on_all_classes(ten_crop, engine, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    checkpoint = load_checkpoint()
    loading = Loading(checkpoint.preprocessing, batch_size=2, ten_crop=ten_crop)
    paths = [PHOTOS[0], str(bad), *PHOTOS[1:]]
    expected, found = (
        list(load_classifier("demo", "cpu", engine=one).classify(paths, loading=loading, top_k=99))
        for one in ("torch", engine)
    )
    assert str(found[1][1]) == str(expected[1][1])
    for one, other in zip(found[:1] + found[2:], expected[:1] + expected[2:], strict=True):
        assert one.indices == other.indices
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-4, atol=1e-7)


def test_outputs_that_are_not_finite_are_errors():
    checkpoint = load_checkpoint()
    checkpoint.model.fc.bias.data.fill_(float("nan"))
    loading = Loading(checkpoint.preprocessing)
    [(path, error)] = classify_arrays(PHOTOS[:1], engine_net(checkpoint), loading)
    assert path == PHOTOS[0]
    assert isinstance(error, NotFiniteError)


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_every_layer_can_be_asked_for(engine):
    checkpoint = load_checkpoint()
    images = torch.randn(1, 3, 32, 32)
    for layer, shape in layer_shapes(checkpoint.model, 32).items():
        net = engine_net(checkpoint, layer, fold=may_fold(layer), engine=engine)
        assert layer_shapes(net, 32) == {layer: shape}
        kind = FeatureKind(layer, pool="none")
        expected = features_of(checkpoint.model, images, kind)
        torch.testing.assert_close(
            features_of(net, images, kind), expected, rtol=0, atol=1e-5 * float(expected.abs().max()) + 1e-6
        )


@pytest.mark.parametrize("engine", OTHER_ENGINES)
@pytest.mark.parametrize("model", ["demo.t7", "demo.safetensors"])
def test_the_first_label_needs_no_torch(model, engine, tmp_path):
    path = tmp_path / model
    if model == "demo.t7":
        path.write_bytes((DEMO_PATH).read_bytes())
    else:
        assert run(["convert", "demo", str(path)]) == 0
    script = (
        "import sys\nfrom resnet_tools.__main__ import run\ncode = run(sys.argv[1:])\n"
        "sys.exit(str({'torch', 'torchvision', 'onnx'} & set(sys.modules) or '') or code)"
    )
    command = [sys.executable, "-c", script, "classify", str(path), *PHOTOS[:2], "--json", "--engine", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == PHOTOS[:2]


def test_which_engine_is_chosen(monkeypatch):
    assert find_engine("auto", "cpu") == "onnxruntime"
    assert find_engine("auto", "cpu", "bf16") == "torch"
    assert find_engine("auto", "cuda:1") == "torch"
    assert find_engine("torch", "cpu") == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert find_engine("openvino", "auto", "bf16") == "openvino"
    for engine, device, precision, why in (
        ("onnxruntime", "cuda", "single", "leave out --device cuda"),
        ("onnxruntime", "auto", "bf16", "computes in single precision; leave out --precision bf16"),
        ("openvino", "auto", "half", "computes in single or bf16 precision; leave out --precision half"),
    ):
        with pytest.raises(ResnetToolsError, match=why):
            find_engine(engine, device, precision)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert find_engine("auto", "cpu") == "torch"
    for engine, extra in (("onnxruntime", "fast"), ("openvino", "openvino")):
        with pytest.raises(ResnetToolsError, match=rf"needs {engine}: pip install 'resnet_tools\[{extra}\]'"):
            find_engine(engine, "cpu")


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("2,1", 2), ("0", 1)])
def test_threads_are_those_of_openmp(monkeypatch, given, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert engine_threads() == threads


def test_features_say_their_engine_and_a_resumed_job_keeps_it(tmp_path, capsys):
    arguments = ["extract-features", "demo", *PHOTOS, "--quiet", "--output", str(tmp_path / "f.npy")]
    rows = []
    for engine in ("torch", "onnxruntime"):
        assert run([*arguments, "--engine", engine]) == 0
        rows.append(np.load(tmp_path / "f.npy"))
        described = "".join(path.read_text() for path in tmp_path.glob("*.json"))
        assert f'"engine": "{engine}"' in described
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-5 * np.abs(rows[0]).max())
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    assert run([*arguments, str(bad), "--on-error", "fail", "--engine", "torch"]) == 1
    capsys.readouterr()
    assert run([*arguments, str(bad), "--on-error", "fail", "--engine", "onnxruntime"]) == 1
    assert "with a different engine: 'torch', now 'onnxruntime'" in capsys.readouterr().err


@pytest.mark.parametrize(("engine", "precision"), [*((e, "single") for e in ENGINES), ("torch", "bf16")])
def test_an_evaluation_names_its_engine_and_precision(engine, precision, tmp_path, capsys):
    for path, name in zip(PHOTOS, load_checkpoint().class_names, strict=True):  # which is whose does not matter
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(path, tmp_path / "data" / name)
    command = ["evaluate", "demo", "--data", str(tmp_path / "data"), "--json", "--quiet"]
    command += ["--report", str(tmp_path / "report"), "--engine", engine, "--precision", precision]
    assert run(command) == 0
    printed, written = json.loads(capsys.readouterr().out), json.loads((tmp_path / "report/summary.json").read_text())
    for facts in (printed, written):
        assert (facts["engine"], facts["precision"]) == (engine, precision)
    assert f"<td>{engine}</td>" in (tmp_path / "report" / "index.html").read_text()
    found = evaluate("demo", tmp_path / "data", engine=engine, precision=precision)
    assert (found.summary["engine"], found.summary["precision"]) == (engine, precision)


@pytest.mark.parametrize("engine", ENGINES)
def test_functions_take_the_engine(engine):
    expected = classify(PHOTOS, engine="torch")
    for one, other in zip(classify(PHOTOS, engine=engine), expected, strict=True):
        assert one.indices == other.indices
    assert extract_features(PHOTOS, engine=engine).provenance["engine"] == engine


def test_an_onnx_has_one_engine(tmp_path, capsys):
    assert run(["convert", "demo", str(tmp_path / "a.onnx")]) == 0
    assert run(["classify", str(tmp_path / "a.onnx"), PHOTOS[0], "--engine", "torch"]) == 1
    assert "an .onnx is run by onnxruntime" in capsys.readouterr().err
    assert run(["classify", str(tmp_path / "a.onnx"), PHOTOS[0], "--engine", "onnxruntime"]) == 0


def test_want_of_memory_says_what_to_do():
    net = EngineNet(load_checkpoint().architecture, load_checkpoint().arrays)

    def full(_: object) -> None:
        raise RuntimeError("bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 9")

    net.run = full
    with pytest.raises(DeviceMemoryError, match="not enough memory for 2 images at once; lower --batch-size"):
        net(np.zeros((2, 3, 28, 28), np.float32))
