"""A folder of images -> samples."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import resnet_tools
from resnet_tools.data.datasets import read_dataset
from resnet_tools.data.folder import find_classes, find_folder
from resnet_tools.data.image import load_image
from resnet_tools.errors import DataError
from resnet_tools.text import listed
from resnet_tools.torch7.t7 import read_t7
from tests.support.golden import GOLDEN, needs_golden


def make(top: Path, *files: str) -> str:
    for name in files:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return str(top)


def test_classes_are_the_folders_of_train_in_byte_order(tmp_path):
    # bytes: "1" "A" "_" "b" "é"; "10" before "2"
    names = ["é", "b", "_x", "A", "2", "10"]
    data = make(tmp_path, *(f"train/{name}/1.png" for name in names))
    assert find_classes(data) == ["10", "2", "A", "_x", "b", "é"]


def test_samples_are_in_the_order_of_the_classes_and_then_of_the_files(tmp_path):
    data = make(tmp_path, "train/b/2.png", "train/b/10.jpg", "train/a/x.JPEG", "val/b/1.bmp", "val/a/1.ppm")
    train, val = read_dataset("imagenet", data)
    assert [os.path.relpath(path, data) for path in train.images] == [
        "train/a/x.JPEG",
        "train/b/10.jpg",
        "train/b/2.png",
    ]
    assert train.targets == [0, 1, 1]
    assert train.class_names == val.class_names == ["a", "b"]
    assert [os.path.relpath(path, data) for path in val.images] == ["val/a/1.ppm", "val/b/1.bmp"]
    assert val.targets == [0, 1]
    assert len(train) == 3


def test_hidden_folders_stray_files_and_other_endings_are_not_data(tmp_path):
    data = make(
        tmp_path,
        *("train/a/1.png", "train/a/notes.txt", "train/a/.2.png", "train/a/.cache/3.png"),
        *("train/.ipynb_checkpoints/1.png", "train/stray.png", "train/list.txt"),
    )
    with pytest.warns(UserWarning, match=r"train: left out: 1 file without an image extension: \.txt \(1\)"):
        train = find_folder(data, "train")
    assert train.class_names == ["a"]
    assert train.images == [f"{data}/train/a/1.png"]


def test_subfolders_of_a_class_and_links_are_followed(tmp_path):
    data = make(tmp_path / "data", "train/a/2014/05/1.png", "train/a/0.png")
    elsewhere = make(tmp_path / "elsewhere", "b/2.png", "3.png")
    (tmp_path / "data/train/b").symlink_to(Path(elsewhere, "b"))
    (tmp_path / "data/train/a/3.png").symlink_to(Path(elsewhere, "3.png"))
    (tmp_path / "data/train/a/circle").symlink_to(tmp_path / "data/train/a")
    train = find_folder(data, "train")
    names = ["a/0.png", "a/2014/05/1.png", "a/3.png", "b/2.png"]
    assert train.images == [f"{data}/train/{name}" for name in names]
    assert train.targets == [0, 0, 0, 1]


def test_a_link_to_nowhere_is_a_sample_that_cannot_be_read(tmp_path):
    data = make(tmp_path, "train/a/1.png")
    (tmp_path / "train/a/2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "train/a/3.png").symlink_to(tmp_path / "train/a/3.png")
    assert len(find_folder(data, "train")) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_names_that_are_no_text_pass_through(tmp_path):
    data = make(tmp_path, "train/a/1.png")
    os.mkdir(os.fsencode(tmp_path) + b"/train/\xff")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/train/\xff/\xfe.png")).touch()
    train = find_folder(data, "train")
    assert train.class_names == ["a", os.fsdecode(b"\xff")]
    assert train.targets == [0, 1]


@needs_golden
def test_the_golden_folder_has_the_classes_and_images_that_the_original_listed():
    listed = read_t7(GOLDEN / "main" / "main_finetune.gen_imagenet.t7")
    classes = [name.decode() for name in listed["classList"].to_list()]
    for samples, split in zip(read_dataset("imagenet", str(GOLDEN / "main" / "data")), ("train", "val"), strict=True):
        assert samples.class_names == classes
        names = [os.fsdecode(bytes(row).split(b"\0")[0]) for row in listed[split]["imagePath"]]
        originals = {
            str(GOLDEN / "main" / "data" / split / name): int(target) - 1
            for name, target in zip(names, listed[split]["imageClass"], strict=True)
        }
        assert dict(zip(samples.images, samples.targets, strict=True)) == originals


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.png", "b/1.png"], r"DATA: train/ is missing; expected PATH/train/CLASS/IMAGE .* Found the folders a, b"),
        (["1.png", "2.png"], r"train/ is missing; .* Found 2 files and no folders"),
        ([], r"train/ is missing; .* Found nothing in it"),
        (["training/a/1.png"], r"train/ is missing; .* There is training/: rename it to train"),
        (["train/a/1.png"], r"val/ is missing; .* Found the folders train"),
        (["train/a/1.png", "valid/a/1.png"], r"val/ is missing; .* There is valid/: rename it to val"),
        (["train/1.png", "val/a/1.png"], r"train: holds no folders, one for each class; .* Found 1 file and no"),
        (["train/a/notes.txt", "val/a/1.png"], r"train: holds no images \(\.jpg .*\); expected PATH"),
        (["train/a/1.png", "train/b/x.txt", "val/a/1.png"], r"train: without an image: b; add images, or remove"),
        (["train/a/1.png", "val/a/x.txt"], r"val: holds no images"),
        (["train/a/1.png", "val/a/1.png", "val/c/1.png"], r"val: of unknown classes: c; train/ has 1: a\. Add them"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, files, message):
    data = tmp_path / "DATA"
    data.mkdir()
    make(data, *files)
    with pytest.raises(DataError, match=message):
        read_dataset("imagenet", str(data))


def test_many_names_are_not_all_printed(tmp_path):
    data = make(tmp_path, "train/a/1.png", "val/a/1.png", *(f"val/b{number}/1.png" for number in range(9)))
    with pytest.raises(DataError, match=r"unknown classes: b0, b1, b2, b3, b4 and 4 more; train/ has 1"):
        read_dataset("imagenet", data)


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: expected the folder of a data set, but there is nothing"):
        read_dataset("imagenet", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"file: expected the folder of a data set, but it is a file"):
        read_dataset("imagenet", make(tmp_path, "file") + "/file")


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    data = make(tmp_path, "train/a/1.png", "val/a/1.png")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"train: Permission denied"):
        read_dataset("imagenet", data)


def test_a_class_without_validation_images_is_a_warning(tmp_path):
    data = make(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/b/1.png", "val/c/x.txt")
    with (
        pytest.warns(UserWarning, match=r"val: of 3 classes, without an image here: a, c$"),
        pytest.warns(UserWarning, match="val: left out: 1 file"),
    ):
        _, val = read_dataset("imagenet", data)
    assert val.targets == [1]
    assert val.class_names == ["a", "b", "c"]


def test_an_unknown_data_set_is_refused():
    with pytest.raises(DataError, match="unknown data set 'mnist'; expected one of imagenet, cifar10, cifar100"):
        read_dataset("mnist", "data")


def test_the_shipped_digits_are_a_data_set():
    digits = Path(resnet_tools.__file__).parent / "assets" / "digits"
    train, val = read_dataset("imagenet", str(digits))
    assert train.class_names == list("0123456789")
    assert train.targets == [k for k in range(10) for _ in range(40)]
    assert val.targets == [k for k in range(10) for _ in range(20)]
    assert {load_image(path).shape for path in (*train.images, *val.images)} == {(8, 8, 3)}


def test_names_in_a_message_stay_on_its_line():
    assert listed(["a\nb", "c\x1b[31m"]) == r"a\nb, c\x1b[31m"
