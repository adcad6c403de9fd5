"""The batches of an epoch are the same whoever loads them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import CIFAR10
from resnet_tools.training.batches import EpochDataset, epoch_batches, share_of
from resnet_tools.training.loading import BatchLoader
from resnet_tools.training.transforms import training_transform
from tests.support.small_nets import sample_set


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**63), st.integers(1, 90), st.integers(1, 5))
def test_an_epoch_is_every_sample_once(count, batch_size, seed, epoch, processes):
    batches = epoch_batches(count, batch_size, seed, epoch, processes)
    assert sorted(np.concatenate(batches)) == list(range(count))
    if count >= processes and batch_size >= processes:
        assert min(map(len, batches)) >= min(processes, count)
    for batch in batches:
        parts = [share_of(batch, rank, processes) for rank in range(processes)]
        assert np.array_equal(np.concatenate(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(epoch_batches(50, 50, seed, epoch)[0]) for seed in (0, 1) for epoch in (1, 2)]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(epoch_batches(50, 50, 0, 1)[0])


def test_batches_do_not_depend_on_who_loads_them():
    samples = sample_set()
    transform = training_transform("original", "cifar10", CIFAR10)
    plan = epoch_batches(len(samples), 5, 3, 2)
    ways = [list(BatchLoader(samples, transform, 3, workers=workers).epoch(2, plan)) for workers in (0, 1, 3, 5)]
    for batches in ways[1:]:
        assert [torch.equal(a.images, b.images) for a, b in zip(ways[0], batches, strict=True)] == [True] * len(plan)
        assert [a.targets.tolist() for a in ways[0]] == [b.targets.tolist() for b in batches]
    assert [batch.targets.tolist() for batch in ways[0]] == [[samples.targets[k] for k in part] for part in plan]


def test_an_augmentation_depends_on_epoch_and_position_alone():
    samples = sample_set()
    transform = training_transform("original", "cifar10", CIFAR10)
    images = {(epoch, k): EpochDataset(samples, transform, 0, epoch).image(k) for epoch in (1, 2) for k in (0, 1)}
    again = EpochDataset(samples, transform, 0, 1).image(1)
    assert torch.equal(images[1, 1], again)
    assert not torch.equal(images[1, 1], images[2, 1])


def test_unreadable_images_are_left_out_and_named(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    good = str(tmp_path / "good.png")
    Image.new("RGB", (40, 36), (200, 30, 90)).save(good)
    samples = Samples([good, str(bad), good], [0, 1, 2], ["a", "b", "c"])
    dataset = EpochDataset(samples, training_transform("none", "cifar10", CIFAR10), 0, 1)
    batch = dataset.batch(np.arange(3))
    assert batch.targets.tolist() == [0, 2]
    assert [name for name, _ in batch.errors] == [str(bad)]
    assert dataset.batch(np.array([1])).images is None
