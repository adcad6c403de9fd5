"""On a GPU: the nets, the features, the training and the commands give what they give on the CPU and in the original.

scripts/gpu runs these. RESNET_TOOLS_TEST_DEVICE=cpu tries them where there is no GPU; else they are skipped there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_tools.__main__ import run
from resnet_tools.compute.inference import Batch, memory_errors
from resnet_tools.compute.transfer import ahead_on_device
from resnet_tools.data.transforms import preprocess, ten_crops
from resnet_tools.errors import DeviceMemoryError
from resnet_tools.nets.catalog import architecture
from resnet_tools.nets.resnet import ResNet, build_resnet
from scripts import gpu_adapter as ours
from tests.support.demo_images import PHOTOS
from tests.support.golden import DATA, model_cases
from tests.training.test_original_steps import COPIED

NAME = os.environ.get("RESNET_TOOLS_TEST_DEVICE", "cuda")
DEVICE = torch.device("cuda:0" if NAME == "cuda" else NAME)  # torch.cuda.set_device wants a number
ON_GPU = DEVICE.type == "cuda"
TOLERANCE = {"single": 1e-4, "tf32": 1e-2, "half": 2e-2, "bf16": 1e-1}  # of the largest value
ROOT = Path(__file__).parents[2]
CIFAR = ["--data", str(DATA / "train" / "cifar10.t7"), "--dataset", "cifar10", "--quiet", "--device", NAME]
SMALL = [*CIFAR, "--depth", "8", "--batch-size", "16", "--lr", "0.01"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="there is no CUDA GPU"),
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("default"),  # what a driver warns of must not hide what the GPU computes
]
SLOW_ON_CPU = pytest.mark.skipif(not ON_GPU, reason="CPUs take minutes for float16")
HALF = pytest.param("half", marks=SLOW_ON_CPU)
CASES = [case for case in model_cases(DATA / "models") if "first_upload" not in case.name]
precisions = pytest.mark.parametrize("precision", TOLERANCE)


def assert_close(found: np.ndarray | torch.Tensor, expected: np.ndarray | torch.Tensor, precision: str) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()


@precisions
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_originals_nets_give_its_logits(case, precision):
    net = ours.inference_net(ours.checkpoint_of(case.path).model, DEVICE, precision)
    assert_close(ours.bare_logits(net, torch.from_numpy(case.input())), case.array("logits"), precision)


@precisions
def test_features_are_those_of_the_cpu(precision):
    images = torch.stack([preprocess(path) for path in PHOTOS[:2]])
    expected = ours.bare_features(ours.inference_net(ours.checkpoint_of().model, torch.device("cpu")), images)
    net = ours.inference_net(ours.checkpoint_of().model, DEVICE, precision)
    assert_close(ours.bare_features(net, images), expected, precision)


@precisions
def test_ten_crops_are_those_of_the_cpu(precision):
    checkpoint = ours.checkpoint_of()
    images = ten_crops(PHOTOS[0], checkpoint.preprocessing)[None]
    expected = ours.bare_logits(ours.inference_net(checkpoint.model, torch.device("cpu")), images)
    found = ours.bare_logits(ours.inference_net(ours.checkpoint_of().model, DEVICE, precision), images)
    assert_close(found, expected, precision)


@pytest.mark.parametrize("precision", ["double", "single", HALF, "bf16"])
@pytest.mark.parametrize("case", COPIED, ids=lambda case: case.folder.name)
def test_the_first_steps_are_the_originals(case, precision):
    options = case.description["options"]
    changes = {"lr": options["LR"], "momentum": options["momentum"], "weight_decay": options["weightDecay"]}
    training = ours.Training(ours.checkpoint_of(case.folder / "initial.t7").model, DEVICE, precision, **changes)
    images, targets = case.images(), case.targets()
    expected = [step["loss"] for step in case.description["precisions"]["double"]["steps"][:2]]
    chosen = [torch.tensor(batch) - 1 for batch in case.description["batches_1based_sample_indices"][:2]]
    losses = [training(images[batch], targets[batch]).read().loss for batch in chosen]
    assert losses == pytest.approx(expected, rel={"double": 1e-7, "single": 1e-4}.get(precision, 5e-2))


WAYS = {
    "plain": {},
    "a mean of the weights": {"ema": 0.9},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "label smoothing": {"label_smoothing": 0.1},
    "frozen batch norms": {"freeze_bn": True},
    "compiled": {"compiled": True},
    "checkpointed activations": {"checkpointed": True},
}


def small_net() -> ResNet:
    """CIFAR's, with 8 layers: three stages of one block."""
    torch.manual_seed(0)
    return build_resnet(architecture(8, dataset="cifar10"))


@cache
def trained(device: torch.device, precision: str, **changes) -> tuple[list[float], torch.Tensor]:
    """The losses of two steps, and the weights then."""
    draw = np.random.default_rng(0)
    training = ours.Training(small_net(), device, precision, lr=0.01, **changes)
    losses = []
    for _ in range(2):
        images = torch.from_numpy(draw.normal(size=(16, 3, 32, 32))).float()
        losses.append(training(images, torch.from_numpy(draw.integers(0, 10, 16))).read().loss)
    return losses, training.weights


@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("precision", ["single", HALF, "bf16"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_takes_the_steps_of_the_cpu(way, precision):
    plain = {name: value for name, value in WAYS[way].items() if name not in ("compiled", "checkpointed")}
    (losses, weights), (expected, reference) = (
        trained(DEVICE, precision, **WAYS[way]),
        trained(torch.device("cpu"), "double", **plain),
    )
    assert losses == pytest.approx(expected, rel=1e-3 if precision == "single" else 5e-2)
    assert weights.isfinite().all()
    assert (weights - reference).norm() <= (1e-3 if precision == "single" else 5e-2) * reference.norm()


@pytest.mark.skipif(not ON_GPU, reason="tests/training/test_step.py has this with a GPU that is made up")
@pytest.mark.parametrize("precision", ["single", "half", "bf16"])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "compiled"])
def test_no_step_waits_for_the_gpu(way, precision):
    training = ours.Training(small_net(), DEVICE, precision, lr=0.01, **WAYS[way])
    images, targets = torch.randn(16, 3, 32, 32, device=DEVICE), torch.zeros(16, dtype=torch.int64, device=DEVICE)
    counts = training(images, targets)  # cuDNN chooses its algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            counts = training(images, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert counts.read().images == 16


@pytest.mark.skipif(not ON_GPU, reason="a CPU takes the images as they are")
def test_bytes_are_normalised_on_the_gpu_without_a_wait():
    images = []
    try:
        for batch, _ in ours.training_batches(4 * [*map(str, PHOTOS)], 4, 2, DEVICE):
            images.append(batch)
            torch.cuda.set_sync_debug_mode("error")  # the first brought mean and standard deviation
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(batch.device == DEVICE and batch.dtype == torch.float32 for batch in images)


@pytest.mark.filterwarnings("ignore:.*deterministic")
def test_deterministic_runs_are_equal():
    try:
        first, second = (trained.__wrapped__(DEVICE, "single", cudnn="deterministic") for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])


def test_too_little_memory_is_said_with_what_to_do():
    with pytest.raises(DeviceMemoryError, match="lower --batch-size"), memory_errors(8):
        torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)


@precisions
def test_classify_names_the_same_class_as_on_the_cpu(precision, capsys):
    best = []
    for device, numbers in (("cpu", "single"), (NAME, precision)):
        assert run(["classify", "demo", *PHOTOS, "--json", "--device", device, "--precision", numbers]) == 0
        lines = capsys.readouterr().out.splitlines()
        best.append([json.loads(line)["classes"][0]["label"] for line in lines])
    assert best[0] == best[1]
    assert len(best[0]) == len(PHOTOS)


def test_extract_features_writes_the_features_of_the_cpu(tmp_path):
    for device in ("cpu", NAME):
        folder = tmp_path / device.replace(":", "-")
        folder.mkdir(exist_ok=True)
        output = str(folder / "features.npy")
        assert run(["extract-features", "demo", *PHOTOS, "--output", output, "--device", device, "--no-resume"]) == 0
    found, expected = (np.load(tmp_path / name.replace(":", "-") / "features.npy") for name in (NAME, "cpu"))
    assert found.shape == expected.shape
    assert_close(found, expected, "single")


def test_a_run_trains_stops_goes_on_and_is_evaluated(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(["train", *SMALL, "--n-epochs", "2", "--save", str(whole)]) == 0
    assert run(["train", *SMALL, "--n-epochs", "1", "--save", str(parts)]) == 0
    assert run(["train", *CIFAR, "--resume", str(parts), "--n-epochs", "2"]) == 0
    capsys.readouterr()
    assert run(["train", *CIFAR, "--test-only", "--retrain", str(parts / "model_2.pt")]) == 0
    assert " * Finished epoch" in capsys.readouterr().out
    rows = [(folder / "history.csv").read_text().splitlines() for folder in (whole, parts)]
    assert len(rows[0]) == len(rows[1]) == 3
    losses = [[float(line.split(",")[2]) for line in lines[1:]] for lines in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_evaluate_counts_the_errors_of_the_cpu(capsys):
    folder = ROOT / "resnet_tools" / "assets" / "digits"
    model = str(DATA / "main" / "main_finetune.model_2.t7")
    outputs = []
    for device in ("cpu", NAME):
        code = run(["evaluate", model, "--data", str(DATA / "main" / "data"), "--json", "--device", device, "--quiet"])
        outputs.append((code, capsys.readouterr()))
    assert folder.is_dir()
    assert outputs[0][0] == outputs[1][0] == 0, outputs
    found, expected = (json.loads(captured.out.splitlines()[-1]) for _, captured in outputs)
    assert {name: found[name] for name in found if "top" in name} == {
        name: expected[name] for name in expected if "top" in name
    }


@pytest.mark.skipif(ON_GPU and torch.cuda.device_count() < 2, reason="there are no two GPUs")
@pytest.mark.skipif(not ON_GPU, reason="tests/cli/test_train.py has this on the CPU")
def test_two_gpus_give_one_run(tmp_path):
    words = [sys.executable, "-m", "resnet_tools", "train", *CIFAR[:-2], *SMALL[len(CIFAR) :]]
    words += ["--n-epochs", "1", "--n-gpu", "2", "--sync-bn", "--save", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" * Finished epoch # 1") == 1


def test_batches_reach_the_device_whole_and_in_order():
    """Each is copied while the one before is in use, in memory that is then used again."""
    batches = [Batch([str(k)], [None], torch.full((8, 3, 64, 64), float(k))) for k in range(20)]
    for k, batch in enumerate(ahead_on_device(iter(batches), DEVICE)):
        torch.empty(8, 3, 64, 64, device=DEVICE).fill_(-1)
        assert batch.images.device.type == DEVICE.type
        assert batch.paths == [str(k)]
        assert (batch.images == k).all()
    assert k == 19
