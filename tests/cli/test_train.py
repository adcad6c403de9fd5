"""`resnet train` as a user meets it: whole runs, stopped and resumed, and what it says when something is wrong."""

from __future__ import annotations

import errno
import pickle
import random
import re
import shutil
import signal
import struct
import subprocess
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.errors import CheckpointError, DeviceMemoryError
from resnet_tools.history.history import read_history
from resnet_tools.training import saving
from resnet_tools.training.step import TrainStep
from tests.support.golden import DATA
from tests.support.training import CIFAR, SMALL, figures_of, same_weights, started, train, weights_of

ORIGINAL_DATA = DATA / "main" / "data"
ORIGINAL_MODEL = str(DATA / "main" / "main_finetune.model_2.t7")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Three epochs of three batches, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    done = started(*SMALL, "--n-epochs", 3, "--save", folder)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    return folder, out


# What a run leaves


def test_a_run_leaves_the_originals_files_and_lines(whole_run):
    folder, out = whole_run
    names = {f"{kind}_{epoch}.pt" for kind in ("model", "optimState") for epoch in (1, 2, 3)}
    assert {path.name for path in folder.iterdir()} == names | {
        "latest.pt",
        "model_best.pt",
        "history.csv",
        "args.json",
    }
    lines = out.splitlines()
    assert lines[0].startswith("Recipe original: 3 epochs, batches of 16, learning rate 0.01")
    assert "--recipe finetune or modern" in lines[0]
    assert "=> Training epoch # 1" in lines
    number = r"[ \d]{3}\.\d{3}"
    form = (
        rf" \| Epoch: \[1\]\[1/3\]    Time \d\.\d{{3}}  Data \d\.\d{{3}}  Err \d\.\d{{4}}  top1 {number}  top5 {number}"
    )
    assert sum(bool(re.fullmatch(form, line)) for line in lines) == 1
    assert sum(line.startswith(" | Epoch: ") for line in lines) == 9
    assert sum(line.startswith(" * Finished epoch # ") for line in lines) == 3
    assert re.fullmatch(r" \* Finished top1: +[\d.]+  top5: +[\d.]+", lines[-1])
    assert [row[0] for row in figures_of(folder)] == [1, 2, 3]


def test_the_checkpoint_knows_its_classes_and_preprocessing(whole_run):
    folder, _ = whole_run
    checkpoint = load_checkpoint(folder / "model_best.pt")
    assert checkpoint.class_names[:3] == ["airplane", "automobile", "bird"]
    assert checkpoint.preprocessing.crop_px == 32
    assert torch.load(folder / "model_3.pt", weights_only=True)["recipe"]["name"] == "original"


def test_the_best_net_is_that_of_the_lowest_error(whole_run):
    folder, _ = whole_run
    history = read_history(folder / "history.csv")
    best = min(history, key=lambda epoch: (epoch.val_top1, epoch.epoch)).epoch
    assert same_weights(folder / "model_best.pt", folder / f"model_{best}.pt")


def test_error_rates_on_a_folder_are_those_that_the_original_printed(capsys):
    arguments = ["--data", ORIGINAL_DATA, "--test-only", "--batch-size", 8, "--retrain", ORIGINAL_MODEL, "--no-check"]
    assert train(*arguments) == 0
    out = capsys.readouterr().out.splitlines()
    expected = (DATA / "main" / "main_test_only.stdout").read_text().splitlines()
    ends = [line.rstrip() for line in expected if line.startswith(" *")]
    assert [line for line in out if line.startswith(" *")] == ends
    assert sum(line.startswith(" | Test: [0]") for line in out) == sum(" | Test:" in line for line in expected)


def test_ten_crops_are_tested_in_tenths_of_a_batch(capsys):
    arguments = ["--data", ORIGINAL_DATA, "--test-only", "--batch-size", 20, "--retrain", ORIGINAL_MODEL, "--no-check"]
    assert train(*arguments, "--ten-crop") == 0
    assert "[0][7/7]" in capsys.readouterr().out  # 14 images, two at once


# Stopping and resuming


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_is_the_run_that_would_have_been(whole_run, tmp_path, number):
    stopped = started(*SMALL, "--n-epochs", 3, "--save", tmp_path)
    for line in stopped.stdout:
        if line.startswith(" | Epoch: [2][1/3]"):
            stopped.send_signal(number)
            break
    out, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + number
    assert "everything is saved" in err
    assert "[3]" not in out
    assert train(*CIFAR, "--resume", tmp_path) == 0
    assert same_weights(whole_run[0] / "model_3.pt", tmp_path / "model_3.pt")
    assert figures_of(tmp_path) == figures_of(whole_run[0])
    assert not list(tmp_path.glob("*_*.*.pt"))  # nothing of the unfinished epoch is left


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(whole_run, tmp_path):
    chance = random.Random(3)
    for _ in range(12):
        begun = (tmp_path / "latest.pt").exists()
        where = [*CIFAR, "--resume", tmp_path] if begun else [*SMALL, "--n-epochs", 3, "--save", tmp_path]
        process = started(*where, "--save-every", 1e-9)
        patience = chance.randint(1, 5)
        for line in process.stdout:
            patience -= line.startswith(" | Epoch")
            if patience <= 0:
                break
        try:
            process.wait(chance.random() * 0.05)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate(timeout=60)
        if (tmp_path / "model_3.pt").exists() and "3" in (tmp_path / "history.csv").read_text().split("\n")[-2][:1]:
            break
    assert train(*CIFAR, "--resume", tmp_path) == 0
    assert same_weights(whole_run[0] / "model_3.pt", tmp_path / "model_3.pt")
    assert figures_of(tmp_path) == figures_of(whole_run[0])


def test_a_kill_in_the_middle_of_a_save_loses_nothing(whole_run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for fatal in range(1, 5):  # each file of the second epoch's save in turn
        shutil.rmtree(folder, ignore_errors=True)
        assert train(*SMALL, "--n-epochs", 1, "--save", folder) == 0
        written = []

        def dies(content, path, fatal=fatal, written=written, save=saving.torch_save):
            written.append(path)
            if len(written) == fatal:
                raise KeyboardInterrupt  # as abrupt as it gets within a process
            save(content, path)

        with monkeypatch.context() as patch:
            patch.setattr(saving, "torch_save", dies)
            train(*CIFAR, "--n-epochs", 3, "--resume", folder)
        assert train(*CIFAR, "--n-epochs", 3, "--resume", folder) == 0
        assert same_weights(whole_run[0] / "model_3.pt", folder / "model_3.pt")


def test_a_longer_run_goes_on_from_a_finished_one(whole_run, tmp_path, capsys):
    shutil.copytree(whole_run[0], tmp_path / "run")
    assert train(*CIFAR, "--resume", tmp_path / "run") == 0
    assert "Training epoch" not in capsys.readouterr().out
    assert train(*CIFAR, "--resume", tmp_path / "run", "--n-epochs", 4) == 0
    assert [row[0] for row in figures_of(tmp_path / "run")] == [1, 2, 3, 4]


def test_averaged_and_mixed_weights_go_on_bit_for_bit(tmp_path):
    options = [*SMALL, "--ema", 0.9, "--mixup", 0.2, "--cutmix", 1.0, "--augment", "trivial", "--accumulate", 2]
    assert train(*options, "--n-epochs", 2, "--save", tmp_path / "whole") == 0
    assert train(*options, "--n-epochs", 1, "--save", tmp_path / "parts") == 0
    assert train(*CIFAR, "--n-epochs", 2, "--resume", tmp_path / "parts") == 0
    assert same_weights(tmp_path / "parts" / "model_2.pt", tmp_path / "whole" / "model_2.pt")
    state = torch.load(tmp_path / "parts" / "optimState_2.pt", weights_only=True)
    assert state["average_updates"] == 4  # two epochs of three batches, two of them a step
    ours = weights_of(tmp_path / "parts" / "model_2.pt")
    assert any(not torch.equal(ours[name], state["weights"][name]) for name in ours)


def test_double_precision_goes_on_bit_for_bit(tmp_path):
    options = ["--precision", "double", "--ema", 0.5]
    assert train(*SMALL, *options, "--n-epochs", 2, "--save", tmp_path / "whole") == 0
    assert train(*SMALL, *options, "--n-epochs", 1, "--save", tmp_path / "parts") == 0
    assert train(*CIFAR, "--precision", "double", "--n-epochs", 2, "--resume", tmp_path / "parts") == 0
    assert same_weights(tmp_path / "parts" / "model_2.pt", tmp_path / "whole" / "model_2.pt")


def test_other_parts_may_be_frozen_when_a_run_goes_on(tmp_path):
    assert train(*SMALL, "--n-epochs", 1, "--freeze", 2, "--save", tmp_path) == 0
    before = weights_of(tmp_path / "model_1.pt")
    assert train(*CIFAR, "--n-epochs", 2, "--freeze", 0, "--resume", tmp_path) == 0
    assert not torch.equal(weights_of(tmp_path / "model_2.pt")["conv1.weight"], before["conv1.weight"])


def test_a_stop_during_validation_keeps_the_epoch_and_its_rate(tmp_path, monkeypatch):
    options = [*SMALL, "--n-epochs", 2, "--lr-schedule", "cosine"]
    assert train(*options, "--save", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        flags = [0] * 3 + [signal.SIGTERM] * 9  # after the three batches of the first epoch

        def requests():
            return nullcontext(lambda: flags.pop(0))

        patch.setattr("resnet_tools.cli.train.stop_requests", requests)
        assert train(*options, "--save", tmp_path / "parts", "--batch-size", 15) == 128 + signal.SIGTERM
    assert [path.name for path in sorted((tmp_path / "parts").glob("model_*"))] == ["model_1.3.pt"]
    assert train(*CIFAR, "--resume", tmp_path / "parts") == 0
    assert [row[0] for row in figures_of(tmp_path / "parts")] == [1, 2]
    lrs = [[epoch.lr for epoch in read_history(tmp_path / run / "history.csv")] for run in ("whole", "parts")]
    assert lrs[0] == lrs[1]


def test_a_run_of_the_original_goes_on_here(tmp_path, capsys):
    folder = shutil.copytree(DATA / "train" / "cifar10_resnet20", tmp_path / "lua")
    assert train(*CIFAR, "--resume", folder, "--n-epochs", 2, "--batch-size", 16, "--lr", "0.01") == 0
    out = capsys.readouterr().out
    assert f"=> Loading checkpoint {folder / 'latest.t7'}" in out
    assert f"=> Resuming model from {folder / 'model_1.t7'}" in out
    assert "=> Training epoch # 2" in out
    assert "=> Training epoch # 1" not in out
    assert (folder / "model_2.pt").exists()


def test_two_processes_give_one_history_and_count_every_image_once(tmp_path, capfd):
    arguments = [*SMALL, "--batch-size", 4, "--n-epochs", 1, "--save", tmp_path, "--device", "cpu"]
    process = started(*arguments, "--n-gpu", 2, "--save-every", 1e-9)  # each has four batches of two to validate
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count(" * Finished epoch # 1") == 1
    ((_, _, _, _, _, _, top1, top5),) = figures_of(tmp_path)
    assert train(*CIFAR, "--test-only", "--retrain", tmp_path / "model_1.pt") == 0
    assert f"top1: {top1:6.3f}  top5: {top5:6.3f}" in capfd.readouterr().out


def test_a_stop_of_two_processes_saves_once_and_goes_on(tmp_path):
    arguments = [*SMALL, "--batch-size", 4, "--n-epochs", 9, "--save", tmp_path, "--device", "cpu", "--n-gpu", 2]
    process = started(*arguments)
    for line in process.stdout:
        if line.startswith(" | Epoch: [2][2/"):
            process.terminate()
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert err.count("everything is saved") == 1
    assert train(*CIFAR, "--resume", tmp_path, "--n-epochs", 2) == 0
    assert [row[0] for row in figures_of(tmp_path)] == [1, 2]


# What is wrong is said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", ORIGINAL_DATA, "--resume", DATA], "neither latest.pt nor"),
        ([*SMALL, "--reset-classifier"], "--retrain"),
        ([*SMALL, "--retrain", "demo"], "--depth"),
        ([*CIFAR, "--depth", 9], "depth"),
        ([*SMALL, "--n-gpu", 99], "--n-gpu 99"),
        ([*SMALL, "--warmup-epochs", 500], "--warmup-epochs"),
        ([*CIFAR, "--retrain", "none.t7"], "none.t7"),
        ([*SMALL, "--n-classes", 12, "--recipe", "modern"], "--n-classes is 12"),
        ([*SMALL, "--resume", DATA], "--depth: the run of --resume has its own"),
        ([*SMALL, "--manual-seed", 10**30], "--manual-seed"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_done(tmp_path, capsys, arguments, complaint):
    assert train(*arguments, "--save", tmp_path / "run") in (1, 2)
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run" / "latest.pt").exists()


def test_a_run_is_not_overwritten_unless_told(whole_run, tmp_path, capsys):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")
    before = weights_of(folder / "model_3.pt")
    assert train(*SMALL, "--n-epochs", 1, "--save", folder) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert torch.equal(weights_of(folder / "model_3.pt")["fc.bias"], before["fc.bias"])
    assert train(*SMALL, "--n-epochs", 1, "--save", folder, "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipe", "modern"], "--recipe original, now it is modern"),
        (["--manual-seed", 8], "--manual-seed 0, now it is 8"),
        (["--dataset", "cifar100"], "cifar100"),
    ],
)
def test_a_resumed_run_must_be_the_same(whole_run, capsys, arguments, complaint):
    assert train(*CIFAR, "--resume", whole_run[0], *arguments) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("momentum", [1]),
        ("momentum", torch.ones(3)),
        ("momentum", {"conv1.weight": torch.ones(2).to_sparse()}),
        ("counts", ["a", 1, 1, 1.0]),
        ("epoch", -5),
        ("dataset", "elsewhere"),
        ("history", [["x"]]),
        ("recipe", {"name": "original"}),
        ("random", torch.ones(3)),
        ("skipped", 4),
    ],
)
def test_a_damaged_optimizer_state_is_an_error_and_no_traceback(whole_run, tmp_path, capsys, key, value):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")
    state = torch.load(folder / "optimState_3.pt", weights_only=True)
    torch.save(state | {key: value}, folder / "optimState_3.pt")
    assert train(*CIFAR, "--resume", folder, "--n-epochs", 4) == 1
    assert capsys.readouterr().err.startswith("Error: ")


@pytest.mark.parametrize("field", ["accumulate", "epochs", "lr", "augmentation", "batch_size"])
def test_an_impossible_recipe_in_a_file_is_refused(whole_run, tmp_path, capsys, field):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")
    state = torch.load(folder / "optimState_3.pt", weights_only=True)
    torch.save(state | {"recipe": state["recipe"] | {field: 0}}, folder / "optimState_3.pt")
    assert train(*CIFAR, "--resume", folder) == 1
    assert capsys.readouterr().err.startswith("Error: ")


def test_more_processes_than_images_in_a_batch_are_refused(tmp_path):
    process = started(*SMALL, "--batch-size", 1, "--n-gpu", 2, "--device", "cpu", "--save", tmp_path)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("2 processes need an image each")) == (1, 1)


def test_a_missing_file_of_a_run_is_named(whole_run, tmp_path, capsys):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")
    (folder / "optimState_3.pt").unlink()
    assert train(*CIFAR, "--resume", folder) == 1
    assert "optimState_3.pt" in capsys.readouterr().err


def test_a_diverged_run_stops_with_what_to_try_and_keeps_its_checkpoints(whole_run, tmp_path, capsys):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")
    assert train(*CIFAR, "--resume", folder, "--n-epochs", 9, "--lr", "1e18") == 1
    assert "Training has diverged" in capsys.readouterr().err
    assert all(tensor.isfinite().all() for tensor in weights_of(folder / "model_3.pt").values())


def test_a_full_disk_keeps_the_last_checkpoint_and_says_what_to_free(whole_run, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")

    def full(_content, path):
        error = OSError(errno.ENOSPC, "No space left on device")
        raise CheckpointError(f"{path}: cannot be written: {error}") from error

    monkeypatch.setattr(saving, "torch_save", full)
    assert train(*CIFAR, "--resume", folder, "--n-epochs", 4) == 1
    message = capsys.readouterr().err
    assert "No space left" in message
    assert "MB left" in message
    monkeypatch.undo()
    assert torch.load(folder / "latest.pt", weights_only=True)["epoch"] == 3


def test_a_disk_that_is_full_from_the_start_is_no_run_to_continue(tmp_path, capsys, monkeypatch):
    def full(_content, path):
        error = OSError(errno.ENOSPC, "No space left on device")
        raise CheckpointError(f"{path}: cannot be written: {error}") from error

    monkeypatch.setattr(saving, "torch_save", full)
    assert train(*SMALL, "--save", tmp_path) == 1
    message = capsys.readouterr().err
    assert "No space left" in message
    assert "Nothing of this run has been saved yet" in message
    assert "latest.pt" not in message
    assert "--resume" not in message


ZIP_END = b"PK\x05\x06"  # a zip file's directory ends with it


def zip64(whole: bytes) -> bytes:
    """With a locator of a larger directory, as files above 4 GB have one, that leads nowhere."""
    end = whole.index(ZIP_END)
    return whole[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 9, 1 << 62, 9) + whole[end:]


DAMAGES = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "zeros": lambda whole: bytes(len(whole)),
    "a zip of several disks": zip64,
    "the end of a zip": lambda whole: whole[whole.index(ZIP_END) :],
    "another pickle": lambda whole: pickle.dumps([1, 2]),
    "text": lambda whole: b"epoch 3",
}


@pytest.mark.parametrize("name", ["latest.pt", "optimState_3.pt", "model_3.pt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_run_is_named_with_the_way_on(whole_run, tmp_path, capsys, name, damage):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")
    (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
    assert train(*CIFAR, "--resume", folder, "--n-epochs", 4) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"Error: {folder / name}: ")
    epoch = 2 if name == "model_3.pt" else 3
    assert f"--retrain {folder / f'model_{epoch}.pt'}" in message
    assert f"--epoch-number {epoch + 1}" in message
    assert ("--optim-state" in message) is (name != "optimState_3.pt")


def test_the_way_on_from_a_damaged_run_is_one(whole_run, tmp_path, capsys):
    folder = shutil.copytree(whole_run[0], tmp_path / "run")
    (folder / "latest.pt").write_bytes(b"damaged")
    assert train(*CIFAR, "--resume", folder) == 1
    advice = re.search(r"(--retrain .*)$", capsys.readouterr().err.strip())[1].split()
    rest = ["--n-epochs", 4, "--batch-size", 16, "--lr", "0.01", "--save", tmp_path / "on"]
    assert train(*CIFAR, *advice, *rest) == 0
    assert train(*CIFAR, "--resume", whole_run[0], "--save", tmp_path / "whole", "--n-epochs", 4) == 0
    assert same_weights(tmp_path / "on" / "model_4.pt", tmp_path / "whole" / "model_4.pt")


def test_too_little_memory_says_what_would_fit(tmp_path, capsys, monkeypatch):
    backward = TrainStep.backward

    def limited(self, images, *rest, **named):
        if len(images) > 5:
            raise DeviceMemoryError("not enough memory")
        return backward(self, images, *rest, **named)

    monkeypatch.setattr(TrainStep, "backward", limited)
    assert train(*SMALL, "--save", tmp_path) == 1
    assert "a batch of 16 images does not fit" in (message := capsys.readouterr().err)
    assert "--batch-size 4 --accumulate 4" in message


def test_without_a_compiler_the_compiled_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    process = started(*SMALL, "--n-epochs", 1, "--compile", "--save", tmp_path / "run")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("Error: torch.compile does not work here")
    assert "Traceback" not in err


@pytest.fixture
def folder_with_a_broken_image(tmp_path):
    folder = tmp_path / "data"
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for label, color in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
            (folder / split / label).mkdir(parents=True)
            for k in range(count):
                pixels = (draw.integers(0, 55, (70, 64, 3)) + color).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{k}.png")
    (folder / "train" / "red" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return folder


def test_an_unreadable_image_stops_the_run_or_is_left_out(folder_with_a_broken_image, tmp_path, capsys):
    arguments = ["--data", folder_with_a_broken_image, "--retrain", "demo", "--reset-classifier", "--quiet"]
    arguments += ["--n-epochs", 2, "--batch-size", 4, "--crop-size", 32, "--resize-size", 32]
    for check in ("--check", "--no-check"):
        assert train(*arguments, "--save", tmp_path / check, check, "--on-error", "fail") == 1
        assert "3.png" in capsys.readouterr().err
    assert train(*arguments, "--save", tmp_path / "original", "--recipe", "original") == 1
    assert train(*arguments, "--save", tmp_path / "skip") == 0
    message = capsys.readouterr().err
    assert "images cannot be read and are left out; they are listed at the end" in message
    assert "1 image could not be read and was left out" in message
    bad = folder_with_a_broken_image / "val" / "red" / "0.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    test = ["--data", folder_with_a_broken_image, "--retrain", tmp_path / "skip" / "model_best.pt", "--test-only"]
    assert train(*test) == 1
    assert train(*test, "--on-error", "skip") == 0
    assert "val/red/0.png" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "skip" / "model_best.pt").class_names == ["blue", "red"]


def test_a_finetuned_net_classifies_with_its_own_labels_and_preprocessing(folder_with_a_broken_image, tmp_path, capsys):
    data = folder_with_a_broken_image
    (data / "train" / "red" / "3.png").unlink()
    arguments = ["--data", data, "--retrain", "demo", "--reset-classifier", "--n-classes", 2, "--quiet"]
    sizes = ["--crop-size", 64, "--resize-size", 64]
    assert train(*arguments, "--save", tmp_path / "run", "--n-epochs", 8, "--batch-size", 8, *sizes) == 0
    out = capsys.readouterr().out
    assert "Recipe finetune" in out
    assert " => Replacing classifier with 2-way classifier" in out
    assert run(["classify", str(tmp_path / "run" / "model_best.pt"), str(data / "val" / "red" / "0.png")]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("\tred")


def test_early_stop_ends_a_run_that_does_not_get_better(tmp_path):
    assert train(*SMALL, "--n-epochs", 30, "--lr", "1e-9", "--early-stop", 2, "--save", tmp_path) == 0
    epochs = [row[0] for row in figures_of(tmp_path)]
    best = min(figures_of(tmp_path), key=lambda row: (row[6], row[0]))[0]
    assert epochs[-1] == best + 2


def test_keep_removes_the_files_of_early_epochs(tmp_path):
    assert train(*SMALL, "--n-epochs", 3, "--keep", 1, "--save", tmp_path) == 0
    assert {path.name for path in tmp_path.glob("model_*.pt")} == {"model_3.pt", "model_best.pt"}


@pytest.mark.filterwarnings("ignore")  # of tensorboard's own imports
def test_tensorboard_gets_the_figures_of_each_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(*SMALL, "--n-epochs", 2, "--save", tmp_path, "--tensorboard") == 0
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    written = {name: [event.value for event in events.Scalars(name)] for name in ("val_top1", "train_loss")}
    history = read_history(tmp_path / "history.csv")
    assert written["val_top1"] == pytest.approx([epoch.val_top1 for epoch in history])
    assert written["train_loss"] == pytest.approx([epoch.train_loss for epoch in history])


def test_help_shows_the_options_in_groups(capsys):
    assert train("--help") == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if re.fullmatch(r"\w+:", line)]
    assert headings == ["Data:", "Model:", "Recipe:", "Run:", "Speed:", "Options:"]
