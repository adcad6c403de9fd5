"""Random views: the original's numbers with its own random draws, step-by-step references, then the borders."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from resnet_tools.data.augment import (
    JITTER,
    LIGHT,
    NO_AUGMENTATION,
    ORIGINAL_CIFAR,
    ORIGINAL_IMAGENET,
    Augmentation,
    Colours,
    augmented,
    colour_matrix,
    sized_box,
)
from resnet_tools.data.transforms import CIFAR10, IMAGENET, Preprocessing, preprocess
from resnet_tools.errors import ImageError
from tests.support.golden import DATA

CASES = {case["name"]: case for case in json.loads((DATA / "transforms" / "augment.json").read_text())["augment"]}
ARRAYS = np.load(DATA / "transforms" / "augment.npz")
AS_IS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # a normalisation that changes nothing
TOLERANCE = 1e-6  # on colours from 0 to 1; normalisation divides by 0.224


class Recorded:
    """Stands for a numpy Generator: gives what the original drew, and fails if something else is asked for."""

    def __init__(self, *draws: dict[str, Any]) -> None:
        self.draws = list(draws)

    def next(self, call: str, **expected: Any) -> Any:
        draw = self.draws.pop(0)
        assert draw["call"] == call
        for name, value in expected.items():
            assert draw[name] == pytest.approx(value, abs=0)
        return draw["value"]

    def uniform(self, low: float, high: float) -> float:
        return float(self.next("uniform", low=low, high=high))

    def integers(self, low: int, high: int, *, endpoint: bool) -> int:
        assert endpoint
        return int(self.next("random", low=low, high=high))

    def permutation(self, n: int) -> np.ndarray:
        return np.array(self.next("randperm", n=n)) - 1

    def normal(self, mean: float, std: float, n: int) -> np.ndarray:
        drawn = np.array(self.next("normal", mean=mean, std=std))
        assert len(drawn) == n
        return drawn


def arguments_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Input of a case as (H, W, 3) pixels, and its output (3, h, w)."""
    case = CASES[name]
    return np.moveaxis(ARRAYS[case["input"]], 0, 2), ARRAYS[case["output"]]


def check(name: str, preprocessing: Preprocessing, augmentation: Augmentation, tolerance: float = TOLERANCE) -> None:
    pixels, expected = arguments_of(name)
    recorded = Recorded(*CASES[name]["draws"])
    found = augmented(pixels, preprocessing, augmentation, recorded)  # type: ignore[arg-type]
    assert not recorded.draws, "everything that the original drew is drawn"
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance)


def whole(name: str) -> Preprocessing:
    """Neither scales nor crops the square part of the case's input."""
    side = min(arguments_of(name)[0].shape[:2])
    return Preprocessing(side, side, *AS_IS)


def recoloured(pixels: np.ndarray, steps: list[tuple[str, float]], light: Any = (0, 0, 0)) -> np.ndarray:
    colours = Colours(steps, np.array(light, float))
    matrix, bias = colour_matrix(colours, float((pixels @ [0.299, 0.587, 0.114]).mean()))
    return np.moveaxis(pixels @ matrix.T + bias, 2, 0)


@pytest.mark.parametrize("name", [f"{step}_{number}" for step in JITTER for number in (1, 2, 3)])
def test_each_step_of_the_jitter_gives_the_numbers_of_the_original(name):
    pixels, expected = arguments_of(name)
    (draw,) = CASES[name]["draws"]
    found = recoloured(pixels, [(name.rpartition("_")[0], 1 + draw["value"])])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["colorjitter_1", "colorjitter_2", "colorjitter_3"])
def test_the_jitter_in_any_order_gives_the_numbers_of_the_original(name):
    pixels, expected = arguments_of(name)
    order, *draws = CASES[name]["draws"]
    steps = [(JITTER[which - 1], 1 + draw["value"]) for which, draw in zip(order["value"], draws, strict=True)]
    np.testing.assert_allclose(recoloured(pixels, steps), expected, rtol=0, atol=TOLERANCE)


# The whole path crops squares out of these 30 x 40 images, so only what no mean enters can be compared after it.
@pytest.mark.parametrize(
    ("name", "augmentation"),
    [
        ("lighting_1", Augmentation("center", flip=False, lighting=0.1)),
        ("lighting_2", Augmentation("center", flip=False, lighting=0.1)),
        ("lighting_off", NO_AUGMENTATION),
        ("colorjitter_none", NO_AUGMENTATION),
        ("colorjitter_one", Augmentation("center", flip=False, saturation=0.4)),
        ("hflip_yes", Augmentation("center")),
        ("hflip_no", Augmentation("center")),
    ],
)
def test_lighting_and_flip_give_the_numbers_of_the_original(name, augmentation):
    pixels, expected = arguments_of(name)
    recorded = Recorded(*CASES[name]["draws"])
    found = augmented(pixels, whole(name), augmentation, recorded)  # type: ignore[arg-type]
    assert not recorded.draws
    # a centered square of 30 columns starts at (40 - 30) / 2 = 5, also in the mirrored image
    np.testing.assert_allclose(found.numpy(), expected[:, :, 5:35], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "crop_px", "padding_px"),
    [
        ("randomcrop_pad4_1", 32, 4),
        ("randomcrop_pad4_2", 32, 4),
        ("randomcrop_pad4_3", 32, 4),
        ("randomcrop_corner", 32, 4),
        ("randomcrop_nopad_same", 30, 0),
        ("randomcrop_nopad", 24, 0),
    ],
)
def test_random_crops_give_the_numbers_of_the_original(name, crop_px, padding_px):
    side = min(arguments_of(name)[0].shape[:2])
    check(name, Preprocessing(side, crop_px, *AS_IS), Augmentation("padded", padding_px=padding_px, flip=False), 0)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("randomsizedcrop")])
def test_random_sized_crops_give_the_numbers_of_the_original(name):
    check(name, Preprocessing(32, 32, *AS_IS), Augmentation("sized", flip=False))


@pytest.mark.parametrize("name", ["train_pipeline_1", "train_pipeline_2"])
def test_the_training_transform_gives_the_numbers_of_the_original(name):
    check(name, Preprocessing(48, 48, IMAGENET.mean, IMAGENET.std), ORIGINAL_IMAGENET, 4e-6)


@pytest.mark.parametrize("name", ["cifar_train_1", "cifar_train_2"])
def test_the_training_transform_of_cifar_gives_the_numbers_of_the_original(name):
    pixels, expected = arguments_of(name)
    recorded = Recorded(*CASES[name]["draws"])
    found = augmented(pixels / np.float32(255), CIFAR10, ORIGINAL_CIFAR, recorded)  # type: ignore[arg-type]
    assert not recorded.draws
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=TOLERANCE)


def test_every_recorded_case_is_compared_or_has_no_place_in_training():
    # normalisation alone is compared in test_transforms; RandomScale is in no training transform
    elsewhere = {"colornormalize", "randomscale", "randomcrop_too_small"}
    compared = {name for name in CASES if name.partition("_")[0] in (*JITTER, "colorjitter", "lighting", "hflip")}
    compared |= {name for name in CASES if name.startswith(("random", "train_pipeline", "cifar_train"))} - elsewhere
    assert compared | elsewhere == set(CASES)


def step_by_step(
    image: np.ndarray, preprocessing: Preprocessing, order: list[tuple[str, float]], rgb: np.ndarray
) -> np.ndarray:
    """Jitter, lighting and normalisation as the Lua program writes them, one after the other; image (3, h, w)."""
    image = image.astype(np.float64)
    for name, alpha in order:
        gray = np.broadcast_to(0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2], image.shape)
        other = {"brightness": 0 * gray, "contrast": np.full_like(gray, gray[0].mean()), "saturation": gray}[name]
        image = alpha * image + (1 - alpha) * other
    image = image + rgb[:, None, None]
    mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (image * preprocessing.pixel_max - mean) / std


class Spy:
    """A numpy Generator that notes what it gave."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.given: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            value = getattr(self.generator, name)(*arguments, **options)
            self.given.append((name, value))
            return value

        return call


PIXELS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)), elements=st.integers(0, 255)
)


@settings(max_examples=60, deadline=None)
@given(pixels=PIXELS, seed=st.integers(0, 2**32), strengths=st.tuples(*[st.sampled_from([0.0, 0.4, 1.0])] * 4))
def test_one_matrix_is_the_steps_one_after_the_other(pixels, seed, strengths):
    brightness, contrast, saturation, lighting = strengths
    colours = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "lighting": lighting}
    augmentation = Augmentation("center", **colours)
    preprocessing = Preprocessing(8, 6, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    spy = Spy(seed)
    found = augmented(pixels, preprocessing, augmentation, spy).numpy()  # type: ignore[arg-type]

    names = [name for name in JITTER if colours[name]]
    given = iter(spy.given)
    order = [names[which] for which in next(given)[1]] if names else []
    steps = [(name, 1 + next(given)[1]) for name in order]
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    rgb = (vectors * next(given)[1] * [0.2175, 0.0188, 0.0045]).sum(1) if lighting else np.zeros(3)
    plain = preprocess(pixels, Preprocessing(8, 6, *AS_IS)).numpy()
    expected = step_by_step(plain, preprocessing, steps, rgb)
    if next(given)[1] < 0.5:
        expected = expected[:, :, ::-1]
    assert next(given, None) is None
    assert np.abs(found - expected).max() <= 2e-6 * max(1, np.abs(expected).max())


@settings(max_examples=60, deadline=None)
@given(
    pixels=PIXELS,
    seed=st.integers(0, 2**32),
    resize_px=st.integers(6, 40),
    crop_px=st.integers(5, 40),
    padding_px=st.integers(0, 4),
)
def test_padded_crops_are_windows_of_the_flipped_and_padded_image(pixels, seed, resize_px, crop_px, padding_px):
    crop_px = min(crop_px, resize_px)
    preprocessing = Preprocessing(resize_px, crop_px, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    spy = Spy(seed)
    found = augmented(pixels, preprocessing, Augmentation("padded", padding_px=padding_px), spy)  # type: ignore[arg-type]

    h, w = (max(resize_px, int(side / min(pixels.shape[:2]) * resize_px)) for side in pixels.shape[:2])
    image = whole_image(pixels, (h, w), preprocessing)
    flip, *start = (value for _, value in spy.given)
    x, y = start or (0, 0)
    image = image[:, :, ::-1] if flip < 0.5 else image
    padded = np.pad(image, ((0, 0), (padding_px, padding_px), (padding_px, padding_px)))
    np.testing.assert_allclose(found, padded[:, y : y + crop_px, x : x + crop_px], rtol=0, atol=4e-5)


def whole_image(pixels: np.ndarray, size: tuple[int, int], preprocessing: Preprocessing) -> np.ndarray:
    """The whole scaled and normalised image."""
    from resnet_tools.data.resample import resample

    plain = resample(pixels, size).numpy() / 255
    mean, std = (np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (plain - mean) / std


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    min_area=st.floats(0.01, 1),
    seed=st.integers(0, 2**32),
)
def test_the_box_of_a_sized_crop_lies_in_the_image(height, width, min_area, seed):
    box = sized_box(height, width, min_area, np.random.default_rng(seed))
    if box is not None:
        top, left, h, w = box
        assert top >= 0
        assert left >= 0
        assert 1 <= h <= height - top
        assert 1 <= w <= width - left


def test_a_sized_crop_may_lie_at_each_end_of_the_image():
    generator = np.random.default_rng(0)
    boxes = [sized_box(4, 4, 0.5, generator) for _ in range(500)]
    corners = {box[:2] for box in boxes if box is not None and box[2:] == (3, 3)}
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("augmentation", [ORIGINAL_IMAGENET, ORIGINAL_CIFAR, LIGHT, NO_AUGMENTATION])
@settings(max_examples=25, deadline=None)
@given(pixels=PIXELS, seed=st.integers(0, 2**32), crop_px=st.integers(5, 33))
def test_any_image_gives_a_view_of_the_asked_size(augmentation, pixels, seed, crop_px):
    preprocessing = Preprocessing(35, crop_px, IMAGENET.mean, IMAGENET.std)
    found = augmented(pixels, preprocessing, augmentation, np.random.default_rng(seed))
    assert found.shape == (3, crop_px, crop_px)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("augmentation", [ORIGINAL_IMAGENET, ORIGINAL_CIFAR, LIGHT, NO_AUGMENTATION])
def test_the_view_for_a_gray_net_is_the_gray_of_the_view(augmentation):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    color = augmented(pixels, Preprocessing(35, 30, (0.0,) * 3, (1.0,) * 3), augmentation, np.random.default_rng(1))
    gray = augmented(pixels, Preprocessing(35, 30, (0.0,), (1.0,)), augmentation, np.random.default_rng(1))
    assert gray.shape == (1, 30, 30)
    torch.testing.assert_close(gray[0], 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1_000_000, 3), (1_000_000, 1, 3)])
@pytest.mark.parametrize("augmentation", [ORIGINAL_IMAGENET, ORIGINAL_CIFAR, NO_AUGMENTATION])
def test_a_line_of_a_million_pixels_costs_no_more_than_its_crop(shape, augmentation):
    view = augmented(np.zeros(shape, np.uint8), IMAGENET, augmentation, np.random.default_rng(0))
    assert view.shape == (3, 224, 224)


def test_no_augmentation_is_the_preprocessing_of_evaluation():
    path = DATA / "images" / "coffee.jpg"
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    assert torch.equal(augmented(path, IMAGENET, NO_AUGMENTATION, generator), preprocess(path, IMAGENET))
    assert generator.bit_generator.state == before, "nothing is drawn"


@pytest.mark.parametrize("augmentation", [ORIGINAL_IMAGENET, ORIGINAL_CIFAR, LIGHT])
def test_the_view_depends_on_the_generator_alone(augmentation):
    path = DATA / "images" / "coffee.jpg"
    first, again, other = (augmented(path, IMAGENET, augmentation, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sixteen_bits_and_floats_give_the_view_of_the_same_bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    views = [
        augmented(
            image, Preprocessing(32, 24, IMAGENET.mean, IMAGENET.std), ORIGINAL_IMAGENET, np.random.default_rng(3)
        )
        for image in (pixels, pixels.astype(np.uint16) * 257, pixels / np.float32(255))
    ]
    for view in views[1:]:
        torch.testing.assert_close(view, views[0], rtol=0, atol=5e-6)


def test_colours_of_cifar_are_jittered_on_the_scale_of_the_image():
    # Brightness times 1.2 of the value 100 / 255, normalised on the scale of 255: (120 - mean) / std
    pixels = np.full((32, 32, 3), 100, np.uint8)
    draws = [{"call": "randperm", "n": 1, "value": [1]}, {"call": "uniform", "low": -0.4, "high": 0.4, "value": 0.2}]
    recorded = Recorded(*draws)
    found = augmented(pixels, CIFAR10, Augmentation("center", flip=False, brightness=0.4), recorded)  # type: ignore[arg-type]
    expected = (120 - np.array(CIFAR10.mean)) / CIFAR10.std
    np.testing.assert_allclose(found[:, 5, 7], expected, rtol=0, atol=1e-6)


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.jpg: empty file"):
        augmented(tmp_path / "a.jpg", IMAGENET, LIGHT, np.random.default_rng(0))


@pytest.mark.parametrize("augmentation", [ORIGINAL_IMAGENET, ORIGINAL_CIFAR, LIGHT, NO_AUGMENTATION])
def test_an_augmentation_survives_json(augmentation):
    assert Augmentation(**json.loads(json.dumps(augmentation.to_dict()))) == augmentation


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": "random"}, "crop is 'random'; expected one of sized, padded, center"),
        ({"crop": "sized", "min_area": 0}, "min_area is 0; expected a part of the image"),
        ({"crop": "sized", "min_area": 1.5}, "min_area is 1.5"),
        ({"crop": "padded", "padding_px": -1}, "padding_px is -1; expected a whole number"),
        ({"crop": "sized", "contrast": -0.1}, "contrast is -0.1; expected a number from 0 to 10"),
        ({"crop": "sized", "lighting": float("nan")}, "lighting is nan"),
    ],
)
def test_impossible_augmentations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**values)


def test_a_padding_that_could_hide_the_image_is_refused():
    with pytest.raises(ValueError, match="a padding of 4 pixels leaves crops of 4 without the image"):
        augmented(
            np.zeros((9, 9, 3), np.uint8),
            Preprocessing(8, 4, *AS_IS),
            Augmentation("padded", padding_px=4),
            np.random.default_rng(0),
        )
