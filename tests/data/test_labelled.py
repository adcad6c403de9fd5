"""Folders and lists of labels are matched to a net's classes, or refused with the names that do not fit."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_tools.data.labelled import Outputs, labelled_samples
from resnet_tools.data.labels import imagenet_labels, short_names
from resnet_tools.errors import DataError

IDS = [f"n{number:08d}" for number in range(1000, 3000, 2)]  # 1000 WordNet ids in sorted order
ILSVRC = IDS[500:] + IDS[:500]  # the ids in the order of other numbers


def tree(top: Path, *files: str) -> Path:
    for file in files:
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).touch()
    return top


def classes_of(top: Path, outputs: Outputs, **options: object) -> dict[str, int]:
    """Path in the folder -> number of the class."""
    samples = labelled_samples(top, outputs, **options)
    return {str(Path(str(path)).relative_to(top)): k for path, k in zip(samples.images, samples.targets, strict=True)}


def test_folders_are_matched_by_name_in_any_order(tmp_path):
    tree(tmp_path, "a/1.png", "c/2.JPEG", "b/deep/3.ppm", "b/notes.txt", ".hidden/4.png", "stray.png")
    with pytest.warns(UserWarning, match=r"left out: 1 file without an image extension: \.txt \(1\)"):
        found = labelled_samples(tmp_path, Outputs(3, ["c", "b", "a"]))
    assert found.class_names == ["c", "b", "a"]
    (tmp_path / "b/notes.txt").unlink()
    assert classes_of(tmp_path, Outputs(3, ["c", "b", "a"])) == {"a/1.png": 2, "b/deep/3.ppm": 1, "c/2.JPEG": 0}


def test_val_is_taken_if_it_is_there_and_another_split_if_it_is_named(tmp_path):
    tree(tmp_path, "val/a/1.png", "val/b/2.png", "test/a/3.png", "test/b/4.png")
    outputs = Outputs(2, ["a", "b"])
    assert list(classes_of(tmp_path, outputs)) == ["val/a/1.png", "val/b/2.png"]
    assert list(classes_of(tmp_path, outputs, split="test")) == ["test/a/3.png", "test/b/4.png"]
    assert list(classes_of(tmp_path / "test", outputs)) == ["a/3.png", "b/4.png"]


def test_a_mismatch_names_the_classes_on_both_sides(tmp_path):
    tree(tmp_path, "cat/1.png", "dog/2.png", "fox/3.png")
    with pytest.raises(DataError, match=r"dog, fox match no class .* without images are its classes Dog, hen"):
        labelled_samples(tmp_path, Outputs(3, ["cat", "Dog", "hen"]))


def test_a_name_that_two_outputs_have_is_refused(tmp_path):
    tree(tmp_path, "crane/1.png", "cat/2.png")
    with pytest.raises(DataError, match=r"crane match no class of the net, or several"):
        labelled_samples(tmp_path, Outputs(3, ["crane", "cat", "crane"]))


def test_classes_without_a_folder_are_a_warning(tmp_path):
    tree(tmp_path, "b/1.png")
    with pytest.warns(UserWarning, match="2 of the net's 3 classes are not there: a, c"):
        assert classes_of(tmp_path, Outputs(3, ["a", "b", "c"])) == {"b/1.png": 1}


def test_a_net_without_names_has_the_folders_in_the_order_of_bytes_as_the_original(tmp_path):
    names = ["10_sky", "2_street", "A_cup", "Z_face", "_under", "a_flower", "b_cat"]
    tree(tmp_path, *(f"val/{name}/1.png" for name in reversed(names)))
    found = classes_of(tmp_path, Outputs(7))
    assert found == {f"val/{name}/1.png": number for number, name in enumerate(names)}
    with pytest.raises(DataError, match=r"has 7 classes .* the net has 8 outputs without names"):
        labelled_samples(tmp_path, Outputs(8))


def test_the_folders_of_train_are_the_classes_of_a_net_without_names(tmp_path):
    tree(tmp_path, "train/a/1.png", "train/b/2.png", "train/c/3.png", "val/c/4.png")
    assert classes_of(tmp_path, Outputs(3)) == {"val/c/4.png": 2}
    assert classes_of(tmp_path / "val", Outputs(3)) == {"c/4.png": 2}
    assert classes_of(tmp_path, Outputs(3), split="train") == {
        f"train/{k}/{n}.png": n - 1 for n, k in enumerate("abc", 1)
    }
    with pytest.warns(UserWarning, match="train/ has 3 classes; the net has 4 outputs"):
        samples = labelled_samples(tmp_path, Outputs(4))
    assert samples.class_names == ["a", "b", "c", "class 4"]
    tree(tmp_path, "val/d/5.png")
    with pytest.raises(DataError, match="d are not among those of train/ or --synsets"):
        labelled_samples(tmp_path, Outputs(3))


def test_a_thousand_wordnet_ids_are_the_outputs_in_sorted_order(tmp_path):
    for name in IDS:
        (tmp_path / "val" / name).mkdir(parents=True)
    tree(tmp_path, f"val/{IDS[999]}/1.JPEG", f"val/{IDS[7]}/2.JPEG")
    expected = {f"val/{IDS[7]}/2.JPEG": 7, f"val/{IDS[999]}/1.JPEG": 999}
    assert classes_of(tmp_path, Outputs(1000)) == expected
    assert labelled_samples(tmp_path, Outputs(1000, imagenet_labels())).class_names == list(imagenet_labels())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert classes_of(tmp_path, Outputs(1000, IDS)) == expected


def test_fewer_wordnet_ids_need_the_list_of_all(tmp_path):
    tree(tmp_path, f"val/{IDS[7]}/1.JPEG")
    with pytest.raises(DataError, match="known from all 1000 only"):
        labelled_samples(tmp_path, Outputs(1000))
    with pytest.warns(UserWarning, match="999 of the net's 1000 classes"):
        assert classes_of(tmp_path, Outputs(1000, [f"{name} some words" for name in IDS])) == {
            f"val/{IDS[7]}/1.JPEG": 7
        }
    for name in IDS:
        (tmp_path / "train" / name).mkdir(parents=True)
    assert classes_of(tmp_path, Outputs(1000)) == {f"val/{IDS[7]}/1.JPEG": 7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,class\n1.png,b\nsub/2.png,a\n", {"1.png": 1, "sub/2.png": 0}),
        ("\ufeff1.png,a\r\n", {"1.png": 0}),
        ('1.png,"a"\n\n2.jpg , b\n', {"1.png": 0, "2.jpg": 1}),
        (' "1.png", "a"\n  \n./sub//2.png,b\n', {"1.png": 0, "sub/2.png": 1}),
        ("ImageId,PredictionString\n1,a\nsub/2,b\n", {"1.png": 0, "sub/2.png": 1}),
        ("1.png a\nsub/2.png b\n", {"1.png": 0, "sub/2.png": 1}),
        ("a\nb\nb\n", {"1.png": 0, "2.jpg": 1, "sub/2.png": 1}),
        ("1.png;a\nsub/2.png;b\n", {"1.png": 0, "sub/2.png": 1}),
        ("path;class\r\n1.png;a\r\nsub\\2.png;b\r\n", {"1.png": 0, "sub/2.png": 1}),
        ("sub\\2.png,b\n", {"sub/2.png": 1}),
        ("1.png\ta\nsub/2.png\tb\n", {"1.png": 0, "sub/2.png": 1}),
        ("filename\tlabel\n1.png\ta\n", {"1.png": 0}),
        ("filename label\n1.png a\n", {"1.png": 0}),
        ("# path class\n1.png a\n", {"1.png": 0}),
        ("1.png|a\n2.jpg|b\n", {"1.png": 0, "2.jpg": 1}),
        ("label,image\na,1.png\nb,2.jpg\n", {"1.png": 0, "2.jpg": 1}),
        ("a;1.png\nb;2.jpg\n", {"1.png": 0, "2.jpg": 1}),
        (",filename,width,class\n0,1.png,28,a\n1,2.jpg,28,b\n", {"1.png": 0, "2.jpg": 1}),
        ("id,filename,label\n7,1.png,a\n", {"1.png": 0}),
        ("1.png,a\r2.jpg,b\r", {"1.png": 0, "2.jpg": 1}),
        ('"1.png" a\n', {"1.png": 0}),
        ("a 1.png\nb sub/2.png\n", {"1.png": 0, "sub/2.png": 1}),
        ("# of cats\n1.png,a\n# and dogs\n2.jpg,b\n", {"1.png": 0, "2.jpg": 1}),
        ('{"1.png": "a", "2.jpg": "b"}', {"1.png": 0, "2.jpg": 1}),
        ('[{"path": "1.png", "label": "a"}, {"path": "2.jpg", "label": "b"}]', {"1.png": 0, "2.jpg": 1}),
        ('[["1.png", "a"],\n ["2.jpg", "b"]]\n', {"1.png": 0, "2.jpg": 1}),
        ('{"file_name": "1.png", "label": "a"}\n\n{"file_name": "2.jpg", "label": "b"}\n', {"1.png": 0, "2.jpg": 1}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*classes are not there")
def test_lists_of_labels_in_the_forms_that_people_have(text, expected, tmp_path):
    images = tree(tmp_path / "images", "1.png", "2.jpg", "sub/2.png")
    (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
    assert classes_of(images, Outputs(2, ["a", "b"]), labels=tmp_path / "labels.txt") == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_may_have_any_encoding_of_unicode(encoding, tmp_path):
    images = tree(tmp_path / "images", "größe.png")
    (tmp_path / "labels.csv").write_bytes("path;class\r\ngröße.png;b\r\n".encode(encoding))
    with pytest.warns(UserWarning, match="are not there"):
        assert classes_of(images, Outputs(2, ["a", "b"]), labels=tmp_path / "labels.csv") == {"größe.png": 1}


@pytest.mark.parametrize("text", ["a;b.png,a\n", "path;class\na,b.png;b\n", "a b.png\tb, or c\n", "x,y z.png b\n"])
def test_separators_in_names_are_told_from_those_of_columns_by_the_images(text, tmp_path):
    images = tree(tmp_path / "images", "a;b.png", "a,b.png", "a b.png", "x,y z.png")
    (tmp_path / "labels.csv").write_text(text)
    names = ["a", "b", "b, or c"]
    with pytest.warns(UserWarning, match="are not there"):
        [(path, number)] = classes_of(images, Outputs(3, names), labels=tmp_path / "labels.csv").items()
    assert (path, names[number]) in {("a;b.png", "a"), ("a,b.png", "b"), ("a b.png", "b, or c"), ("x,y z.png", "b")}


@pytest.mark.filterwarnings("ignore:.*(are not there|are taken as the net's outputs)")
def test_numbers_of_spreadsheets_and_names_of_macs_are_understood(tmp_path):
    images = tree(tmp_path / "images", "\u00e9t\u00e9.png")
    (tmp_path / "labels.csv").write_text("path,class\ne\u0301te\u0301.png,1.0\n", "utf-8")
    assert classes_of(images, Outputs(2, ["a", "b"]), labels=tmp_path / "labels.csv") == {"\u00e9t\u00e9.png": 1}


def test_names_with_commas_and_line_ends_are_found_in_quotes(tmp_path):
    images = tree(tmp_path / "images", "a,b.png", "two\nlines.png", "odd\u2028one.png")
    (tmp_path / "labels.csv").write_text('path,class\n"a,b.png",a\n"two\nlines.png",b\nodd\u2028one.png,b\n', "utf-8")
    found = classes_of(images, Outputs(2, ["a", "b"]), labels=tmp_path / "labels.csv")
    assert found == {"a,b.png": 0, "two\nlines.png": 1, "odd\u2028one.png": 1}


def test_paths_may_count_from_the_folder_above(tmp_path):
    tree(tmp_path, "val/1.png")
    (tmp_path / "val.txt").write_text("val/1.png 1\n")
    with pytest.warns(UserWarning, match="class numbers are taken as the net's outputs, counted from 0"):
        assert classes_of(tmp_path, Outputs(5), labels=tmp_path / "val.txt") == {"val/1.png": 1}


def test_numbers_that_do_not_fit_say_which_numbering_is_expected(tmp_path):
    tree(tmp_path, "1.png", "2.png")
    (tmp_path / "labels.csv").write_text("1.png,1\n2.png,1000\n")
    with pytest.raises(DataError, match="numbers are 1 to 1000; expected 0 to 999, the net's outputs counted from 0"):
        labelled_samples(tmp_path, Outputs(1000), labels=tmp_path / "labels.csv")


def test_the_ground_truth_of_ilsvrc_needs_its_list_of_synsets(tmp_path):
    images = tree(tmp_path / "val", *(f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3)))
    truth, synsets = tmp_path / "ILSVRC2012_validation_ground_truth.txt", tmp_path / "synsets.txt"
    truth.write_text("1\n501\n1000\n")
    with pytest.raises(DataError, match=r"not in the order of the net's outputs: give also --synsets FILE"):
        labelled_samples(images, Outputs(1000), labels=truth)
    synsets.write_text("".join(f"{name} a word\n" for name in ILSVRC))
    found = classes_of(images, Outputs(1000), labels=truth, synsets=synsets)
    assert list(found.values()) == [500, 0, 499]  # ILSVRC[0], ILSVRC[500] and ILSVRC[999] in the sorted order
    truth.write_text("1\n2\n1001\n")
    with pytest.raises(DataError, match="line 3 is 1001; expected 1 to 1000"):
        labelled_samples(images, Outputs(1000, IDS), labels=truth, synsets=synsets)
    truth.write_text("1\n2\n")
    with pytest.raises(DataError, match="has 2 classes, one per line, for the 3 images"):
        labelled_samples(images, Outputs(1000, IDS), labels=truth, synsets=synsets)
    synsets.write_text("tench\n")
    with pytest.raises(DataError, match=r"synsets.txt: line 1 is 'tench'; expected a WordNet id"):
        labelled_samples(images, Outputs(1000, IDS), labels=truth, synsets=synsets)


def test_wordnet_ids_one_a_line_and_with_boxes(tmp_path):
    images = tree(tmp_path / "val", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")
    labels = tmp_path / "labels"
    for text in (
        f"{IDS[3]}\n{IDS[1]}\n",
        "ImageId,PredictionString\n"
        f"ILSVRC2012_val_00000001,{IDS[3]} 1 2 3 4\nILSVRC2012_val_00000002,{IDS[1]} 0 0 9 9\n",
    ):
        labels.write_text(text)
        with pytest.warns(UserWarning, match="998 of the net's 1000 classes"):
            assert list(classes_of(images, Outputs(1000, IDS), labels=labels).values()) == [3, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected lines of"),
        ("path,class\n", "holds no images"),
        ("1.png,a\n1.png,b\n", "names 1.png twice; expected each image once"),
        ("1.png,a\n./1.png,a\n", "names 1.png twice; expected each image once"),
        (",\n", "is not `path,class`"),
        ("1.png,a\n3.png,b\n", r"1 of 2 images are not in .*: 3.png"),
        ("1.png,\n", "is not `path,class`"),
        ("1.png a\n2.png\n", "line 2 is '2.png'; expected lines of"),
        ("1.png," + "9" * 5000 + "\n", "match no class of the net, or several"),
        ("path;class\n1.png;a\n7.png;b\n", r"1 of 2 images are not in .*: 7.png \(the first in line 3\)"),
        ("1.png;a\n2.png\n", "line 2 is '2.png'"),
        ("1.png\ta\n2.png\t\n", "line 2 is .*, which is not `path,class`"),
        ("1.png,a\n2.png,b\n1.png,b\n", "line 3 names 1.png twice"),
        ("1.png,0\n2.png,-1\n", "line 2 has the class -1; class numbers count from 0"),
        ("<!DOCTYPE html>\n<html>\n", "is an HTML or XML page"),
        ("1.png\n", "line 1 is '1.png', an image without a class"),
        ('[{"path": "1.png"}]', "entry 1 is .*; expected a JSON object such as"),
        ('{"file_name": "1.png"}\n', "line 1 is .*; expected a JSON object such as"),
        ('{"file_name": "1.png", "label": "a"}\n{"x', "line 2 is .*; expected a JSON object such as"),
        ('1.png,"a\n', "line 1: cannot be read as CSV"),
        ("1.png,hat\n", "hat match no class of the net, or several"),
        (b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_bad_lists_are_named(text, message, tmp_path):
    images = tree(tmp_path / "images", "1.png", "2.png")
    labels = tmp_path / "labels.csv"
    labels.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as raised:
        labelled_samples(images, Outputs(2, ["a", "b"]), labels=labels)
    assert "labels.csv" in str(raised.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text("1.png,a b\"\n'2", max_size=40).map(str.encode))
def test_any_file_of_labels_is_read_or_refused(content, tmp_path):
    images = tree(tmp_path / "images", "1.png", "2.png")
    (tmp_path / "labels").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            samples = labelled_samples(images, Outputs(2, ["a", "b"]), labels=tmp_path / "labels")
        except DataError:
            return
    assert len(samples) == len(set(samples.images)) > 0
    assert set(samples.targets) <= {0, 1}


def test_short_names_are_the_first_synonyms_where_these_are_unique():
    assert short_names(["tench, Tinca tinca", "crane", "crane, bird", ", x"]) == [
        "tench",
        "crane",
        "crane, bird",
        ", x",
    ]
    assert len(set(short_names(imagenet_labels()))) == len(set(imagenet_labels()))
