"""The sheet of training views shows what the net gets, with the right names."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageChops

from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import CIFAR10, IMAGENET
from resnet_tools.errors import ImageError
from resnet_tools.training import views
from resnet_tools.training.transforms import training_transform

COLORS = np.array([[200, 30, 30], [20, 40, 220]], np.uint8)


def colored(count: int, names: tuple[str, ...] = ("red", "blue")) -> Samples:
    targets = [k % 2 for k in range(count)]
    return Samples(np.stack([np.tile(COLORS[t], (40, 40, 1)) for t in targets]), targets, names)


@pytest.mark.parametrize(
    ("preprocessing", "kind"), [(CIFAR10, "cifar10"), (IMAGENET, "imagenet"), (IMAGENET.for_channels(1), "imagenet")]
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_pixels_are_those_of_the_images_and_the_names_their_classes(monkeypatch, preprocessing, kind, as_bytes):
    drawn = []
    monkeypatch.setattr(views, "_sheet", lambda pairs: drawn.extend(pairs))
    name = "light" if kind == "imagenet" else "none"
    views.training_views(
        colored(30), training_transform(name, kind, preprocessing, as_bytes=as_bytes), preprocessing, 0, 1
    )
    assert len(drawn) == views.MOST
    for picture, name in drawn:
        color = COLORS[("red", "blue").index(name)].astype(float)
        # Rec. 601, as the original turns colors into gray.
        expected = color if preprocessing.channels == 3 else np.full(3, color @ [0.299, 0.587, 0.114])
        assert np.abs(np.asarray(picture)[80, 80] - expected).max() <= 1.5


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (7, 6, 2), (60, 6, 4)])
def test_the_sheet_has_a_place_for_each(count, columns, rows):
    sheet = views.training_views(colored(count), training_transform("none", "cifar10", CIFAR10), CIFAR10, 0, 1)
    width, height = views.VIEW_PX + views.MARGIN_PX, views.VIEW_PX + views.LINE_PX + views.MARGIN_PX
    assert sheet.size == (columns * width + views.MARGIN_PX, rows * height + views.MARGIN_PX)


def test_names_of_any_length_and_script_stay_in_their_column():
    names = ("x" * 100_000, "\x1b[2J кошка 猫 \u202e")
    sheet = views.training_views(colored(2, names), training_transform("none", "cifar10", CIFAR10), CIFAR10, 0, 1)
    gap = sheet.crop((sheet.width - views.MARGIN_PX, 0, *sheet.size))
    assert ImageChops.invert(gap).getbbox() is None


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"x")
    broken = Samples([str(tmp_path / "broken.jpg")], [0], ("a",))
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        views.training_views(broken, training_transform("none", "imagenet", IMAGENET), IMAGENET, 0, 1)
