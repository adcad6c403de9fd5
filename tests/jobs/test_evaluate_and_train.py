"""evaluate and train in Python: as the commands, silent, and their results as plain values."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools import classify, evaluate, load_checkpoint, train
from resnet_tools.__main__ import run
from resnet_tools.cli.train_options import train_options as command_options
from resnet_tools.errors import DataError, ImageError, OptionError, ResnetToolsError
from resnet_tools.jobs.train_arguments import FIELDS, RANGES, TrainArguments
from resnet_tools.training.options import TrainOptions
from tests.support.demo_images import PHOTOS
from tests.support.training import figures_of, same_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*(classes are not there|images for each class|few images)")


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    for path in PHOTOS:
        folder = tmp_path / "fashion" / Path(path).stem.replace("_", " ")
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
    return tmp_path / "fashion"


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for label, low in (("dark", 0), ("light", 150)):
            folder = tmp_path / "squares" / split / label
            folder.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(random.integers(low, low + 100, (32, 32, 3), np.uint8)).save(folder / f"{k}.png")
    return tmp_path / "squares"


class Pairs:
    """A data set as torchvision has them."""

    classes = ("bag", "coat")

    def __len__(self) -> int:
        return 2

    def __init__(self, added: int = 0) -> None:
        self.added = added  # to the pixels, so that no image is in both of two sets

    def __getitem__(self, k: int) -> tuple[Image.Image, int]:
        with Image.open(PHOTOS[k + 1]) as image:
            return Image.fromarray(np.asarray(image.convert("RGB")) // 2 + self.added), k


def test_an_evaluation_is_that_of_the_command(fashion, tmp_path, capfd):
    (fashion / "bag" / "bad.png").write_bytes(b"bad")
    assert run(["evaluate", "demo", "--data", str(fashion), "--json", "--quiet"]) == 0
    expected = json.loads(capfd.readouterr().out)
    seen: list[tuple[int, int]] = []
    found = evaluate(
        "demo", fashion, report=tmp_path / "report", progress=lambda done, total: seen.append((done, total))
    )
    assert capfd.readouterr() == ("", "")
    assert found.to_dict() == expected
    assert seen[-1] == (11, 11)
    assert (found.top1_error, found.confusion_matrix.shape, found.confusion_matrix.sum()) == (20.0, (10, 10), 10)
    assert list(found.errors) == [str(fashion / "bag" / "bad.png")]
    assert len(found.mistakes) == 2
    assert found.report == tmp_path / "report" / "index.html"
    assert found.report.is_file()
    rows = found.rows()
    assert sum(row["correct"] is True for row in rows) == 8
    assert [row["error"] is None for row in rows].count(False) == 1
    labels = classify(found.names, top_k=1)
    assert [row["prediction"] for row in rows] == [image.label for image in labels]


def test_a_data_set_in_python_is_matched_by_its_class_names():
    checkpoint = load_checkpoint("demo")
    found = evaluate(checkpoint, Pairs())
    assert (len(found.rows()), found.targets.tolist()) == (2, [1, 2])
    pairs = Pairs()
    pairs.classes = ("bag", "house")
    with pytest.raises(DataError, match="house match no class"):
        evaluate(checkpoint, pairs)
    with pytest.raises(DataError, match="belong to a folder"):
        evaluate(checkpoint, Pairs(), split="val")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"data": "nowhere"}, DataError),
        ({"data": [1]}, DataError),
        ({"average": "mean"}, ResnetToolsError),
        ({"on_error": "fail"}, ImageError),
        ({"class_names": ["a"]}, ResnetToolsError),
        ({"checkpoint": "nowhere"}, ResnetToolsError),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_of_the_package(options, error, fashion):
    (fashion / "bag" / "bad.png").write_bytes(b"bad")
    with pytest.raises(error):
        evaluate(**({"checkpoint": "demo", "data": fashion} | options))


def test_a_training_is_that_of_the_command(squares, tmp_path, capfd):
    common = {"arch": "cifar10-resnet-20", "n_epochs": 2, "batch_size": 4, "manual_seed": 3, "report": False}
    words = [word for name, value in common.items() if name != "report" for word in (_option(name), str(value))]
    save = ["--save", str(tmp_path / "a"), "--no-report", "--quiet"]
    assert run(["train", "--data", str(squares), *words, *save]) == 0
    capfd.readouterr()
    seen: list[tuple[int, int]] = []
    found = train(squares, save=tmp_path / "b", progress=lambda done, total: seen.append((done, total)), **common)
    assert capfd.readouterr() == ("", "")
    assert seen == [(k, 6) for k in range(1, 7)]
    assert same_weights(tmp_path / "a" / "model_2.pt", tmp_path / "b" / "model_2.pt")
    assert figures_of(tmp_path / "a") == figures_of(tmp_path / "b")
    assert [row["epoch"] for row in found.rows()] == [1, 2]
    assert found.checkpoint.class_names == ["dark", "light"]
    assert found.to_dict()["best_top1_error"] == found.best_top1_error == min(e.val_top1 for e in found.history)
    more = train(resume=found.folder, n_epochs=3)
    assert len(more.history) == 3
    with pytest.raises(OptionError, match="holds a run"):
        train(squares, save=tmp_path / "b", **common)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def test_an_interruption_saves_and_the_run_goes_on(squares, tmp_path):
    options = {"arch": "cifar10-resnet-20", "batch_size": 4, "n_epochs": 2, "save": tmp_path / "run"}

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(squares, progress=interrupt, **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "run" / "model_1.2.pt").is_file()
    resumed = train(resume=tmp_path / "run")
    whole = train(squares, **(options | {"save": tmp_path / "whole"}))
    assert [e.val_loss for e in resumed.history] == [e.val_loss for e in whole.history]


def test_data_sets_and_a_loaded_net_can_be_trained_on(tmp_path):
    checkpoint = load_checkpoint("demo")
    before = checkpoint.model.fc.weight.clone()
    found = train(
        (Pairs(), Pairs(1)), retrain=checkpoint, reset_classifier=True, n_epochs=1, save=tmp_path / "run", report=False
    )
    assert found.checkpoint.class_names == ["bag", "coat"]
    assert torch.equal(checkpoint.model.fc.weight, before)
    fitted = train(
        (Pairs(), Pairs(1)), retrain=checkpoint, classifier_only=True, save=tmp_path / "fitted", report=False
    )
    assert fitted.checkpoint.num_classes == 2
    with pytest.raises(OptionError, match="give them again"):
        train(resume=tmp_path / "run", n_epochs=2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"n_epochs": 0}, "n_epochs is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; expected a whole number of at least 1 and at most 65536"),
        ({"lr": "0.1"}, "lr is '0.1'; expected a number above 0"),
        ({"momentum": 1}, "momentum is 1; expected a number of at least 0 and below 1"),
        ({"ema": float("nan")}, "ema is nan"),
        ({"recipe": "fast"}, "recipe is 'fast'; expected 'original', 'finetune', 'modern'"),
        ({"overwrite": 1}, "overwrite is 1; expected True or False"),
        ({"epochs": 3}, "epochs: there is no such option"),
        ({"reset_classifier": True}, "--reset-classifier replaces the classifier of a net"),
        ({"retrain": "demo", "arch": "resnet-18"}, "--arch: the net of --retrain has its own"),
        ({"arch": 18}, "arch is 18; expected a text"),
        ({"crop_size": 300, "resize_size": 200}, "does not fit"),
        ({"data": None}, "data is missing"),
        ({"data": [1, 2, 3]}, "data is list; expected a folder, or two data sets"),
    ],
)
def test_options_that_do_not_exist_or_contradict_are_refused(options, expected, squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError) as refused:
        train(**({"data": squares} | options))
    assert expected in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_the_arguments_and_their_ranges_are_those_of_the_command():
    own = {"data", "retrain", "reset_classifier", "save", "resume"}  # named in the signature
    apart = {"test_only", "quiet", "n_gpu"}  # evaluate is for the first; the others are the command's
    fields = {FIELDS.get(name, name) for name in TrainArguments.__annotations__}
    assert fields == set(TrainOptions.__dataclass_fields__) - own - apart

    def body() -> None: ...

    parameters = {parameter.name: parameter for parameter in command_options(body).__click_params__}
    for name, (opening, low, high, closing) in RANGES.items():
        kind = parameters[name].type
        assert (kind.min, kind.min_open) == (low, opening == "("), name
        assert (float("inf") if kind.max is None else kind.max) == high, name
        assert kind.max is None or kind.max_open == (closing == ")"), name
    numbers = {name for name, parameter in parameters.items() if getattr(parameter.type, "min", None) is not None}
    assert numbers - {"n_gpu"} == set(RANGES)
