"""Images of one folder are divided once, and stay divided."""

from __future__ import annotations

import csv
import os
import random
import warnings
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.data.datasets import read_split_dataset
from resnet_tools.data.splits import SplitRow, Splitting, content_keys, keep_split, read_split, split_images
from resnet_tools.errors import DataError

# Class and content of each image; few contents make copies, also across classes.
IMAGES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=60)
FRACTIONS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**63 - 1)


def named(images: list[tuple[str, int]]) -> list[tuple[str, str, int]]:
    return [(f"{name}/{number}.jpg", name, content) for number, (name, content) in enumerate(images)]


def contents_of(images: list[tuple[str, str, int]], parts: list[str]) -> dict[str, dict[str, set[int]]]:
    """Class -> part -> contents."""
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: {"train": set(), "val": set()})
    for (_, name, content), part in zip(images, parts, strict=True):
        found[name][part].add(content)
    return found


@given(IMAGES, FRACTIONS, SEEDS)
def test_copies_stay_together_and_every_class_stays_in_train(images, fraction, seed):
    images = named(images)
    parts = split_images(images, fraction, seed)
    assert len(parts) == len(images)
    assert set(parts) <= {"train", "val"}
    part_of = {}
    for (_, _, content), part in zip(images, parts, strict=True):
        assert part_of.setdefault(content, part) == part
    assert all(contents["train"] for contents in contents_of(images, parts).values())


@given(IMAGES, FRACTIONS, SEEDS)
def test_a_class_of_two_contents_of_its_own_has_one_on_each_side(images, fraction, seed):
    images = named(images)
    classes = defaultdict(set)
    for _, name, content in images:
        classes[content].add(name)
    own = defaultdict(set)
    for content, names in classes.items():
        own[min(names)] |= {content} if len(names) == 1 else set()
    for name, contents in contents_of(images, split_images(images, fraction, seed)).items():
        if len(own[name]) >= 2:
            assert contents["val"]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=200), FRACTIONS, SEEDS)
def test_without_copies_each_class_gives_its_fraction(classes, fraction, seed):
    images = named([(name, number) for number, name in enumerate(classes)])
    parts = split_images(images, fraction, seed)
    for name, contents in contents_of(images, parts).items():
        size = classes.count(name)
        expected = min(max(1, round(fraction * size)), size - 1)  # one on each side, if there are two
        assert len(contents["val"]) == expected


@given(IMAGES, FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_in_which_images_are_found_changes_nothing(images, fraction, seed, random_order: random.Random):
    images = named(images)
    before = dict(zip(images, split_images(images, fraction, seed), strict=True))
    random_order.shuffle(images)
    assert dict(zip(images, split_images(images, fraction, seed), strict=True)) == before


def test_another_seed_gives_another_split():
    images = named([("a", number) for number in range(50)])
    assert split_images(images, 0.2, 0) != split_images(images, 0.2, 1)


def test_many_copies_of_one_image_do_not_become_the_validation_set():
    images = named([("a", 0)] * 50 + [("a", number) for number in range(1, 51)])
    # 20 % of 100 images are 20, and the 50 copies are more
    parts = split_images(images, 0.2, 0)
    assert parts.count("val") == 20
    assert set(parts[:50]) == {"train"}


def test_three_images_in_two_classes_each_cannot_all_be_on_both_sides():
    # a has 0 and 1, b has 1 and 2, c has 0 and 2: two sides for three images
    images = [("1", "a", 0), ("2", "a", 1), ("3", "b", 1), ("4", "b", 2), ("5", "c", 0), ("6", "c", 2)]
    parts = split_images(images, 0.5, 0)
    assert parts.count("val") == 2


def test_equal_files_have_equal_keys_and_unreadable_ones_are_equal_to_none(tmp_path):
    same = b"same" * 2000
    files = {"1": same, "2": same, "3": same + b"e", "4": same[1:] + b"x", "5": b"S" + same[1:]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in (*files, "gone", "away")]
    one, two, *others = content_keys(paths)
    assert one == two
    assert len({one, *others}) == 6, "others are longer, end or begin otherwise, or are not there"


NAMES = [
    "plain",
    'with "quotes"',
    "a,b",
    "two\nlines",
    "return\rhere",
    "é",
    os.fsdecode(b"\xff\xfe"),
    " space ",
    "=1+1",
]


def test_names_of_any_kind_come_back_from_the_file(tmp_path):
    rows = [SplitRow(f"{name}/1.jpg", name, part) for name, part in zip(NAMES, ["train", "val"] * 5, strict=False)]
    keep_split(tmp_path, rows)
    assert read_split(tmp_path / "split.csv") == rows
    with (tmp_path / "split.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert next(csv.reader(file)) == ["path", "class", "split"]


def test_a_run_without_a_split_keeps_none_of_an_earlier_one(tmp_path):
    keep_split(tmp_path, [SplitRow("a/1.jpg", "a", "train")])
    keep_split(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the first line is ''; expected path,class,split"),
        (b"path,class\na,b\n", r"line 2 is 'a,b'; expected `path,class,train`"),
        (b"path,class,split\na/1.jpg,a,test\n", r"line 2 is 'a/1.jpg,a,test'"),
        (b"path,class,split\na,a,val\na,a,train\n", r"names a twice"),
        (b'path,class,split\n"a,b', r"cannot be read as CSV"),
        (b"path,class,split\n" + b"a" * 200_000, r"cannot be read as CSV"),
        (b"path,class,split\n\0,a,val\n\0", r"split\.csv: (line|cannot)"),
    ],
)
def test_what_is_wrong_with_a_split_file_is_said(tmp_path, content, message):
    (tmp_path / "split.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.csv")


def photos(top: Path, *, count: int = 10, classes: str = "ab") -> str:
    for name in classes:
        (top / name).mkdir(parents=True)
        for number in range(count):
            (top / name / f"{number}.jpg").write_bytes(f"{name}{number}".encode())
    return str(top)


def names(samples, top: str) -> set[str]:
    return {os.path.relpath(path, top) for path in samples.images}


@pytest.mark.parametrize("inside", [".", "train", "Train"])
def test_class_folders_are_split_and_the_stored_split_is_used_again(tmp_path, inside):
    top = str(tmp_path / "photos")
    photos(tmp_path / "photos" / inside)
    train, val, rows = read_split_dataset("imagenet", top, Splitting(seed=1))
    assert train.class_names == val.class_names == ["a", "b"]
    assert (len(train), len(val)) == (16, 4)
    assert sorted(val.targets) == [0, 0, 1, 1]
    keep_split(tmp_path, rows)
    again = read_split_dataset("imagenet", top, Splitting(seed=2, stored=tmp_path / "split.csv"))
    assert again == (train, val, rows)


def test_what_changed_since_a_split_was_stored_is_said(tmp_path):
    top = photos(tmp_path / "photos")
    _, val, rows = read_split_dataset("imagenet", top, Splitting())
    keep_split(tmp_path, rows)
    gone = next(iter(val.images))
    Path(gone).unlink()
    Path(top, "a", "new.jpg").write_bytes(b"new")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train, fewer, kept = read_split_dataset("imagenet", top, Splitting(stored=tmp_path / "split.csv"))
    stored, name = tmp_path / "split.csv", os.path.relpath(gone, top)
    assert [str(warning.message) for warning in caught] == [
        f"1 image of {stored} is not there any more: {name}",
        f"1 image is not in {stored} and left out: a/new.jpg; a new run uses it",
    ]
    assert names(fewer, top) == names(val, top) - {name}
    assert "a/new.jpg" not in names(train, top)
    assert kept == rows


def test_a_stored_split_that_is_gone_or_leaves_nothing_to_validate_on_is_said(tmp_path):
    top, stored = photos(tmp_path / "photos"), tmp_path / "split.csv"
    with pytest.warns(UserWarning, match=r"split\.csv is gone: the images are split anew"):
        _, _, rows = read_split_dataset("imagenet", top, Splitting(stored=stored))
    keep_split(tmp_path, [SplitRow(row.path, row.class_name, "train") for row in rows])
    with pytest.raises(DataError, match=r"split\.csv: leaves of .*photos 20 images to train on and 0 to validate on"):
        read_split_dataset("imagenet", top, Splitting(stored=stored))


@pytest.mark.parametrize(
    ("files", "fraction", "message"),
    [
        (
            ["train/a/1.png", "val/a/1.png"],
            0.2,
            r"--val-fraction is given, but there is DATA/val; leave it out",
        ),
        (["train/a/1.png", "valid/a/1.png"], None, r"There is valid/: rename it to val \(mv DATA/valid DATA/val\)"),
        (["train/a/1.png", "Test/a/1.png"], None, r"There is Test/: rename it to val .* or give --val-fraction"),
        (["Training/a/1.png", "val/a/1.png"], None, r"There is Training/: rename it to train \(mv DATA/Training"),
        (["Val/a/1.png"], None, r"train/ is missing; .* Found the folders Val"),
        (["1.png", "2.png"], None, r"train/ is missing; .* or PATH/CLASS/IMAGE\. Found 2 files and no folders"),
        (["a/1.png", "b/1.png"], None, r"2 images to train on and 0 to validate on; expected at least two different"),
        (["a/1.png", "b/x.txt"], None, r"DATA: without an image: b; add images, or remove"),
    ],
)
def test_a_folder_that_cannot_be_split_is_refused(tmp_path, monkeypatch, files, fraction, message):
    monkeypatch.chdir(tmp_path)
    for name in files:
        Path("DATA", name).parent.mkdir(parents=True, exist_ok=True)
        Path("DATA", name).write_text(name)
    with pytest.raises(DataError, match=message):
        read_split_dataset("imagenet", "DATA", Splitting(fraction))


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["bus", "car", "train"], ["bus", "car", "train"]),
        (["test", "training"], ["test", "training"]),
        (["val", "value"], ["val", "value"]),
    ],
)
def test_classes_may_be_called_as_parts_of_a_data_set_are(tmp_path, folders, classes):
    train, _, _ = read_split_dataset("imagenet", photos(tmp_path, classes=folders), Splitting())
    assert train.class_names == classes


def test_unlabelled_test_images_beside_train_do_not_stop_its_split(tmp_path):
    top = photos(tmp_path / "train") and str(tmp_path)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/1.jpg").write_bytes(b"x")
    train, val, _ = read_split_dataset("imagenet", top, Splitting())
    assert (len(train), len(val)) == (16, 4)


def test_train_and_val_in_capitals_are_those_parts(tmp_path):
    photos(tmp_path / "Train")
    photos(tmp_path / "VAL", count=2)
    train, val, rows = read_split_dataset("imagenet", str(tmp_path), Splitting())
    assert (len(train), len(val), rows) == (20, 4, None)


def test_lists_name_the_images(tmp_path):
    top = photos(tmp_path / "photos", classes=["2", "10"])
    (tmp_path / "train.csv").write_text("path,class\n10/0.jpg,10\n10/1.jpg,10\n2/0.jpg,2\n")
    (tmp_path / "val.csv").write_text("2/5.jpg,2\n")
    lists = tmp_path / "train.csv", tmp_path / "val.csv"
    train, val, rows = read_split_dataset("imagenet", top, Splitting(), *lists)
    assert train.class_names == ["2", "10"], "numbers are in the order of their values"
    assert (train.targets, val.targets, rows) == ([1, 1, 0], [0], None)
    assert names(train, top) == {"10/0.jpg", "10/1.jpg", "2/0.jpg"}
    train, val, rows = read_split_dataset("imagenet", top, Splitting(), lists[0])
    assert (len(train), len(val), len(rows)) == (2, 1, 3)


@pytest.mark.parametrize(
    ("lists", "fraction", "message"),
    [
        ((None, "val.csv"), None, "--val-list is given without --train-list"),
        (("train.csv", "val.csv"), 0.1, "--val-list names some; give one of them"),
        (("train.csv", "val.csv"), None, r"val\.csv: of unknown classes: b; --train-list has 1: a"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(tmp_path, lists, fraction, message):
    top = photos(tmp_path / "photos")
    (tmp_path / "train.csv").write_text("a/0.jpg,a\na/1.jpg,a\n")
    (tmp_path / "val.csv").write_text("b/0.jpg,b\n")
    with pytest.raises(DataError, match=message):
        read_split_dataset("imagenet", top, Splitting(fraction), *(name and tmp_path / name for name in lists))


@settings(max_examples=10)
@given(SEEDS)
def test_cifar_has_validation_images_of_its_own(seed):
    with pytest.raises(DataError, match="cifar10 has validation images of its own"):
        read_split_dataset("cifar10", "nowhere", Splitting(0.2, seed))
