"""An image in any form gives the pixels that its file gives; what is no image says what was expected."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnet_tools.data.given_images import given_pixels
from resnet_tools.data.transforms import IMAGENET, Preprocessing, preprocess
from resnet_tools.errors import ImageError
from tests.support.demo_images import PHOTOS

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_every_form_gives_the_same_pixels(png):
    content, alpha = png.read_bytes(), np.dstack([PIXELS, np.full((20, 30), 7, np.uint8)])
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    with png.open("rb") as file, Image.open(png) as opened:
        forms = [
            str(png),
            png,
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            file,
            opened,
            Image.fromarray(PIXELS),
            Image.fromarray(alpha),
            PIXELS,
            PIXELS.tolist() and PIXELS.copy(order="F"),
            alpha,
            tensor,
            torch.cat([tensor, tensor[:1]]),
        ]
        for form in forms:
            assert np.array_equal(given_pixels(form), PIXELS), type(form)
    for scaled in (tensor.float() / 255, tensor.double() / 255, PIXELS / 255):
        assert np.abs(given_pixels(scaled) * 255 - PIXELS).max() < 1e-4
    assert np.array_equal(given_pixels(PIXELS.astype(np.uint16) * 257), PIXELS.astype(np.uint16) * 257)


def test_gray_is_copied_to_three_channels():
    gray = PIXELS[:, :, 0]
    expected = np.repeat(gray[:, :, None], 3, axis=2)
    for form in (gray, gray[:, :, None], Image.fromarray(gray), torch.from_numpy(gray), torch.from_numpy(gray)[None]):
        assert np.array_equal(given_pixels(form), expected)


def test_a_pillow_image_stays_as_it_was_and_is_turned_upright_on_request(tmp_path):
    upright = Image.fromarray(PIXELS)
    exif = upright.getexif()
    exif[0x0112] = 6
    upright.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert np.array_equal(given_pixels(image), PIXELS)
        assert np.array_equal(given_pixels(image, exif=True), np.rot90(PIXELS, -1))
    palette = Image.fromarray(PIXELS).convert("P")
    palette.info["transparency"] = 0
    given_pixels(palette)
    assert palette.mode == "P"
    assert palette.info["transparency"] == 0


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (PIXELS / 1.0, "floats from 0 to 255; expected 0 \\(black\\) to 1 \\(white\\). Divide by 255"),
        (PIXELS / 255 - 0.5, "floats from -0.5"),
        (np.full((4, 4, 3), np.nan), "floats from nan"),
        (PIXELS.astype(np.int32), "pixels are int32"),
        (torch.zeros(30, 20, 3), r"a tensor of shape \(30, 20, 3\); expected \(3, H, W\)"),
        (torch.zeros(1, 3, 8, 8), r"expected \(3, H, W\)"),
        (b"GIF89a", "damaged"),
        (b"", "empty"),
        (b"/some/path.jpg", "not an image"),
        (io.StringIO("text"), "binary mode"),
        (None, "NoneType; expected a path"),
        ({"a": 1}, "dict; expected a path"),
        ([[1, 2], [3]], "list; expected a path"),
        (["a.png"], "list; expected a path"),
        (Image.new("F", (4, 4)), "32-bit samples"),
        (7, "shape"),
    ],
)
def test_what_is_no_image_is_named(image, words):
    with pytest.raises(ImageError, match=words) as caught:
        given_pixels(image)
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_fail(content):
    with pytest.raises(ImageError):
        given_pixels(content)


def test_a_preprocessing_is_a_transform_of_torchvisions_data_sets(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.png").write_bytes(Path(PHOTOS[0]).read_bytes())
    preprocessing = Preprocessing(40, 32, IMAGENET.mean, IMAGENET.std)
    loader = torch.utils.data.DataLoader(ImageFolder(str(tmp_path), transform=preprocessing), batch_size=2)
    [(images, targets)] = loader
    expected = preprocess(PHOTOS[0], preprocessing)
    assert torch.equal(images, torch.stack([expected, expected]))
    assert targets.tolist() == [0, 1]


def test_torch_is_not_imported_for_an_array():
    code = "import sys, numpy; from resnet_tools.data.given_images import given_pixels as g; "
    code += "g(numpy.zeros((4, 4, 3), 'uint8')); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
