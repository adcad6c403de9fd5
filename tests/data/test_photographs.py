"""Views of JPEGs with as many pixels as they need: the same draws, the same place, the same errors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools.data import image as image_module
from resnet_tools.data.augment import LIGHT, NO_AUGMENTATION, Augmentation, augmented
from resnet_tools.data.image import load_image, read_image
from resnet_tools.data.photographs import photograph, reduction_for
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import ImageError

WHOLE = Augmentation("sized", min_area=1.0, flip=False)
SMALL = Preprocessing(16, 16, (0.0,) * 3, (1.0,) * 3, 255.0, exif_orientation=True)


def ramp(height: int, width: int) -> np.ndarray:
    """Gray that grows from black in the left upper corner to white in the right lower one."""
    pixels = np.linspace(0, 100, width) + np.linspace(0, 155, height)[:, None]
    return np.repeat(pixels.round().astype(np.uint8)[:, :, None], 3, axis=2)


def saved(path: Path, pixels: np.ndarray, orientation: int = 1, mode: str = "RGB", **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).convert(mode).save(path, **{"quality": 100, "exif": exif, **options})
    return path


@pytest.mark.parametrize(
    ("part", "size", "expected"),
    [
        ((3000, 4000), (224, 224), 4),  # 3000 / 8 = 375 are fewer than 448
        ((3584, 3584), (224, 224), 8),  # 448 x 448
        ((3583, 3584), (224, 224), 4),
        ((4000, 895), (224, 224), 1),  # a half has 447 columns
        ((375, 500), (224, 224), 1),
        ((1, 1), (1, 1), 1),
    ],
)
def test_the_smallest_scale_with_twice_the_pixels_in_each_direction_is_taken(part, size, expected):
    assert reduction_for(part, size) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [(400, 600), (405, 603)])  # also sides that no reduction divides
def test_a_view_lies_where_it_lies_among_all_pixels(tmp_path, orientation, side):
    path = saved(tmp_path / "a.jpg", ramp(*side), orientation, "L")
    image = photograph(read_image(path), exif=True)
    assert image.scaled(16, 16).scale == (1 / 8, 1 / 8)
    for seed in range(20):
        generators = [np.random.default_rng(seed) for _ in "ab"]
        all_pixels, view = (
            augmented(of, SMALL, LIGHT, g) for of, g in zip((str(path), image), generators, strict=True)
        )
        assert generators[0].random() == generators[1].random()
        # One pixel of an eighth of the sides is up to 3 steps of gray. Half of one beside its place would be 1.5; what
        # is at the edges of the image, which a few views reach, and rounding make 0.4.
        quarters = (view - all_pixels).view(3, 2, 8, 2, 8).mean((2, 4))
        assert float(quarters.abs().max()) < 0.6


@pytest.mark.parametrize("augmentation", [LIGHT, WHOLE, NO_AUGMENTATION, Augmentation("padded")])
@pytest.mark.parametrize("size", [(20, 31), (33, 17), (1, 90), (31, 31)])
def test_small_images_are_decoded_as_before(tmp_path, augmentation, size):
    path = saved(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    image = photograph(read_image(path), exif=True)
    assert torch.equal(augmented(image, SMALL, augmentation, first), augmented(path, SMALL, augmentation, second))
    assert first.random() == second.random()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_both_decoders_give_the_same_pixels(tmp_path, monkeypatch, mode, progressive):
    noise = np.random.default_rng(0).integers(0, 256, (301, 203, 3), np.uint8)
    file = read_image(saved(tmp_path / "a.jpg", noise, 6, mode, quality=90, progressive=progressive))
    for reduction in (2, 4, 8):
        found = file.reduced_pixels(reduction, orientation=6)
        with monkeypatch.context() as patch:
            patch.setattr(image_module, "_simplejpeg", lambda: None)
            np.testing.assert_array_equal(file.reduced_pixels(reduction, orientation=6), found)
        assert found.shape == (-(-203 // reduction), -(-301 // reduction), 3)  # turned upright


def test_each_pixel_is_the_mean_of_those_it_stands_for(tmp_path):
    pixels = ramp(64, 96)
    reduced = read_image(saved(tmp_path / "a.jpg", pixels, mode="L")).reduced_pixels(8)
    means = pixels.reshape(8, 8, 12, 8, 3).mean((1, 3))
    assert np.abs(reduced - means).max() <= 1  # rounded in the file, and when it is decoded


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])  # simplejpeg and Pillow
def test_a_damaged_file_is_the_error_that_it_was(tmp_path, mode):
    whole = saved(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8), 1, mode)
    content, path = whole.read_bytes(), tmp_path / "b.jpg"
    cuts = [*range(0, len(content), len(content) // 40), *range(len(content) - 12, len(content))]
    flipped = [content[:k] + bytes([content[k] ^ 255]) + content[k + 1 :] for k in cuts if k < len(content)]
    for damaged in [*(content[:cut] for cut in cuts), *flipped]:
        path.write_bytes(damaged)
        assert outcome(lambda: photograph(read_image(path), exif=True).scaled(8, 8)) == outcome(
            lambda: load_image(path, exif=True)
        )


def outcome(load) -> str:
    """What it raised, or that it did not."""
    try:
        load()
    except ImageError as error:
        return str(error)
    return "loaded"


def test_other_files_are_decoded_whole(tmp_path):
    pixels = ramp(200, 300)
    for name in ("a.png", "a.tif", "a.webp"):
        Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
        found = photograph(read_image(tmp_path / name)).scaled(4, 4)
        np.testing.assert_array_equal(found.pixels, pixels)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "JPEG")
    start = content.getvalue().index(b"\xff\xc0") + 5
    (tmp_path / "a.jpg").write_bytes(content.getvalue()[:start] + b"\xff\xff\xff\xff" + content.getvalue()[start + 4 :])
    monkeypatch.setattr(image_module, "_decode_plain_jpeg", None)  # would fail if it were called
    file = read_image(tmp_path / "a.jpg")
    assert file.jpeg_head() is None
