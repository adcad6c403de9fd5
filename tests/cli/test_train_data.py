"""`resnet train` on data as people have it: class folders, lists, photos of phones, small images, Python."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnet_tools
from resnet_tools import load_checkpoint
from resnet_tools.__main__ import run
from resnet_tools.data.splits import read_split
from resnet_tools.training import loading

NET = ("--stem", "cifar", "--depth", 8, "--resize-size", 16, "--crop-size", 16)  # seconds
QUIET = ("--quiet", "--workers", 0)


def train(*arguments: object) -> int:
    return run(["train", *map(str, (*arguments, *QUIET))])


def photos(top: Path, *, classes: str = "ab", count: int = 10, side_px: int = 80) -> Path:
    for place, name in enumerate(classes):
        (top / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((side_px, side_px, 3), 100 * place + number, np.uint8)
            Image.fromarray(pixels).save(top / name / f"{number}.png")
    return top


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model.state_dict()


def test_class_folders_are_divided_once_for_training_resuming_and_evaluating(tmp_path, capsys):
    data, save = photos(tmp_path / "photos"), tmp_path / "run"
    assert train("--data", data, "--save", save, "--n-epochs", 1, "--val-fraction", 0.3, *NET) == 0
    rows = read_split(save / "split.csv")
    assert sorted((row.class_name, row.split) for row in rows).count(("a", "val")) == 3
    assert f"Note: validation uses 6 of the 20 images; {save}/split.csv says which" in capsys.readouterr().err
    assert train("--data", data, "--resume", save, "--n-epochs", 2, "--crop-size", 16, "--resize-size", 16) == 0
    assert read_split(save / "split.csv") == rows

    capsys.readouterr()
    assert run(["evaluate", str(save / "model_2.pt"), "--data", str(data), "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert '"images": 6,' in captured.out
    assert f"only the 6 images of val in {save}/split.csv; --split . takes all" in captured.err
    assert run(["evaluate", str(save / "model_2.pt"), "--data", str(data), "--json", "--quiet", "--split", "."]) == 0
    assert '"images": 20,' in capsys.readouterr().out
    others = photos(tmp_path / "others")
    for number, path in enumerate(sorted(others.rglob("*.png"))):
        path.rename(path.with_name(f"other{number}.png"))
    assert run(["evaluate", str(save / "model_2.pt"), "--data", str(others), "--json", "--quiet"]) == 0
    assert '"images": 20,' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gone", "code", "said"),
    [
        ("a", 1, "the run has other classes than --data"),
        ("c", 0, "run has 3 outputs and the data has only 2 classes: c is not there"),
    ],
)
def test_a_resumed_run_says_that_a_class_is_gone(tmp_path, capsys, gone, code, said):
    data = tmp_path / "data"
    for part in ("train", "val"):
        photos(data / part, classes="abc", count=2)
    assert train("--data", data, "--save", tmp_path / "run", "--n-epochs", 1, *NET) == 0
    for part in ("train", "val"):
        shutil.rmtree(data / part / gone)
    capsys.readouterr()
    assert train("--data", data, "--resume", tmp_path / "run", "--n-epochs", 2) == code
    assert said in capsys.readouterr().err


def test_unused_outputs_are_said_once_and_not_when_a_run_is_resumed(tmp_path, capsys):
    data, save = photos(tmp_path / "data"), tmp_path / "run"
    unused = ("--n-classes", 4, "--recipe", "original")
    assert train("--data", data, "--save", save, "--n-epochs", 1, *unused, *NET) == 0
    capsys.readouterr()
    assert train("--resume", save, "--n-epochs", 2) == 0
    assert "the data has only" not in capsys.readouterr().err


def test_a_run_in_place_of_another_keeps_nothing_of_its_split(tmp_path):
    save = tmp_path / "run"
    assert train("--data", photos(tmp_path / "flat"), "--save", save, "--n-epochs", 1, *NET) == 0
    photos(tmp_path / "both/train")
    photos(tmp_path / "both/val", count=1)
    assert train("--data", tmp_path / "both", "--save", save, "--overwrite", "--n-epochs", 1, *NET) == 0
    assert not (save / "split.csv").exists()


def test_an_image_that_cannot_be_read_is_named_with_the_option_that_leaves_it_out(tmp_path, capsys):
    data = photos(tmp_path / "photos")
    (data / "a/broken.jpg").write_bytes(b"\xff\xd8\xff")
    options = ("--data", data, "--save", tmp_path / "run", "--n-epochs", 1, "--recipe", "finetune", *NET)
    assert train(*options, "--on-error", "fail") == 1
    assert re.search(r"a/broken\.jpg: .*\n.*--on-error skip to leave out images", capsys.readouterr().err)
    assert train(*options) == 0
    assert "1 of 21 images cannot be read" in capsys.readouterr().err


def test_more_bad_images_than_good_ones_are_left_out_only_on_request(tmp_path, capsys):
    data = photos(tmp_path / "photos")
    for path in [*data.rglob("*.png")][::2] + [*data.rglob("*.png")][1:2]:
        path.write_bytes(b"\xff\xd8\xff")
    options = ("--data", data, "--save", tmp_path / "run", "--n-epochs", 1, "--recipe", "finetune", *NET)
    assert train(*options) == 1
    assert "--on-error skip to leave out images" in capsys.readouterr().err


def test_lists_say_what_is_trained_and_validated(tmp_path, capsys):
    photos(tmp_path / "photos")
    (tmp_path / "train.csv").write_text("path,class\na/0.png,cat\na/1.png,cat\nb/0.png,dog\nb/1.png,dog\n")
    (tmp_path / "val.csv").write_text("a/2.png,cat\nb/2.png,dog\n")
    lists = ("--train-list", tmp_path / "train.csv", "--val-list", tmp_path / "val.csv")
    assert train("--data", tmp_path / "photos", *lists, "--save", tmp_path / "run", "--n-epochs", 1, *NET) == 0
    assert load_checkpoint(tmp_path / "run/model_1.pt").class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--recipe", "finetune"), True),
        (("--recipe", "modern"), True),
        (("--recipe", "finetune", "--no-exif-orientation"), False),
        (("--recipe", "original"), False),
        (("--recipe", "original", "--exif-orientation"), True),
    ],
)
def test_photos_are_turned_upright_unless_the_original_is_followed(tmp_path, options, expected):
    data, save = photos(tmp_path / "photos"), tmp_path / "run"
    assert train("--data", data, "--save", save, "--n-epochs", 1, "--batch-size", 8, *options, *NET) == 0
    assert load_checkpoint(save / "model_1.pt").preprocessing.exif_orientation is expected
    assert train("--data", data, "--resume", save, "--n-epochs", 2) == 0
    assert load_checkpoint(save / "model_2.pt").preprocessing.exif_orientation is expected


def test_every_command_turns_images_as_the_net_was_trained(tmp_path, capsys):
    data, save = photos(tmp_path / "photos"), tmp_path / "run"
    assert train("--data", data, "--save", save, "--n-epochs", 1, "--exif-orientation", *NET) == 0
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(3 * 20 * 40, dtype=np.uint8).reshape(20, 40, 3)).save(tmp_path / "x.png", exif=exif)

    def outputs(*options: str) -> str:
        capsys.readouterr()
        command = ["classify", str(save / "model_1.pt"), str(tmp_path / "x.png"), "--json", *options]
        assert run(command) == 0
        return capsys.readouterr().out

    assert outputs() == outputs("--exif-orientation")
    assert outputs() != outputs("--no-exif-orientation")


@pytest.mark.parametrize(
    ("options", "stem", "crop_px"),
    [
        (("--arch", "cifar10-resnet-20"), "cifar", 32),
        (("--arch", "cifar100-preresnet-20"), "cifar", 32),
        (("--stem", "cifar"), "cifar", 32),
        (("--arch", "resnet-18", "--resize-size", 32, "--crop-size", 32), "imagenet", 32),
    ],
)
def test_any_net_can_be_trained_on_a_folder_and_trained_again(tmp_path, options, stem, crop_px):
    data, save = photos(tmp_path / "photos", side_px=32), tmp_path / "run"
    assert train("--data", data, "--save", save, "--n-epochs", 1, *options) == 0
    made = load_checkpoint(save / "model_1.pt")
    assert (made.architecture.stem, made.preprocessing.crop_px, made.architecture.num_classes) == (stem, crop_px, 2)
    assert made.preprocessing.mean == (0.485, 0.456, 0.406)
    again = ("--retrain", save / "model_1.pt", "--reset-classifier", "--save", tmp_path / "again", "--n-epochs", 1)
    assert train("--data", data, *again) == 0


def test_a_net_that_does_not_exist_is_refused_with_the_names(tmp_path, capsys):
    assert train("--data", photos(tmp_path / "photos"), "--arch", "resnet-19", "--save", tmp_path / "run") == 1
    assert "'resnet-19' names no architecture; the names are resnet-18," in capsys.readouterr().err
    assert train("--data", tmp_path / "photos", "--arch", "resnet-18", "--depth", 34) == 2
    assert "--depth: the net of --arch has its own" in capsys.readouterr().err


@pytest.mark.parametrize(("side_px", "said"), [(64, True), (65, False)])
def test_what_suits_small_images_is_said_if_nothing_was_chosen(tmp_path, capsys, side_px, said):
    data = photos(tmp_path / "photos", count=3, side_px=side_px)
    (data / "a/broken.jpg").write_bytes(b"x")  # the check ends here, before a net is built
    assert train("--data", data, "--save", tmp_path / "run") == 1
    assert ("Note: most images are 64 pixels or smaller" in capsys.readouterr().err) is said
    assert train("--data", data, "--save", tmp_path / "run", "--stem", "cifar") == 1
    assert "64 pixels" not in capsys.readouterr().err


EXAMPLE = re.search(
    r"```python\n(from PIL import Image\n.*?)```",
    (Path(resnet_tools.__file__).parent / "README.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.fixture
def example(tmp_path, monkeypatch) -> str:
    assert EXAMPLE is not None
    monkeypatch.chdir(tmp_path)
    Path("my_data.py").write_text(EXAMPLE[1])
    return "my_data.py:datasets"


def test_the_example_of_a_data_set_in_python_trains_and_resumes_with_two_processes(example, monkeypatch):
    monkeypatch.setattr(loading, "MAX_THREADS", 1)  # with more workers than these they are processes
    options = ("train", "--dataset", example, "--quiet", "--workers", "2")
    new = ("--stem", "cifar", "--depth", "8")
    assert run([*options, *new, "--n-epochs", "2", "--save", "whole"]) == 0
    assert run([*options, *new, "--n-epochs", "1", "--save", "part"]) == 0
    assert run([*options, "--n-epochs", "2", "--resume", "part"]) == 0
    whole, part = weights(Path("whole/model_2.pt")), weights(Path("part/model_2.pt"))
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert load_checkpoint("whole/model_2.pt").class_names == ["dark", "light"]


@pytest.mark.parametrize("recipe", ["original", "modern"])
def test_a_net_of_gray_images_is_trained_and_classifies(tmp_path, recipe):
    """One channel from the first convolution to the saved preprocessing, with every augmentation."""
    for number, place in enumerate(("train/a", "train/b", "val/a", "val/b")):
        (tmp_path / place).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (40, 36), (90 * k, 60 * number, 30)).save(tmp_path / place / f"{k}.png")
    sizes = ["--crop-size", "32", "--resize-size", "36"]
    run_folder = tmp_path / "run"
    words = ["train", "--data", tmp_path, "--arch", "cifar10-resnet-20", "--in-channels", 1, "--recipe", recipe, *sizes]
    words += ["--n-epochs", 1, "--batch-size", 4, "--workers", 0, "--save", run_folder, "--quiet"]
    assert run([str(word) for word in words]) == 0
    checkpoint = load_checkpoint(run_folder / "model_1.pt")
    assert checkpoint.architecture.in_channels == checkpoint.preprocessing.channels == 1
    assert run(["classify", str(run_folder / "model_1.pt"), str(tmp_path / "val/a/1.png")]) == 0


def test_a_net_takes_images_of_one_or_three_channels(tmp_path, capsys):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a").mkdir(parents=True)
    for split in ("train", "val"):
        Image.new("RGB", (40, 36)).save(tmp_path / split / "a" / "1.png")
    words = ["train", "--data", str(tmp_path), "--in-channels", "2", "--save", str(tmp_path / "run"), "--quiet"]
    assert run(words) == 1
    assert "expected 3, or 1 for gray" in capsys.readouterr().err
