"""What a caller asked for -> how many images a net takes at once."""

from __future__ import annotations

import pytest

from resnet_tools.data.transforms import IMAGENET
from resnet_tools.errors import ResnetToolsError
from resnet_tools.jobs.running import Running


@pytest.mark.parametrize(
    ("threads", "options", "images"),
    [
        ("2", {"engine": "torch"}, 8),
        ("1", {"engine": "torch"}, 16),
        ("1", {"engine": "torch", "batch_size": 4}, 4),
        ("1", {"engine": "torch", "ten_crop": True}, 8),  # 80 crops
        ("1", {"engine": "onnxruntime"}, 8),
    ],
)
def test_torch_takes_more_images_at_once_where_it_has_one_thread(threads, options, images, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert Running(device="cpu", **options).loading(IMAGENET).batch_size == images
    assert Running(device="cpu", **options).loading(IMAGENET, 32).batch_size == options.get("batch_size", 32)


@pytest.mark.parametrize("name", ["ten_crop", "exif_orientation"])
@pytest.mark.parametrize("value", ["false", 2, 1.0, []])
def test_what_is_neither_true_nor_false_is_refused(name, value):
    with pytest.raises(ResnetToolsError, match=f"{name} is .*; expected True or False"):
        Running(**{name: value})
