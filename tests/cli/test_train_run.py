"""A run as a thing: what it says and leaves, how it goes on, and what is done with its net."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.history.history import read_history
from resnet_tools.training.saving import load_state
from tests.support.training import same_weights

pytestmark = pytest.mark.usefixtures("one_thread")

NET = ("--stem", "cifar", "--depth", 8, "--resize-size", 16, "--crop-size", 16, "--recipe", "finetune")
QUICK = ("--quiet", "--workers", 0)


def train(*arguments: object) -> int:
    return run(["train", *map(str, (*arguments, *QUICK))])


def photos(top: Path, classes: tuple[str, ...] = ("a cat", "a dog")) -> Path:
    """Eight images a class, each class of another brightness."""
    noise = np.random.default_rng(0)
    for place, name in enumerate(classes):
        (top / name).mkdir(parents=True)
        for number in range(8):
            pixels = noise.integers(0, 60, (20, 20, 3)) + 120 * place
            Image.fromarray(pixels.astype(np.uint8)).save(top / name / f"{number}.png")
    return top


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole run of two epochs of four batches: its folder, and what was printed."""
    top = tmp_path_factory.mktemp("made")
    photos(top / "my photos")
    (top / "my photos/a cat/broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        out, err = io.StringIO(), io.StringIO()
        words = ("--data", "my photos", "--on-error", "skip", "--n-epochs", 2, "--batch-size", 4, "--save", "run 1")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            assert train(*words, "--log-every", 2, *NET) == 0
    return top, out.getvalue().splitlines(), err.getvalue()


@pytest.fixture
def there(made, tmp_path, monkeypatch):
    """A copy of the folder in which it ran, to work in, as if it had run here."""
    top = shutil.copytree(made[0], tmp_path / "copy")
    monkeypatch.chdir(top)
    arguments = json.loads((top / "run 1/args.json").read_text())
    arguments["absolute"]["data"] = str(top / "my photos")
    (top / "run 1/args.json").write_text(json.dumps(arguments))
    return top


def test_the_lines_of_a_run_say_what_is_done_and_what_came_of_it(made):
    _, out, err = made
    assert out[0].startswith("Recipe finetune: 2 epochs")
    [start] = [line for line in out if "training and" in line]
    assert start == (
        "13 training and 4 validation images, 2 classes; resnet-8, a new net; CPU, 1 thread; saving to run 1"
    )
    epochs = [line for line in out if line.startswith("Epoch ") and "validation" in line]
    number = r"\d+\.\d+"
    form = (
        rf"Epoch 1/2: training loss {number}, error {number} %; validation loss {number}, error {number} % "
        rf"\(accuracy {number} %\)(, the best so far)?; \d+ s, \d:\d\d:\d\d left"
    )
    assert re.fullmatch(form, epochs[0])
    assert "left" not in epochs[1]
    assert [line.split(":")[0] for line in out if ", batch " in line] == ["Epoch 1, batch 2/4", "Epoch 2, batch 2/4"]
    end = out[out.index(epochs[1]) + 1 :]
    best = min(read_history(made[0] / "run 1/history.csv"), key=lambda epoch: (epoch.val_top1, epoch.epoch))
    assert end[0] == (
        f"Best: epoch {best.epoch}, validation error {best.val_top1:.2f} % (accuracy {100 - best.val_top1:.2f} %); "
        "its net is run 1/model_best.pt"
    )
    assert re.fullmatch(r"Took \d:\d\d:\d\d for 2 epochs; 1 image left out as unreadable", end[1])
    assert end[3] == "Next:"
    assert not any("top" in line for line in out)  # of two classes, five are all
    assert "my photos/a cat/broken.jpg" in err


def test_the_commands_it_ends_with_can_be_pasted(made, there, capsys):
    commands = [shlex.split(line) for line in made[1][made[1].index("Next:") + 1 :]]
    assert [words[:3] for words in commands] == [["resnet", "classify", "run 1"], ["resnet", "evaluate", "run 1"]]
    assert commands[1][-2:] == ["--report", "run 1/report"]
    for words in commands:
        assert run(words[1:]) == 0
    out = capsys.readouterr().out
    error = min(epoch.val_top1 for epoch in read_history(there / "run 1/history.csv"))
    assert f"{error:.3f}" in out


def test_it_leaves_pictures_and_a_report(made):
    folder = made[0] / "run 1"
    pictures = ("augmented.png", "training.png", "confusion.png")
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 100
    assert json.loads((folder / "report/summary.json").read_text())["images"] == 3  # and one cannot be read
    [line] = [line for line in made[1] if line.startswith("To look at: ")]
    assert all(f"run 1/{name}" in line for name in (*pictures, "report/index.html"))


def test_without_matplotlib_the_run_ends_well_with_one_hint(there, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert train("--data", "my photos", "--on-error", "skip", "--n-epochs", 1, "--save", "other", *NET) == 0
    captured = capsys.readouterr()
    assert captured.err.count("matplotlib") == 1
    assert "Note: charts of the training and a report of its best net need matplotlib" in captured.err
    assert "resnet_tools[plot]" in captured.err
    assert {path.name for path in (there / "other").glob("*.png")} == {"augmented.png"}  # which Pillow draws


def test_a_picture_that_fails_is_told_and_fails_nothing_else(there, capsys):
    (there / "other/training.png").mkdir(parents=True)
    assert train("--data", "my photos", "--on-error", "skip", "--n-epochs", 1, "--save", "other", *NET) == 0
    captured = capsys.readouterr()
    assert re.search(r"Warning: the curves could not be drawn: .*training\.png", captured.err)
    assert "other/confusion.png" in captured.out
    assert "Next:" in captured.out


@pytest.mark.parametrize("option", ["--no-report", "--recipe original"])
def test_no_pictures_where_none_are_wanted(there, option):
    words = ("--data", "my photos", "--on-error", "skip", "--n-epochs", 1, "--save", "other", *NET, *option.split())
    assert train(*words) == 0
    assert not [*(there / "other").glob("*.png"), *(there / "other").glob("report")]


def test_under_the_original_s_recipe_stdout_has_its_lines_alone(there, capsys):
    words = ("--data", "my photos", "--on-error", "skip", "--n-epochs", 1, "--save", "other", *NET)
    assert train(*words, "--recipe", "original") == 0
    captured = capsys.readouterr()
    starts = ("Recipe original", "=> ", " | ", " * ")
    assert all(line.startswith(starts) for line in captured.out.splitlines() if line)
    assert captured.out.splitlines()[-1].startswith(" * Finished top1:")
    assert "13 training and 4 validation images" in captured.err
    assert "Next:\n  resnet classify other " in captured.err


# Going on


def test_a_run_goes_on_with_nothing_but_its_folder_to_the_same_bits(made, there, capsys):
    stands = {"epoch": 1, "modelFile": "model_1.pt", "optimFile": "optimState_1.pt"}
    torch.save(stands, there / "run 1/latest.pt")  # as if it had been stopped there
    assert train("--resume", "run 1") == 0
    captured = capsys.readouterr()
    assert "continuing after epoch 1" in captured.out
    assert "Epoch 2, batch 2/4" in captured.out  # --log-every is kept
    assert "Changed options" not in captured.err
    assert same_weights(there / "run 1/model_2.pt", made[0] / "run 1/model_2.pt")
    options = json.loads((made[0] / "run 1/args.json").read_text())["options"]
    assert json.loads((there / "run 1/args.json").read_text())["options"] == options


def test_what_is_given_anew_is_said_in_one_line(there, capsys):
    given = ("--n-epochs", 3, "--lr", 0.01, "--keep", 0, "--data", there / "my photos")
    assert train("--resume", "run 1", *given) == 0
    expected = "Changed options: --keep 0 (was not given), --n-epochs 3 (was 2), --lr 0.01 (was 0.03)"
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("Changed options")] == [expected]


def test_a_run_that_was_moved_goes_on_from_anywhere(there, tmp_path, monkeypatch):
    # Of a run from another folder, images that cannot be read are met again under other names.
    moved = shutil.move(there / "run 1", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert train("--resume", moved, "--n-epochs", 3) == 0
    assert (tmp_path / "moved/model_3.pt").is_file()
    assert len(load_state(tmp_path / "moved")[0].skipped) == 1


def test_a_finished_run_says_so_and_how_it_goes_on(there, capsys):
    assert train("--resume", "run 1") == 0
    captured = capsys.readouterr()
    assert "the run in run 1 is finished: 2 of 2 epochs; --n-epochs 3 adds more" in captured.err
    assert "Best: " in captured.out
    assert "Took" not in captured.out
    assert train("--resume", "run 1", "--n-epochs", 4) == 0
    note = r"the learning rate was 0 when the run ended after epoch 2; by the cosine schedule of 4 epochs it continues"
    assert re.search(note + r" at 0\.0\d+, and falls to 0 again", capsys.readouterr().err)
    assert train("--resume", "run 1", "--early-stop", 1, "--n-epochs", 9) == 0
    assert "as 1 epoch brought no lower error; --early-stop 0 continues it" in capsys.readouterr().err


def test_what_cannot_change_is_refused_by_name(there, capsys):
    assert train("--resume", "run 1", "--retrain", "demo", "--val-fraction", 0.5) == 2
    assert "--retrain, --val-fraction: the run of --resume has its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"on_error": "sometimes"}, "--on-error: 'sometimes' is not one of"),
        ({"keep": -1}, "keep: -1 is not in the range"),
        ({"save_every": float("nan")}, "--save-every: nan is not a finite number. Give --save-every again"),
        ({"cudnn": 7}, "cudnn: '7' is not one of"),
        ({"data": "nowhere"}, "the images of the run in run 1 were in nowhere, which is gone; give --data"),
        ({"data": "my_data.py:datasets"}, "which is gone"),
        ({"dataset": "my_data.py:datasets"}, "--dataset my_data.py:datasets, which is a program"),
    ],
)
def test_a_run_from_a_stranger_goes_on_with_plain_options_only(there, capsys, change, complaint):
    """What is stored is checked as what is typed; no program that it names is run."""
    (there / "my_data.py").write_text("raise SystemExit('it was run')")
    stored = json.loads((there / "run 1/args.json").read_text())
    stored["options"] |= change
    stored["absolute"] = {}
    (there / "run 1/args.json").write_text(json.dumps(stored))
    assert train("--resume", "run 1", "--n-epochs", 3) in (1, 2)
    assert complaint in capsys.readouterr().err


def test_a_run_of_an_older_version_is_resumed_as_before(there, capsys):
    (there / "run 1/args.json").unlink()
    assert train("--resume", "run 1", "--n-epochs", 3) == 2
    assert "Missing option '--data'" in capsys.readouterr().err
    assert train("--resume", "run 1", "--n-epochs", 3, "--data", "my photos", "--on-error", "skip") == 0


def test_our_own_net_is_trained_on_with_its_recipe_at_a_low_rate(there, capsys):
    words = ("--data", "my photos", "--on-error", "skip", "--save", "on")
    assert train(*words, "--retrain", "run 1/model_best.pt") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Recipe finetune, which made run 1/model_best.pt, continues at a low rate: 2 epochs, ")
    assert "learning rate 0.003," in first
    assert train(*words, "--retrain", "on", "--overwrite", "--save", "twice", "--lr", 0.01) == 0
    assert "learning rate 0.01," in capsys.readouterr().out.splitlines()[0]
    assert (
        train(*words, "--retrain", "run 1/model_best.pt", "--recipe", "original", "--n-epochs", 1, "--save", "o") == 0
    )
    assert "Recipe original: 1 epoch, batches of 32, learning rate 0.1" in capsys.readouterr().out


def test_a_later_epoch_goes_on_at_the_rate_of_its_schedule(there, capsys):
    """As the advice on a damaged run has it."""
    words = ("--data", "my photos", "--on-error", "skip", "--optim-state", "run 1/optimState_1.pt", "--epoch-number", 2)
    assert train(*words, "--retrain", "run 1/model_1.pt", "--save", "on") == 0
    assert "continues as it was: 2 epochs, batches of 4, learning rate 0.03" in capsys.readouterr().out
    assert same_weights(there / "on/model_2.pt", there / "run 1/model_2.pt")


# What is looked at, and when


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--retrain", "none.t7"), "none.t7: no such model file"),
        (("--retrain", "photos.txt"), "photos.txt"),
        (("--arch", "resnet-19"), "resnet-19"),
        (("--optim-state", "photos.txt", "--retrain", "run 1/model_2.pt"), "photos.txt"),
        (("--warmup-epochs", 500), "--warmup-epochs"),
        (("--tensorboard",), "resnet_tools[tensorboard]"),
    ],
)
def test_whatever_is_given_is_looked_at_before_the_images(there, capsys, monkeypatch, words, complaint):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("resnet_tools.data.checking.check_samples", lambda *_, **__: pytest.fail("images were read"))
    (there / "photos.txt").write_text("no net")
    assert train("--data", "my photos", "--save", "other", *words) in (1, 2)
    assert complaint in capsys.readouterr().err


def test_a_test_looks_at_the_validation_images_alone(there, capsys):
    data = there / "divided"
    shutil.copytree(there / "my photos/a dog", data / "val/a dog")
    words = ("--data", "divided", "--retrain", "run 1", "--test-only")
    assert train(*words) == 0  # no train/, and one of the net's two classes
    alone = capsys.readouterr().out
    (data / "train/another").mkdir(parents=True)
    (data / "train/another/broken.png").write_bytes(b"x")
    assert train(*words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" *")]
    assert lines == [line for line in alone.splitlines() if line.startswith(" *")]
    (data / "val/a dog").rename(data / "val/a horse")
    assert train(*words) == 1
    assert "a horse" in capsys.readouterr().err


def test_a_test_on_undivided_photos_leaves_out_what_the_net_was_trained_on(there, capsys):
    assert train("--data", "my photos", "--retrain", "run 1/model_best.pt", "--test-only", "--on-error", "skip") == 0
    best = min(epoch.val_top1 for epoch in read_history(there / "run 1/history.csv"))
    assert f"top1: {best:6.3f}" in capsys.readouterr().out


def test_inspect_shows_the_training_before_the_tensors(there, capsys):
    assert run(["inspect", "run 1/model_2.pt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [place] = [number for number, line in enumerate(lines) if line.startswith("Training: ")]
    assert lines[place].startswith("Training: recipe finetune, after epoch 2, validation error ")
    assert "crop of 16 x 16" in lines[place + 1]
    assert lines[place + 2] == "Classes: a cat, a dog"
    assert lines[place + 3].startswith("Tensors: ")
    assert run(["inspect", "run 1/model_2.pt", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["training"]["recipe"]["epochs"] == 2
    assert report["preprocessing"]["crop_px"] == 16
