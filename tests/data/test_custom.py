"""A data set in Python is one as any other."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_tools.data.custom import read_custom
from resnet_tools.data.transforms import IMAGENET, pixels_of, preprocess
from resnet_tools.errors import DataError, ImageError

SETS = """
import numpy as np
from PIL import Image

class Set:
    classes = ("a", "b")
    def __init__(self, *images): self.images = images
    def __len__(self): return len(self.images)
    def __getitem__(self, k): return self.images[k], k % 2

pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
"""


def module(tmp_path: Path, code: str) -> str:
    (tmp_path / "sets.py").write_text(SETS + code)
    return f"{tmp_path / 'sets.py'}:get"


def test_images_may_be_pil_images_paths_or_pixels(tmp_path):
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    name = module(
        tmp_path,
        "def get(path): return Set(Image.fromarray(pixels), path + '/x.png', pixels, pixels[:, :, 0]), Set(pixels)",
    )
    train, val = read_custom(name, str(tmp_path))
    assert (train.class_names, train.targets, val.targets) == (["a", "b"], [0, 1, 0, 1], [0])
    assert [train.name(k) for k in range(2)] == ["image 0", "image 1"]
    for image in train.images[:3]:
        np.testing.assert_array_equal(pixels_of(image), pixels)
    np.testing.assert_array_equal(pixels_of(train.images[3]), np.repeat(pixels[:, :, :1], 3, 2))
    assert preprocess(train.images[0], IMAGENET).shape == (3, 224, 224)
    np.testing.assert_array_equal(pixels_of(pickle.loads(pickle.dumps(train.images[2]))), pixels)


def test_targets_are_taken_where_the_data_set_has_them(tmp_path):
    code = """
class Counting(Set):
    targets = [1, 0]
    def __getitem__(self, k): raise RuntimeError("not needed")
def get(): return Counting(0, 0), Counting(0, 0)
"""
    train, _ = read_custom(module(tmp_path, code), "unused by a function without arguments")
    assert train.targets == [1, 0]
    with pytest.raises(ImageError, match="image 1: RuntimeError: not needed"):
        pixels_of(train.images[1])


def test_the_data_sets_of_torchvision_work_as_they_are(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 7), "red").save(tmp_path / "photos" / name / "1.png")
    code = f"""
from torchvision.datasets import FakeData, ImageFolder
def get(): return ImageFolder({str(tmp_path / "photos")!r}), ImageFolder({str(tmp_path / "photos")!r})
"""
    train, val = read_custom(module(tmp_path, code), "")
    assert (train.class_names, train.targets, len(val)) == (["a", "b"], [0, 1], 2)
    assert pixels_of(train.images[0]).tolist() == np.full((7, 9, 3), (255, 0, 0)).tolist()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", r"has no function 'get'; expected a function that returns \(train, val\)"),
        ("1 / 0", r"sets\.py: ZeroDivisionError: division by zero"),
        ("def get(: pass", r"sets\.py: SyntaxError"),
        ("def get(): raise OSError('no disk')", r"get: OSError: no disk"),
        ("def get(): return Set(pixels)", r"returned Set; expected a function that returns"),
        ("def get(): return [1], [2]", r"the training data set has no `classes`"),
        ("def get(): return Set(), Set()", r"train: holds no images"),
        ("def get(): return Set(pixels), 3", r"val: TypeError: object of type 'int' has no len"),
        (
            "class C(Set): classes = ['x']\ndef get(): return Set(pixels), C(pixels)",
            r"val: has other classes",
        ),
        (
            "class C(Set): classes = ['x']\ndef get(): return C(0, 0), C(0)",
            r"train: image 1 has the class 1",
        ),
        (
            "class C(Set):\n def __getitem__(self, k): return k\ndef get(): return C(0), C(0)",
            r"image 0: is int",
        ),
        (
            "class C(Set):\n def __getitem__(self, k): return k, 'dog'\ndef get(): return C(0), C(0)",
            r"invalid literal .*'dog'; expected \(image, number of the class\)",
        ),
    ],
)
def test_what_is_wrong_with_a_function_is_said(tmp_path, code, message):
    with pytest.raises(DataError, match=message):
        read_custom(module(tmp_path, code), "")


def test_a_module_that_is_not_there_is_an_error():
    with pytest.raises(DataError, match=r"no_such_module: ModuleNotFoundError"):
        read_custom("no_such_module:get", "")


def test_an_image_of_another_kind_says_what_was_expected(tmp_path):
    train, _ = read_custom(module(tmp_path, "def get(): return Set(pixels / 255.0), Set(pixels)"), "")
    with pytest.raises(ImageError, match=r"image 0 is ndarray float64 \(4, 5, 3\); expected a PIL image"):
        pixels_of(train.images[0])
