"""Training images are normalised crops, drawn reproducibly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resnet_tools.data.augment import sized_box
from resnet_tools.data.transforms import CIFAR10, IMAGENET
from resnet_tools.training import transforms
from resnet_tools.training.batches import random_numbers
from resnet_tools.training.transforms import augmentation, copies_side_px, normalised_batch, training_transform
from tests.support.fake_gpu import GPU, fake_gpu
from tests.support.small_nets import sample_set


@pytest.mark.parametrize("name", ["original", "light", "trivial", "none"])
@pytest.mark.parametrize("dataset", ["imagenet", "cifar10"])
def test_every_augmentation_gives_normalised_crops(name, dataset):
    transform = training_transform(name, dataset, CIFAR10)
    views = [transform(sample_set().images[0], random_numbers(0, 1, k)) for k in range(8)]
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.float32 for view in views)
    assert all(bool(view.isfinite().all()) and float(view.abs().max()) < 6 for view in views)
    assert torch.equal(views[0], transform(sample_set().images[0], random_numbers(0, 1, 0)))
    drawn = any(not torch.equal(views[0], view) for view in views[1:])
    assert drawn == (name != "none")
    assert augmentation(name, dataset).flip == (name != "none")


@pytest.mark.parametrize(("name", "rounding"), [("trivial", 0.0), ("light", 0.5 / 62.1), ("none", 0.5 / 62.1)])
def test_bytes_are_normalised_to_the_same_numbers(name, rounding):
    """`trivial` has bytes anyway, so nothing changes; the others are rounded to whole steps of 256."""
    plain, as_bytes = (training_transform(name, "imagenet", CIFAR10, as_bytes=choice) for choice in (False, True))
    images = [(image, random_numbers(0, 1, k)) for k, image in enumerate(sample_set().images)]
    floats = torch.stack([plain(image, generator) for image, generator in images])
    images = [(image, random_numbers(0, 1, k)) for k, image in enumerate(sample_set().images)]
    pixels = torch.stack([as_bytes(image, generator) for image, generator in images])
    assert pixels.dtype == torch.uint8
    assert floats.dtype == torch.float32
    found = normalised_batch(pixels, as_bytes)
    inside = (pixels > 0) & (pixels < 255)  # bicubic scaling goes beyond black and white, where bytes end
    assert inside.float().mean() > 0.5
    assert float((found - floats)[inside].abs().max()) <= rounding + 1e-6
    assert torch.equal(normalised_batch(floats, plain), floats)


def test_only_the_first_batch_of_bytes_on_a_gpu_waits_for_it():
    transform = training_transform("light", "imagenet", CIFAR10, as_bytes=True)
    transforms._per_channel.cache_clear()
    with fake_gpu() as waits:
        images = torch.empty(8, 3, 32, 32, dtype=torch.uint8, device=GPU)
        for _ in range(3):
            found = normalised_batch(images, transform)
    transforms._per_channel.cache_clear()
    assert found.device == GPU
    assert waits == ["_to_copy", "_to_copy"]  # mean and standard deviation


@pytest.mark.parametrize(("name", "enlarged", "most"), [("light", 0, 0.75), ("trivial", 1 / 6, 1.55)])
def test_which_crops_of_a_photograph_have_fewer_pixels_in_its_copy_than_the_net_sees(name, enlarged, most):
    transform = training_transform(name, "imagenet", IMAGENET)
    height, width, crop_px = 3000, 4000, 224
    assert copies_side_px(transform) == 448
    scale, generator = 448 / height, np.random.default_rng(0)
    boxes = [sized_box(height, width, transform.augmentation.min_area, generator) for _ in range(4000)]
    sides = np.array([np.sqrt(box[2] * box[3]) for box in boxes if box is not None])
    assert sides.min() > 3.8 * crop_px  # in the photograph itself, the smallest: the root of 0.08 * 3000 * 4000 is 980
    assert np.mean(scale * sides < crop_px) == pytest.approx(enlarged, abs=0.02)
    # 8 % of the copy's 448 x 597 pixels are 146 x 146, and 35 % are 306 x 306.
    assert crop_px / (scale * sides.min()) < most
