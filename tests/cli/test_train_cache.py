"""`resnet train --cache`: what it refuses and says, and that a run is the same wherever its copies come from."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.data import photo_cache
from resnet_tools.data.photographs import photograph
from resnet_tools.errors import Note
from resnet_tools.training import transforms
from resnet_tools.training.run import Run
from tests.support.training import figures_of, same_weights

pytestmark = pytest.mark.usefixtures("one_thread")

NET = ("--stem", "cifar", "--depth", 8, "--resize-size", 16, "--crop-size", 16, "--recipe", "finetune")
QUICK = ("--quiet", "--no-report", "--no-check", "--n-epochs", 2, "--batch-size", 2)


def train(*arguments: object) -> int:
    return run(["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Four photos of two classes to train on, and a run of two epochs of two batches with a cache."""
    top = tmp_path_factory.mktemp("whole")
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "ab":
            (top / "photos" / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = noise.integers(0, 256, (160, 120, 3), np.uint8)
                Image.fromarray(pixels).save(top / "photos" / split / name / f"{number}.jpg")
    options = ("--data", top / "photos", "--save", top / "run", "--cache", top / "cache", "--workers", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert train(*options, *NET, *QUICK) == 0
    torch.set_num_threads(threads)
    return top


def copies(folder: Path) -> int:
    return len(list(folder.glob("*.copy")))


def test_copies_of_training_images_are_kept_and_the_option_with_the_run(whole_run):
    assert copies(whole_run / "cache") == 4
    stored = json.loads((whole_run / "run" / "args.json").read_text())
    assert stored["options"]["cache"] == stored["absolute"]["cache"] == str(whole_run / "cache")


@pytest.mark.parametrize("workers", [2, 5])  # threads, processes
@pytest.mark.parametrize("there", ["all", "none", "some, and one is damaged"])
def test_the_run_is_the_same_whatever_copies_are_there(whole_run, tmp_path, workers, there):
    if there != "none":
        shutil.copytree(whole_run / "cache", tmp_path / "cache")
        first, second, *_ = sorted((tmp_path / "cache").glob("*.copy"))
        if there != "all":
            first.unlink()
            second.write_bytes(second.read_bytes()[:-100])
    options = ("--data", whole_run / "photos", "--save", tmp_path / "run", "--cache", tmp_path / "cache")
    assert train(*options, "--workers", workers, *NET, *QUICK) == 0
    assert same_weights(tmp_path / "run" / "model_2.pt", whole_run / "run" / "model_2.pt")
    assert figures_of(tmp_path / "run") == figures_of(whole_run / "run")
    assert copies(tmp_path / "cache") == 4


def test_a_stopped_run_goes_on_with_its_cache_though_that_is_gone(whole_run, tmp_path, monkeypatch):
    steps = []
    backward = Run._backward

    def stopping(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return backward(self, *arguments, **options)

    monkeypatch.setattr(Run, "_backward", stopping)
    monkeypatch.chdir(tmp_path)
    options = ("--data", whole_run / "photos", "--save", "run", "--cache", "cache", "--workers", 0)
    assert train(*options, *NET, *QUICK) == 143
    shutil.rmtree("cache")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert train("--resume", "../run", "--quiet", "--workers", 0) == 0
    assert same_weights(tmp_path / "run" / "model_2.pt", whole_run / "run" / "model_2.pt")
    assert copies(tmp_path / "cache") > 0
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--recipe original --cache c", "--cache trains on smaller copies of the images, but --recipe original on the"),
        ("--cache photos/train/c", "--cache photos/train/c: lies among the class folders of photos/train"),
        ("--cache photos", "--cache photos: holds other files, such as "),
        ("--save new --cache new", "--cache new: holds other files, such as lock"),
        ("--classifier-only --retrain demo --cache c", "leave out --cache"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(whole_run, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(whole_run)
    files = sorted(whole_run.rglob("*"))
    own = () if "--recipe" in words or "--classifier-only" in words else NET
    assert train("--data", "photos", "--save", "new", *own, "--no-check", *words.split()) in (1, 2)
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert sorted(whole_run.rglob("*")) == files


@pytest.mark.parametrize("words", ["--recipe original", "", "--retrain demo --reset-classifier --recipe original"])
def test_a_cache_for_the_original_recipe_is_refused_before_any_image_is_looked_for(tmp_path, capsys, words):
    (tmp_path / "empty").mkdir()
    options = ("--data", tmp_path / "empty", "--save", tmp_path / "new", "--cache", tmp_path / "c", *words.split())
    assert train(*options) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--cache trains on smaller copies of the images, but --recipe original on the images themselves" in said


def test_a_full_disk_is_said_once_and_changes_nothing(whole_run, tmp_path, capsys, monkeypatch):
    class Full:
        free = 0

    monkeypatch.setattr(photo_cache.shutil, "disk_usage", lambda _: Full)
    options = ("--data", whole_run / "photos", "--save", tmp_path / "run", "--cache", tmp_path / "cache")
    assert train(*options, "--workers", 0, *NET, *QUICK) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "cache" in line]
    assert said == [
        f"Warning: --cache {tmp_path / 'cache'}: half of the free space on its disk is used; the training goes on, "
        "but keeps no more copies"
    ]
    assert same_weights(tmp_path / "run" / "model_2.pt", whole_run / "run" / "model_2.pt")


def test_in_python_it_is_a_warning(whole_run, tmp_path, monkeypatch):
    from resnet_tools import train

    class Full:
        free = 0

    monkeypatch.setattr(photo_cache.shutil, "disk_usage", lambda _: Full)
    options = {"save": tmp_path / "run", "cache": tmp_path / "cache", "recipe": "finetune", "n_epochs": 1}
    small = {"stem": "cifar", "depth": 8, "resize_size": 16, "crop_size": 16, "batch_size": 2, "workers": 0}
    with pytest.warns(UserWarning, match="keeps no more copies") as said:
        train(whole_run / "photos", check=False, report=False, **options, **small)
    assert [warning.category for warning in said] == [UserWarning]


@pytest.mark.parametrize(("recipe", "count"), [("finetune", 8), ("modern", 8), ("original", 0)])
def test_only_the_views_of_our_own_recipes_are_made_of_fewer_pixels(whole_run, tmp_path, monkeypatch, recipe, count):
    """Four images in two epochs; validation takes all pixels."""
    opened = []

    def counted(file, *, exif):
        opened.append(file.path)
        return photograph(file, exif=exif)

    monkeypatch.setattr(transforms, "photograph", counted)
    options = ("--data", whole_run / "photos", "--save", tmp_path / "run", "--workers", 0)
    assert train(*options, *NET[:-1], recipe, *QUICK) == 0
    assert len([path for path in opened if "/train/" in path]) == len(opened) == count


@pytest.mark.parametrize(("words", "offered"), [(NET, True), ((*NET[:-1], "original"), False)])
def test_a_cache_is_offered_where_the_run_waits_for_large_photographs(
    whole_run, tmp_path, capsys, monkeypatch, words, offered
):
    monkeypatch.setattr("resnet_tools.training.loading_watch.FIRST_BATCHES", 1)
    monkeypatch.setattr("resnet_tools.training.loading_watch.MOST", -1.0)  # any time is enough
    options = ("--data", whole_run / "photos", "--save", tmp_path / "run", "--workers", 0)
    assert train(*options, *words, *QUICK) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "--cache" in line]
    expected = (
        "Note: the training waits for photographs to be decoded (120 x 160 pixels): --cache FOLDER, also with "
        "--resume, keeps small copies of them for later epochs"
    )
    assert said == ([expected] if offered else [])


def test_in_python_what_is_offered_is_a_note(whole_run, tmp_path, monkeypatch):
    from resnet_tools import train

    monkeypatch.setattr("resnet_tools.training.loading_watch.FIRST_BATCHES", 1)
    monkeypatch.setattr("resnet_tools.training.loading_watch.MOST", -1.0)  # any time is enough
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    small = {"stem": "cifar", "depth": 8, "resize_size": 16, "crop_size": 16, "batch_size": 2, "workers": 0}
    with pytest.warns(Note) as said:
        train(whole_run / "photos", save=tmp_path / "run", check=False, recipe="finetune", n_epochs=1, **small)
    assert [str(warning.message).split(" ")[:3] for warning in said] == [
        ["the", "training", "waits"],
        ["charts", "of", "the"],
    ]
    assert {warning.category for warning in said} == {Note}
