"""Image -> the net's input: the original's numbers first, then a plain second opinion, then the borders."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.data import resample as resample_module
from resnet_tools.data.augment import NO_AUGMENTATION, augmented
from resnet_tools.data.image import load_image
from resnet_tools.data.resample import resample, resize
from resnet_tools.data.transforms import (
    CIFAR10,
    CIFAR100,
    IMAGENET,
    Preprocessing,
    center_crop_offset,
    preprocess,
    preprocess_array,
    scale_size,
    ten_crops,
    ten_crops_array,
)
from resnet_tools.errors import ImageError
from tests.support.golden import DATA, GOLDEN, needs_golden

CASES = json.loads((DATA / "transforms" / "transforms.json").read_text())
ARRAYS = np.load(DATA / "transforms" / "resize.npz")
TOLERANCE = 4e-6  # a pixel is right to 4e-7; normalisation divides by 0.224
# Where we load what the original garbles: CMYK without its black, palette + transparency with a wrong stride, and a
# truncated JPEG filled with gray.
BETTER_THAN_ORIGINAL = {"cmyk.jpg", "palette_trns.png", "truncated.jpg"}
IMAGES = [case for case in CASES["images"] if case["load"] == "ok" and case["file"] not in BETTER_THAN_ORIGINAL]
COPIED = [case for case in IMAGES if (DATA / "images" / case["file"]).exists()]
OTHERS = [case for case in IMAGES if case not in COPIED]


def file_of(case: dict[str, Any]) -> str:
    return str(case["file"])


@pytest.mark.parametrize("case", COPIED, ids=file_of)
def test_every_step_gives_the_numbers_of_the_original(case: dict[str, Any]) -> None:
    check_image(case, DATA)


@needs_golden
@pytest.mark.parametrize("case", OTHERS, ids=file_of)
def test_every_step_gives_the_numbers_of_the_original_for_the_other_images(case: dict[str, Any]) -> None:
    check_image(case, GOLDEN)


@needs_golden
@pytest.mark.parametrize("case", COPIED, ids=file_of)
def test_the_whole_golden_arrays_of_the_copied_images_agree(case: dict[str, Any]) -> None:
    check_image(case, GOLDEN)


def check_image(case: dict[str, Any], data: Path) -> None:
    pixels = load_image(data / "images" / case["file"])
    archive = data / "transforms" / case["npz"]
    stored = np.load(archive) if archive.exists() else {}
    size = scale_size(*pixels.shape[:2], 256)
    planes = np.moveaxis(pixels, 2, 0).astype(np.float32) * np.float32(1 / np.iinfo(pixels.dtype).max)

    def normalised(image: np.ndarray) -> np.ndarray:
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
        return (image - mean) / std

    def cropped(resize_px: int, crop_px: int) -> np.ndarray:
        return preprocess(pixels, Preprocessing(resize_px, crop_px, IMAGENET.mean, IMAGENET.std)).numpy()

    compare(lambda: planes, case, "load", stored, tolerance=0)
    compare(lambda: resize(planes, *size), case, "scale256", stored, tolerance=1e-6)
    compare(lambda: resize(planes, *size, mode="bilinear"), case, "scale256_bilinear", stored, tolerance=1e-6)
    compare(lambda: normalised(resize(planes, *size)), case, "scale256_norm", stored)
    compare(lambda: preprocess(data / "images" / case["file"]).numpy(), case, "val224", stored)
    compare(lambda: ten_crops(pixels).numpy(), case, "tencrop224", stored)
    compare(lambda: cropped(320, 320), case, "val320", stored)
    compare(lambda: cropped(360, 320), case, "scale360_crop320", stored)


def compare(make: Any, case: dict[str, Any], step: str, stored: Any, tolerance: float = TOLERANCE) -> None:
    """The array of one step with its recorded statistics and with the parts of it that were kept."""
    if step == "load":
        if "load" in stored:
            np.testing.assert_array_equal(make(), stored["load"])
        return
    expected = case.get(step, {"undefined": "the step was not run"})
    if "undefined" in expected:
        return
    found = make()
    assert list(found.shape) == expected["shape"], step
    assert found.dtype == np.float32
    if "mean" in expected:
        numbers = [found.mean(dtype=np.float64), found.min(), found.max()]
        np.testing.assert_allclose(numbers, [expected[k] for k in ("mean", "min", "max")], rtol=0, atol=tolerance)
    grid, block = expected.get("grid_step", 1), expected.get("corner_block", 1)
    parts = {
        "full": found,
        "grid": found[..., ::grid, ::grid],
        "topright": found[..., :block, -block:],
        "bottomleft": found[..., -block:, :block],
    }
    for name, part in parts.items():
        if f"{step}.{name}" in stored:
            np.testing.assert_allclose(part, stored[f"{step}.{name}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES["resize"], ids=lambda case: str(case["name"]))
def test_scaling_gives_the_arrays_of_the_original(case: dict[str, Any]) -> None:
    expected = ARRAYS[case["output"]]
    found = resize(ARRAYS[case["input"]], case["height_arg"], case["width_arg"], case["mode"])
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    tolerance = {np.float32: 1e-6, np.float64: 1e-14, np.uint8: 0}[expected.dtype.type]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES["scale_sizes"], ids=lambda case: "{in_h}x{in_w}_to_{size}".format(**case))
def test_sizes_are_cut_off_with_the_rounding_of_the_original(case: dict[str, Any]) -> None:
    assert scale_size(case["in_h"], case["in_w"], case["size"]) == (case["out_h"], case["out_w"])


@pytest.mark.parametrize("case", CASES["crops"], ids=lambda case: "{in_h}x{in_w}_{size}".format(**case))
def test_center_crops_start_where_those_of_the_original_do(case: dict[str, Any]) -> None:
    sides, size = (case["in_w"], case["in_h"]), case["size"]
    if "error" in case:
        with pytest.raises(ValueError, match=f"crop of {size} pixels does not fit into {min(sides)} pixels"):
            [center_crop_offset(side, size) for side in sides]
    else:
        assert [center_crop_offset(side, size) for side in sides] == [case["x0"], case["y0"]]


# ------------------------------------------------------------------------------------------- a second opinion


def scaled_line(line: list[float], target: int) -> list[float]:
    """Scale one row or column to `target` values, straight from the formula, in float64 but for the positions."""
    source = len(line)
    if source == target:
        return line
    if source == 1 or target == 1:
        return [line[-1]] * target
    scale = np.float32(source - 1) / np.float32(target - 1)
    result = []
    for i in range(target - 1):
        position = np.float32(i) * scale
        left = min(int(position), source - 2)
        x = float(position) - left
        p1, p2 = line[left], line[left + 1]
        p0 = line[left - 1] if left > 0 else 2 * p1 - p2
        p3 = line[left + 2] if left + 2 < source else 2 * p2 - p1
        a1, a2, a3 = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
        result.append(p1 + 0.5 * x * (a1 + x * (a2 + x * a3)))
    return [*result, line[-1]]


def scaled_plane(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    wide = np.array([scaled_line(list(row), width) for row in plane.astype(np.float64)])
    return np.array([scaled_line(list(column), height) for column in wide.T]).T


sides = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.data())
def test_any_window_of_any_scaling_of_any_box_agrees_with_the_formula(
    height: int, width: int, h: int, w: int, data: st.DataObject
) -> None:
    pixels = np.random.default_rng(height * 41 + width).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    top, left = data.draw(st.integers(0, 50 - height)), data.draw(st.integers(0, 50 - width))
    box = pixels[top : top + height, left : left + width]
    rows, columns = (range(*sorted(data.draw(st.sets(st.integers(0, n), min_size=2, max_size=2)))) for n in (h, w))

    found = resample(box, (h, w), [rows], [columns]).numpy()
    expected = [
        scaled_plane(box[:, :, c], h, w)[rows.start : rows.stop, columns.start : columns.stop] for c in (0, 1, 2)
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=255e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 30), st.data())
def test_preprocessing_is_scale_crop_and_normalise_one_after_the_other(
    height: int, width: int, size: int, data: st.DataObject
) -> None:
    crop = data.draw(st.integers(1, size))
    pixels = np.random.default_rng(width).integers(0, 65536, (height, width, 3), dtype=np.uint16)
    preprocessing = Preprocessing(size, crop, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0), pixel_max=10.0)
    h, w = scale_size(height, width, size)
    y, x = math.ceil((h - crop) / 2), math.ceil((w - crop) / 2)

    found = preprocess(pixels, preprocessing).numpy()
    for c, (mean, std) in enumerate(zip(preprocessing.mean, preprocessing.std, strict=True)):
        plane = scaled_plane(pixels[:, :, c] / 65535 * 10.0, h, w)[y : y + crop, x : x + crop]
        np.testing.assert_allclose(found[c], (plane - mean) / std, rtol=0, atol=1e-4)


def test_gray_is_that_of_rgb2y_scaled_cropped_and_normalised() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    gray = 0.299 * pixels[:, :, 0] / 255 + 0.587 * pixels[:, :, 1] / 255 + 0.114 * pixels[:, :, 2] / 255  # rgb2y
    preprocessing = Preprocessing(20, 16, (0.4,), (0.25,))
    plane = scaled_plane(gray, 20, 25)[2:18, 5:21]  # of 20 x 25, 4 rows and 9 columns are left over
    found = preprocess(pixels, preprocessing)
    assert found.shape == (1, 16, 16)
    np.testing.assert_allclose(found[0].numpy(), (plane - 0.4) / 0.25, rtol=0, atol=1e-5)
    crops = ten_crops(pixels, preprocessing)
    assert crops.shape == (10, 1, 16, 16)
    torch.testing.assert_close(crops[0], found, rtol=0, atol=1e-6)


def test_preprocessing_for_gray_has_the_gray_of_the_means() -> None:
    gray = IMAGENET.for_channels(1)
    assert gray.mean == pytest.approx((0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406,))
    assert (gray.channels, gray.crop_px, IMAGENET.for_channels(3)) == (1, 224, IMAGENET)
    assert gray.for_channels(3).std == gray.std * 3
    assert Preprocessing.from_dict(gray.to_dict()) == gray


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.data())
def test_ten_crops_are_cut_from_the_scaled_image_and_its_mirror(
    height: int, width: int, size: int, data: st.DataObject
) -> None:
    crop = data.draw(st.integers(1, size))
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    plain = Preprocessing(size, crop, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    h, w = scale_size(height, width, size)
    scaled = resize(np.moveaxis(pixels, 2, 0).astype(np.float32) / 255, h, w)
    y, x, bottom, right = math.ceil((h - crop) / 2), math.ceil((w - crop) / 2), h - crop, w - crop
    expected = [
        image[:, top : top + crop, left : left + crop]
        for image in (scaled, scaled[:, :, ::-1])
        for top, left in ((y, x), (0, 0), (0, right), (bottom, 0), (bottom, right))
    ]
    np.testing.assert_allclose(ten_crops(pixels, plain).numpy(), expected, rtol=0, atol=3e-6)


def test_the_sums_of_bytes_and_of_floats_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    bytes_first = preprocess(pixels)
    monkeypatch.setattr(resample_module, "_sums_of_bytes", lambda: None)
    np.testing.assert_allclose(preprocess(pixels).numpy(), bytes_first.numpy(), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------- borders


def test_pixels_may_be_bytes_sixteen_bits_or_floats_in_any_memory_order() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    expected = preprocess(pixels).numpy()
    read_only = pixels.copy()
    read_only.flags.writeable = False
    mirrored_twice = pixels[::-1, ::-1].copy()[::-1, ::-1]
    same = [
        pixels.astype(np.uint16) * 257,
        pixels / 255,
        pixels.astype(np.float32) / np.float32(255),
        read_only,
        mirrored_twice,
        np.asfortranarray(pixels),
    ]
    for array in same:
        np.testing.assert_allclose(preprocess(array).numpy(), expected, rtol=0, atol=TOLERANCE)


def test_equal_sizes_are_copied_bit_for_bit() -> None:
    plain = Preprocessing(32, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), pixel_max=255.0)
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(preprocess(pixels, plain).numpy(), np.moveaxis(pixels, 2, 0))


def test_cifar_pixels_are_normalised_between_0_and_255() -> None:
    pixels = np.full((32, 32, 3), 200, np.uint8)
    for preprocessing, mean, std in ((CIFAR10, 125.3, 63.0), (CIFAR100, 129.3, 68.2)):
        tensor = preprocess(pixels, preprocessing)
        assert tensor.shape == (3, 32, 32)
        assert tensor[0, 0, 0].item() == pytest.approx((200 - mean) / std, abs=1e-6)


def test_the_result_is_a_contiguous_tensor_of_its_own() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    first = preprocess(pixels)
    assert first.dtype == torch.float32
    assert first.is_contiguous()
    first.fill_(7)
    assert preprocess(pixels).max() < 0
    assert ten_crops(pixels).shape == (10, 3, 224, 224)


def test_tables_made_in_inference_mode_serve_outside_of_it() -> None:
    pixels = np.zeros((301, 403, 3), np.uint8)
    with torch.inference_mode():
        preprocess(pixels)
    preprocess(pixels).requires_grad_(True).sum().backward()


@pytest.mark.parametrize("shape", [(1, 1_000_000), (1_000_000, 1), (2, 900_000), (3000, 3000), (1, 1)])
def test_memory_is_bounded_by_source_and_crop_whatever_the_shape(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 100, np.uint8)
    tracemalloc.start()
    tensors = [preprocess(pixels), ten_crops(pixels)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6  # the scaled 1 x 1,000,000 image would have 256 x 256,000,000 pixels
    red = (100 / 255 - IMAGENET.mean[0]) / IMAGENET.std[0]
    for tensor in tensors:
        assert tensor[..., 0, :, :].sub(red).abs().max() < TOLERANCE


def test_threads_get_the_same_numbers() -> None:
    images = [np.random.default_rng(n).integers(0, 256, (100 + n, 150, 3), dtype=np.uint8) for n in range(8)]
    expected = [preprocess(image) for image in images]
    resample_module._taps.cache_clear()
    resample_module._channel_taps.cache_clear()
    results: dict[tuple[int, int], torch.Tensor] = {}

    def work(thread: int) -> None:
        for number, image in enumerate(images):
            results[thread, number] = preprocess(image)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 32
    assert all(torch.equal(tensor, expected[number]) for (_, number), tensor in results.items())


@pytest.mark.parametrize("shape", [(30,), (30, 40, 2), (0, 40, 3), (3, 30, 40), (1, 30, 40, 3)])
def test_arrays_that_are_no_image_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"of shape .*; expected \(H, W\), \(H, W, 3\) or \(H, W, 4\)"):
        preprocess(np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match="int64"):
        preprocess(np.zeros((4, 4, 3), np.int64))


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown mode 'lanczos'; expected one of bicubic, bilinear, simple"):
        resize(np.zeros((3, 4, 4), np.float32), 8, 8, "lanczos")


def test_a_path_error_names_the_file() -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg: No such file"):
        preprocess("gone.jpg")


# ------------------------------------------------------------------------------------------- Preprocessing


@pytest.mark.parametrize("preprocessing", [IMAGENET, CIFAR10, CIFAR100])
def test_preprocessing_survives_json(preprocessing: Preprocessing) -> None:
    text = json.dumps(preprocessing.to_dict())
    assert Preprocessing.from_dict(json.loads(text)) == preprocessing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_px": 257}, "crop of 257 x 257 does not fit into an image scaled to 256 pixels"),
        ({"crop_px": 0}, "crop_px is 0; expected a whole number from 1"),
        ({"resize_px": 10**9}, "resize_px is 1000000000; expected"),
        ({"resize_px": 256.0}, "resize_px is 256.0; expected"),
        ({"resize_px": True}, "resize_px is True; expected"),
        ({"mean": [0.5, 0.5]}, "mean is .* expected three finite numbers"),
        ({"mean": 0.5}, "mean is 0.5; expected three"),
        ({"mean": ["a", "b", "c"]}, "mean is .* expected three"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean is .* expected three"),
        ({"std": [1.0, float("inf"), 1.0]}, "std is .* expected three"),
        ({"std": [1.0, 0.0, 1.0]}, "std is .* expected numbers above 0"),
        ({"pixel_max": 0.0}, "pixel_max is 0.0; expected a number above 0"),
        ({"pixel_max": None}, "pixel_max is None; expected"),
        ({"unknown": 1}, "expected preprocessing with the keys"),
    ],
)
def test_preprocessing_that_no_image_could_have_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(IMAGENET.to_dict() | change)


@pytest.mark.parametrize("values", [{}, {"crop_px": 224}, None, [], "resize_px", 3])
def test_what_is_no_description_of_preprocessing_is_an_error(values: Any) -> None:
    with pytest.raises(ValueError, match="expected preprocessing with the keys"):
        Preprocessing.from_dict(values)


@given(st.dictionaries(st.sampled_from([*IMAGENET.to_dict(), "x"]), st.none() | st.floats() | st.lists(st.integers())))
def test_no_values_raise_another_error(values: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        Preprocessing.from_dict(IMAGENET.to_dict() | values)


def test_exif_orientation_is_stored_only_where_it_is_applied():
    upright = replace(IMAGENET, exif_orientation=True)
    assert "exif_orientation" not in IMAGENET.to_dict()
    assert upright.to_dict() == IMAGENET.to_dict() | {"exif_orientation": True}
    assert Preprocessing.from_dict(upright.to_dict()) == upright
    assert Preprocessing.from_dict(IMAGENET.to_dict() | {"exif_orientation": False}) == IMAGENET
    with pytest.raises(ValueError, match="exif_orientation is 1; expected true or false"):
        Preprocessing.from_dict(IMAGENET.to_dict() | {"exif_orientation": 1})


def test_images_are_turned_as_the_preprocessing_says(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    y, x = np.mgrid[0:256, 0:300]
    image = PIL.Image.fromarray(np.stack([x % 256, y, (x + y) % 256], 2).astype(np.uint8))
    image.save(tmp_path / "turned.png", exif=exif)
    path, upright = str(tmp_path / "turned.png"), replace(IMAGENET, exif_orientation=True)
    turned = preprocess(path, IMAGENET, exif=True)
    assert not torch.equal(preprocess(path, IMAGENET), turned)
    assert torch.equal(preprocess(path, upright), turned)
    assert torch.equal(preprocess(path, upright, exif=False), preprocess(path, IMAGENET))
    assert torch.equal(ten_crops(path, upright), ten_crops(path, IMAGENET, exif=True))
    generator = np.random.default_rng(0)
    assert torch.equal(augmented(path, upright, NO_AUGMENTATION, generator), turned)


@pytest.mark.parametrize("preprocessing", [IMAGENET, IMAGENET.for_channels(1), CIFAR10], ids=["rgb", "gray", "cifar"])
@pytest.mark.parametrize("shape", [(300, 417, 3), (256, 256, 3), (40, 31, 3), (1, 900, 3), (500, 2, 3)])
def test_without_torch_the_numbers_are_the_same(preprocessing, shape):
    generator = np.random.default_rng(0)
    for pixels in (
        generator.integers(0, 256, shape, np.uint8),
        generator.integers(0, 65536, shape).astype(np.uint16),
        generator.random(shape, np.float32),
    ):
        expected = preprocess(pixels, preprocessing).numpy()
        tolerance = 1e-6 * max(1.0, np.abs(expected).max())  # of numbers around 1, as sums of bytes are rounded
        np.testing.assert_allclose(preprocess_array(pixels, preprocessing), expected, rtol=0, atol=tolerance)
        ten = ten_crops_array(pixels, preprocessing)
        np.testing.assert_allclose(ten, ten_crops(pixels, preprocessing).numpy(), rtol=0, atol=tolerance)
