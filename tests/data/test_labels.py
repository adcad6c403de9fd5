"""Class numbers -> names."""

import json
from pathlib import Path

import pytest

from resnet_tools.data.labels import imagenet_labels, output_names, read_labels
from resnet_tools.errors import ResnetToolsError
from tests.support.golden import GOLDEN, needs_golden


def test_imagenet_has_1000_labels_with_all_synonyms() -> None:
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert labels[0] == "tench, Tinca tinca"
    assert labels[2] == "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias"
    assert labels[999] == "toilet tissue, toilet paper, bathroom tissue"


@needs_golden
def test_the_labels_are_the_original_ones() -> None:
    golden = json.loads((GOLDEN / "labels" / "imagenet.json").read_text(encoding="utf-8"))
    assert list(imagenet_labels()) == golden


def test_given_names_come_before_all_others() -> None:
    assert output_names(["cat", "dog"], 2) == ["cat", "dog"]
    assert output_names([str(n) for n in range(1000)], 1000)[7] == "7"


def test_a_net_of_1000_classes_without_names_gets_those_of_imagenet() -> None:
    assert output_names(None, 1000) == list(imagenet_labels())


def test_other_nets_without_names_count_their_classes_from_one() -> None:
    assert output_names(None, 3) == ["class 1", "class 2", "class 3"]
    assert output_names([], 1) == ["class 1"]


def test_a_wrong_number_of_names_is_an_error() -> None:
    with pytest.raises(ResnetToolsError, match="the net has 10 classes, but 2 class names are given"):
        output_names(["cat", "dog"], 10)


@pytest.mark.parametrize("content", [b"cat\ndog\n", b"cat\ndog", b"cat\r\ndog\r\n", b"\xef\xbb\xbfcat\ndog\n\n"])
def test_labels_are_read_one_a_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    assert read_labels(file) == ["cat", "dog"]


def test_labels_keep_what_is_no_line_end(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("Käse, fromage\u2028x\n B\x0c\n".encode())
    assert read_labels(file) == ["Käse, fromage\u2028x", " B\x0c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no class names"),
        (b"\n\n", "holds no class names"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"\xff\xfe\x00", "not a UTF-8 text file"),
    ],
)
def test_what_is_no_list_of_labels_is_an_error_that_names_the_file(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(ResnetToolsError, match=message) as caught:
        read_labels(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_missing_label_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.txt", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ResnetToolsError, match=reason) as caught:
            read_labels(path)
        assert str(caught.value).startswith(f"{path}: ")
