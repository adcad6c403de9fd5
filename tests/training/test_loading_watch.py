"""When a run is told that a cache would help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools.data.samples import Samples
from resnet_tools.training.batches import TrainingBatch
from resnet_tools.training.loading_watch import LoadingWatch, large_photographs
from tests.support.small_nets import sample_set

BATCH = TrainingBatch(None, torch.tensor([]), [])


def photos(folder: Path, *sizes: tuple[int, int]) -> Samples:
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{number}.jpg")
    return Samples([str(folder / f"{number}.jpg") for number in range(len(sizes))], [0] * len(sizes), ["a"])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(400, 300)] * 3, (400, 300)),
        ([(400, 300)] * 3 + [(60, 60)] * 2, (400, 300)),
        ([(400, 300)] * 2 + [(60, 60)] * 2, None),  # not most
        ([(400, 255)] * 3, None),  # 255 < 4 * 64
        ([], None),
    ],
)
def test_photographs_are_large_if_most_have_four_times_the_crop(tmp_path, sizes, expected):
    assert large_photographs(photos(tmp_path, *sizes), 64) == expected


def test_arrays_and_missing_files_are_no_photographs(tmp_path):
    assert large_photographs(sample_set(), 1) is None
    assert large_photographs(Samples([str(tmp_path / "none.jpg")], [0], ["a"]), 1) is None
    mixed: list = [np.zeros((9, 9, 3), np.uint8)]
    assert large_photographs(Samples(mixed, [0], ["a"]), 1) is None


@pytest.mark.parametrize(("waited", "said"), [(0.6, 1), (0.4, 0)])
def test_it_is_said_once_and_only_if_most_of_the_time_is_waited(tmp_path, waited, said):
    watch = LoadingWatch(None, photos(tmp_path, (400, 300)), 64)
    assert list(watch.notices(BATCH, 100.0, 100.0)) == []  # the first batch, in which the loaders start
    notices = [list(watch.notices(BATCH, waited, 1.0)) for _ in range(40)]
    assert [len(found) for found in notices] == [0] * 9 + [said] + [0] * 30


def test_files_are_only_looked_at_where_the_run_waits(monkeypatch):
    monkeypatch.setattr("resnet_tools.training.loading_watch.image_head", None)  # would fail if it were called
    watch = LoadingWatch(None, Samples(["a.jpg"], [0], ["a"]), 64)
    assert [notice for _ in range(40) for notice in watch.notices(BATCH, 0.1, 1.0)] == []
