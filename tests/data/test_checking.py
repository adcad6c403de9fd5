"""What is wrong with a data set is found before a net learns it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.data import checking
from resnet_tools.data.checking import check_samples
from resnet_tools.data.parts import find_splits
from resnet_tools.data.samples import Samples
from resnet_tools.torch7.t7_writer import save_t7
from tests.support.golden import DATA


def write_image(path: Path, color: int, side_px: int = 40) -> str:
    """A square of one color; another color gives another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side_px, side_px), (color, 255 - color, 100)).save(path)
    return str(path)


def dataset(top: Path) -> Path:
    """Classes a and b with nine different images each in train/ and one in val/."""
    names = [f"train/{name}/{number}" for name in "ab" for number in range(9)]
    for number, name in enumerate((*names, "val/a/0", "val/b/0")):
        write_image(top / f"{name}.png", number)
    return top


def checked(folder: Path, **options: object) -> checking.DataFindings:
    train, val, found = find_splits(str(folder))
    return check_samples(train, val, found=found, **options)


def test_a_good_data_set_has_nothing_but_counts(tmp_path, capsys):
    assert run(["check-data", str(dataset(tmp_path))]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == "class\ttrain\tval\na\t9\t1\nb\t9\t1\nall\t18\t2\n"


def test_json_holds_all_that_is_known(tmp_path, capsys):
    dataset(tmp_path)
    (tmp_path / "val/a/same.png").write_bytes((tmp_path / "train/a/1.png").read_bytes())
    assert run(["check-data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "classes": ["a", "b"],
        "counts": {"train": {"a": 9, "b": 9}, "val": {"a": 2, "b": 1}},
        "errors": [],
        "warnings": [
            f"1 image of val/ is also in train/: the validation error will be too low: "
            f"{tmp_path}/val/a/same.png = {tmp_path}/train/a/1.png"
        ],
        "notes": [],
        "shared": [[f"{tmp_path}/val/a/same.png", f"{tmp_path}/train/a/1.png"]],
        "repeated": [],
        "small": [],
        "rotated": [],
        "left_out": [],
    }


def test_images_that_cannot_be_decoded_are_errors_with_their_names(tmp_path):
    dataset(tmp_path)
    (tmp_path / "train/a/empty.jpg").touch()
    (tmp_path / "val/b/text.jpg").write_text("<html>not found</html>")
    (tmp_path / "val/b/cut.jpg").write_bytes((DATA / "images" / "truncated.jpg").read_bytes())
    (tmp_path / "train/b/gone.png").symlink_to(tmp_path / "nowhere.png")
    report = checked(tmp_path)
    assert [error.partition(": ")[0] for error in report.errors] == [
        *(f"{tmp_path}/{name}" for name in ("train/a/empty.jpg", "train/b/gone.png", "val/b/cut.jpg", "val/b/text.jpg"))
    ]
    assert "empty file" in report.errors[0]
    assert "No such file" in report.errors[1]
    assert "truncated" in report.errors[2]
    assert "HTML" in report.errors[3]
    assert report.counts == {"train": [10, 10], "val": [1, 3]}


@pytest.mark.parametrize(("readable", "warned"), [(0, True), (1, False)])
def test_a_class_of_which_no_image_can_be_read_is_named(tmp_path, readable, warned):
    dataset(tmp_path)
    for k, path in enumerate(sorted((tmp_path / "train/b").iterdir())):
        if k >= readable:
            path.write_bytes(b"no image")
    report = checked(tmp_path)
    assert ("no training image can be read of: b; a net does not learn such classes" in report.warnings) is warned
    assert len(report.errors) == 9 - readable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda top: (top / "val").rename(top / "valid"),
            "Error: DATA: val/ is missing; expected PATH/train/CLASS/IMA",
        ),
        (lambda top: (top / "train").rename(top / "training"), "Error: DATA: train/ is missing"),
        (lambda top: write_image(top / "val/c/0.png", 9), "Error: DATA/val: of unknown classes: c; train/ has 2: a, b"),
        (lambda top: (top / "train/c").mkdir(), "Error: DATA/train: without an image: c; add images, or remove"),
        (lambda top: (top / "train/a/2.png").write_bytes(b"x"), "Error: DATA/train/a/2.png: not an image"),
    ],
)
def test_errors_end_with_exit_code_1(tmp_path, monkeypatch, capsys, change, message):
    change(dataset(tmp_path / "DATA"))
    monkeypatch.chdir(tmp_path)
    assert run(["check-data", "DATA", "--quiet"]) == 1
    assert message in capsys.readouterr().out


def test_names_do_nothing_to_a_terminal(tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / split / "a\x1b[2J\tb").mkdir(parents=True)
        (tmp_path / split / "a\x1b[2J\tb" / "new\nline.png").write_bytes(b"")
    assert run(["check-data", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert r"a\x1b[2J\tb/new\nline.png: empty file" in output
    assert "a\\x1b[2J\\tb\t1\t1\n" in output


def test_what_there_is_is_looked_at_although_val_is_missing(tmp_path):
    dataset(tmp_path)
    (tmp_path / "train/a/2.png").write_bytes(b"x")
    (tmp_path / "val").rename(tmp_path / "test")
    report = checked(tmp_path)
    (tmp_path / "test/b/cut.png").write_bytes(b"x")
    report = checked(tmp_path)
    assert len(report.errors) == 3  # val/ is missing, and an image in each part; test/ is looked at in its place
    assert report.counts == {"train": [9, 9], "val": [1, 2]}


def test_a_single_class_of_several_folders_may_be_a_folder_too_high(tmp_path):
    dataset(tmp_path / "photos")
    report = checked(tmp_path)
    assert report.class_names == ["photos"]
    assert f"If the folders in {tmp_path}/photos are the classes, give that as the folder" in report.warnings[0]
    assert not any("give that" in warning for warning in checked(tmp_path / "photos").warnings)


def test_images_without_folders_may_have_a_list(tmp_path):
    write_image(tmp_path / "1.png", 1)
    assert "Found 1 file and no folders; if a file lists the classes" in checked(tmp_path).errors[0]


def test_training_is_warned_of_a_single_class_too(tmp_path):
    train = Samples([write_image(tmp_path / f"{k}.png", k) for k in range(12)], [0] * 12, ["cat"])
    warned = check_samples(train, Samples([train.images[0]], [0], ["cat"])).warnings
    assert any("there is one class only: cat; a net" in warning for warning in warned)


def test_a_class_that_val_lacks_is_a_warning(tmp_path):
    dataset(tmp_path)
    for number in range(10):
        write_image(tmp_path / f"train/c/{number}.png", 100 + number)
    report = checked(tmp_path)
    assert report.errors == []
    assert report.warnings == [f"{tmp_path}/val: of 3 classes, without an image here: c"]
    assert run(["check-data", str(tmp_path)]) == 0


def test_the_same_image_twice_is_a_note_and_in_two_classes_a_warning(tmp_path):
    dataset(tmp_path)
    for name in ("a/again", "b/other"):
        (tmp_path / f"train/{name}.png").write_bytes((tmp_path / "train/a/0.png").read_bytes())
    report = checked(tmp_path)
    first = f"{tmp_path}/train/a/0.png"
    again, other = f"{tmp_path}/train/a/again.png", f"{tmp_path}/train/b/other.png"
    assert report.repeated == [(again, first), (other, first)]
    assert report.warnings == [f"{other} and {first} are the same image in two classes"]
    assert report.notes == [
        f"2 images of train/ occur more than once: {again} = {first}, {other} = {first}",
    ]


def test_many_duplicates_are_counted_and_a_few_named(tmp_path):
    dataset(tmp_path)
    for number in range(9):
        (tmp_path / f"val/a/same{number}.png").write_bytes((tmp_path / "train/a/0.png").read_bytes())
    [warning] = checked(tmp_path).warnings
    assert warning.startswith("9 images of val/ are also in train/")
    assert warning.endswith("same4.png = " + f"{tmp_path}/train/a/0.png and 4 more")


@pytest.mark.parametrize(("count", "warned"), [(100, False), (101, True)])
def test_a_class_more_than_ten_times_as_large_as_another_is_a_warning(count, warned):
    images = np.random.default_rng(0).integers(0, 256, (count + 10, 32, 32, 3), dtype=np.uint8)
    train = Samples(images, [0] * count + [1] * 10, ["many", "few"])
    report = check_samples(train, Samples(images[:0], [], ["many", "few"]))
    text = (
        "classes of very different sizes: 101 training images of many, 10 of few; a net learns to prefer the large ones"
    )
    assert report.warnings == ([text] if warned else [])


def test_small_images_are_noted(tmp_path):
    dataset(tmp_path)
    write_image(tmp_path / "val/a/small.png", 200, side_px=31)
    report = checked(tmp_path)
    assert report.small == [f"{tmp_path}/val/a/small.png"]
    assert report.notes == [f"1 image has a side below 32 pixels and is enlarged: {tmp_path}/val/a/small.png"]


@pytest.mark.parametrize("decode", [True, False])
def test_images_in_arrays_are_compared_too(decode):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    train, val = Samples(images[:3], [0, 0, 0], ["a"]), Samples(images[2:], [0, 0], ["a"])
    assert check_samples(train, val, decode=decode).shared == [("image 0", "image 2")]


def test_without_decoding_only_files_of_the_same_size_are_read(tmp_path, monkeypatch):
    train, val, _ = find_splits(str(sizes(tmp_path, train=[10, 20, 30], val=[20, 40])))
    opened: list[str] = []
    original = checking._look

    def spy(source, *, decode):
        opened.append(Path(source).name)
        return original(source, decode=decode)

    monkeypatch.setattr(checking, "_look", spy)
    report = check_samples(train, val, decode=False, workers=0)
    assert opened == ["1.png", "0.png"], "of 20 bytes: the second of train, the first of val"
    assert report.shared == [(f"{tmp_path}/val/a/0.png", f"{tmp_path}/train/a/1.png")]
    assert report.errors == []


def sizes(top: Path, **splits: list[int]) -> Path:
    """Files of as many zeros: equal where their sizes are."""
    for split, numbers in splits.items():
        (top / split / "a").mkdir(parents=True)
        for number, size in enumerate(numbers):
            (top / split / "a" / f"{number}.png").write_bytes(bytes(size))
    return top


def test_without_decoding_a_missing_file_is_still_an_error(tmp_path):
    sizes(tmp_path, train=[10], val=[20])
    (tmp_path / "val/a/gone.png").symlink_to(tmp_path / "nowhere")
    assert checked(tmp_path, decode=False).errors == [f"{tmp_path}/val/a/gone.png: No such file or directory"]


def test_of_very_many_files_of_equal_sizes_a_part_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "MAX_COMPARED", 8)
    sizes(tmp_path, train=list(range(1, 13)), val=list(range(1, 13)))
    report = checked(tmp_path, decode=False)
    # 12 + 12 files are more than 8; of every second 6 + 6, of every fourth 3 + 3
    assert len(report.shared) == 3
    assert report.notes == ["only one in 4 images of val/ was searched for in train/; `resnet check-data` compares all"]


def test_one_size_for_all_files_does_not_keep_the_quick_check_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "MAX_COMPARED", 8)
    report = checked(sizes(tmp_path, train=[5] * 12, val=[5] * 3), decode=False)
    assert len(report.shared) <= 3


def test_progress_counts_every_image(tmp_path):
    dataset(tmp_path)
    (tmp_path / "train/a/2.png").write_bytes(b"x")  # in place of a good one
    seen: list[int] = []
    checked(tmp_path, progress=lambda files, messages: seen.append(files))
    assert sum(seen) == 20


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=12), st.lists(st.integers(0, 6), max_size=12), st.integers(0, 3))
def test_shared_and_repeated_are_what_comparing_all_pairs_finds(train_colors, val_colors, workers):
    def samples(colors):
        images = np.array([np.full((2, 2, 3), color, np.uint8) for color in colors]).reshape(-1, 2, 2, 3)
        return Samples(images, [0] * len(colors), ["a"])

    report = check_samples(samples(train_colors), samples(val_colors), workers=workers)
    first = train_colors.index
    shared = [(k, first(color)) for k, color in enumerate(val_colors) if color in train_colors]
    repeated = [(k, first(color)) for k, color in enumerate(train_colors) if first(color) != k]
    assert report.shared == [(f"image {one}", f"image {other}") for one, other in shared]
    assert report.repeated == [(f"image {one}", f"image {other}") for one, other in repeated]


def numbered(top: Path, folders: list[str], count: int = 10) -> Path:
    for place, folder in enumerate(folders):
        for number in range(count):
            write_image(top / folder / f"{number}.png", 10 * place + number, side_px=40 + place)
    return top


def test_an_unknown_class_in_val_hides_nothing(tmp_path):
    numbered(tmp_path, ["train/a", "train/b", "val/a", "val/b", "val/c"])
    (tmp_path / "val/c/0.png").write_bytes(b"x")
    (tmp_path / "val/b/0.png").write_bytes((tmp_path / "train/b/0.png").read_bytes())
    report = checked(tmp_path)
    assert [error.partition("; ")[0].partition(": not")[0] for error in report.errors] == [
        f"{tmp_path}/val: of unknown classes: c",
        f"{tmp_path}/val/c/0.png",
    ]
    assert report.to_dict()["counts"] == {"train": {"a": 10, "b": 10, "c": 0}, "val": {"a": 10, "b": 10, "c": 10}}
    assert report.shared == [(f"{tmp_path}/val/b/0.png", f"{tmp_path}/train/b/0.png")]


def test_an_empty_class_in_train_hides_nothing(tmp_path):
    numbered(tmp_path, ["train/a", "train/b", "val/a", "val/b"])
    (tmp_path / "train/c").mkdir()
    (tmp_path / "train/a/1.png").write_bytes(b"x")
    report = checked(tmp_path)
    assert len(report.errors) == 2
    assert report.counts == {"train": [10, 10, 0], "val": [10, 10, 0]}
    assert report.warnings == [f"{tmp_path}/val: of 3 classes, without an image here: c"]


def test_errors_of_both_parts_are_reported_together(tmp_path):
    numbered(tmp_path, ["train/a", "val/a", "val/c"])
    (tmp_path / "train/b").mkdir()
    report = checked(tmp_path)
    assert [error.removeprefix(f"{tmp_path}/").partition(":")[0] for error in report.errors] == ["train", "val"]
    assert report.to_dict()["counts"]["val"] == {"a": 10, "b": 0, "c": 10}


def test_the_same_image_in_two_classes_of_val_is_a_warning(tmp_path):
    numbered(tmp_path, ["train/a", "train/b", "val/a", "val/b"])
    (tmp_path / "val/b/0.png").write_bytes((tmp_path / "val/a/3.png").read_bytes())
    [warning] = checked(tmp_path).warnings
    assert warning == f"{tmp_path}/val/b/0.png and {tmp_path}/val/a/3.png are the same image in two classes"


@pytest.mark.parametrize("inside", ["", "train/"])
def test_a_folder_without_val_is_divided_as_training_divides_it(tmp_path, inside):
    numbered(tmp_path, [f"{inside}a", f"{inside}b"])
    (tmp_path / f"{inside}stray.png").touch()
    report = checked(tmp_path)
    assert report.errors == report.warnings == []
    assert report.counts == {"train": [8, 8], "val": [2, 2]}
    assert report.notes == [
        f"1 image is in no class folder and is left out: {tmp_path}/{inside}stray.png",
        "there are no validation images: `resnet train` takes 4 of these (--val-fraction 0.2)",
    ]


def test_files_that_are_left_out_are_counted_and_named(tmp_path):
    numbered(tmp_path, ["train/a", "train/b", "val/a", "val/b"])
    for name in ("train/a/raw.CR2", "train/b/raw.cr2", "train/b/noext"):
        (tmp_path / name).touch()
    report = checked(tmp_path)
    assert report.warnings == [
        f"{tmp_path}/train: left out: 3 files without an image extension: .cr2 (2), no ending (1): "
        "a/raw.CR2, b/noext, b/raw.cr2"
    ]
    assert report.left_out == [f"{tmp_path}/train/{name}" for name in ("a/raw.CR2", "b/noext", "b/raw.cr2")]


def test_images_with_an_exif_rotation_are_counted(tmp_path):
    numbered(tmp_path, ["train/a", "train/b", "val/a", "val/b"])
    for name, orientation in (("train/a/x.jpg", 6), ("val/b/y.jpg", 3), ("val/b/upright.jpg", 1), ("val/b/bad.jpg", 9)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (50, 40 + orientation)).save(tmp_path / name, exif=exif)
    report = checked(tmp_path)
    assert report.rotated == [f"{tmp_path}/train/a/x.jpg", f"{tmp_path}/val/b/y.jpg"]
    assert report.notes == [
        "2 images have an EXIF rotation, which --exif-orientation applies: "
        f"{tmp_path}/train/a/x.jpg, {tmp_path}/val/b/y.jpg"
    ]


@pytest.mark.parametrize(
    ("classes", "count", "warning"),
    [
        (["only"], 20, "there is one class only: only; a net that knows no other gives it to every image"),
        (["a", "b"], 9, "classes of fewer than 10 images: a (9), b (9); a net learns little of them"),
        (["a", "b"], 10, None),
    ],
)
def test_one_class_and_small_classes_are_warned_of(tmp_path, classes, count, warning):
    report = checked(numbered(tmp_path, classes, count))
    assert report.warnings == ([warning] if warning else [])


def test_an_image_alone_in_its_class_cannot_be_validated(tmp_path):
    numbered(tmp_path, ["a", "b"])
    write_image(tmp_path / "c/0.png", 99)
    report = checked(tmp_path)
    assert report.warnings[0] == f"{tmp_path}: of 3 classes, without a validation image: c"
    assert report.counts == {"train": [8, 8, 1], "val": [2, 2, 0]}


def table(path: Path, side_px: int, num_classes: int, first: int, channels: int = 3) -> Path:
    """A .t7 with twelve images of each class in train, two in val, all different."""
    random = np.random.default_rng(0)

    def part(count: int) -> dict[str, object]:
        images = random.integers(0, 256, (count * num_classes, channels, side_px, side_px)).astype(np.uint8)
        return {"data": images, "labels": (np.arange(len(images)) % num_classes + first).astype(np.uint8)}

    save_t7({"train": part(12), "val": part(2)}, path)
    return path


@pytest.mark.parametrize(
    ("side_px", "num_classes", "first", "names", "dataset"),
    [
        (32, 10, 0, "airplane automobile", "cifar10"),
        (32, 10, 1, "airplane automobile", "cifar10"),
        (32, 100, 0, "apple aquarium_fish", "cifar100"),
        (48, 4, 0, "class_1 class_2", "cifar10"),
        (48, 4, 1, "class_1 class_2", "cifar10"),
    ],
)
def test_a_t7_of_images_is_checked_as_a_folder(side_px, num_classes, first, names, dataset, tmp_path):
    path = table(tmp_path / "Images.T7", side_px, num_classes, first)
    report = checked(path)
    assert (report.errors, report.warnings) == ([], [])
    assert report.class_names[:2] == [name.replace("_1", " 1").replace("_2", " 2") for name in names.split()]
    assert report.counts == {"train": [12] * num_classes, "val": [2] * num_classes}
    assert f"--dataset {dataset} --data {path}" in report.notes[0]


def test_a_folder_with_cifar_is_checked_too(tmp_path, capsys):
    table(tmp_path / "cifar10.t7", 32, 10, 1)
    assert run(["check-data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["train"]["truck"] == 12


def test_a_t7_or_file_that_is_no_data_set_is_an_error_that_says_so(tmp_path):
    (tmp_path / "text.t7").write_text("x")
    (tmp_path / "photos.zip").write_text("x")
    save_t7({"train": {"data": np.zeros((2, 3, 4, 4), np.uint8), "labels": np.ones(1)}}, tmp_path / "short.t7")
    save_t7({"val": 1}, tmp_path / "empty.t7")
    for path, message in (
        (table(tmp_path / "five.t7", 28, 4, 5), "the labels are 5 to 8, 4 different ones"),
        (tmp_path / "text.t7", "expected a Lua Torch file"),
        (tmp_path / "photos.zip", r"it is a file \(unpack it first\)"),
        (tmp_path / "short.t7", "train: has 2 images and 1 label; expected one for each"),
        (tmp_path / "empty.t7", "train holds no data and labels; expected a table of train and val"),
    ):
        [error] = checked(path).errors
        assert re.search(message, error)
        assert str(path) in error
