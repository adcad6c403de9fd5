"""Pictures of where labels come from: what they show, what is written, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.compute.activation_maps import activation_maps_of
from resnet_tools.compute.inference import Loading, classify
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import preprocess
from resnet_tools.errors import DataError, ImageError
from resnet_tools.evaluation.explanations import explained, index_page, mistake_maps, overlaid, seen_pixels
from resnet_tools.evaluation.report.tables import Mistake
from tests.support.demo_images import PHOTOS


def test_the_pixels_that_are_shown_are_those_that_the_net_sees():
    preprocessing = load_checkpoint().preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    shown = seen_pixels(preprocess(pixels, preprocessing), preprocessing)
    assert np.array_equal(shown, pixels[16:240, 16:240])


def test_red_adds_and_blue_takes_away_and_nothing_stays_gray():
    pixels = np.full((20, 30, 3), 128, np.uint8)
    values = np.array([[1.0, 0.0, -1.0]], np.float32)
    shown = np.asarray(overlaid(pixels, values, 1.0), int)
    assert shown.shape == (20, 30, 3)
    assert (shown[:, 0, 0] > shown[:, 0, 2] + 80).all()
    assert (shown[:, -1, 2] > shown[:, -1, 0] + 80).all()
    assert np.ptp(shown[:, 14:16], axis=2).max() < 40
    weaker = np.asarray(overlaid(pixels, values, 10.0), int)
    assert np.ptp(weaker, axis=2).max() < np.ptp(shown, axis=2).max() / 3
    assert np.ptp(np.asarray(overlaid(pixels, np.zeros((2, 2), np.float32), 0.0)), axis=2).max() == 0


def test_the_folder_has_a_picture_of_each_image_and_a_page(tmp_path):
    checkpoint = load_checkpoint()
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    odd = tmp_path / "a <b> 'c'\N{SNOWMAN}.png"
    odd.write_bytes(Path(PHOTOS[0]).read_bytes())
    paths, folder = [PHOTOS[1], str(bad), str(odd)], tmp_path / "out"
    loading = Loading(checkpoint.preprocessing, batch_size=2)
    found = list(explained(paths, checkpoint.model, loading, checkpoint.class_names, folder, top_k=3))
    expected = list(classify(paths, checkpoint.model, loading, top_k=3))
    assert [one if isinstance(one, tuple) else one.indices for one in found][0::2] == [
        one.indices for one in expected[0::2]
    ]
    assert isinstance(found[1][1], ImageError)
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(picture) as shown:
            assert shown.size == (4 * 234 + 10, 280)
    page = (folder / "index.html").read_text()
    assert re.findall('src="([^"]+)"', page) == [picture.name for picture in pictures]
    assert "<b>" not in page
    assert "&lt;b&gt;" in page

    list(explained([PHOTOS[0]], checkpoint.model, loading, checkpoint.class_names, folder))
    assert len(list(folder.iterdir())) == 2  # a picture and the page: those before are gone


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    checkpoint = load_checkpoint()
    (tmp_path / "thesis.tex").write_text("x")
    loading, names = Loading(checkpoint.preprocessing), checkpoint.class_names
    with pytest.raises(DataError, match=r"holds thesis\.tex"):
        list(explained(PHOTOS[:1], checkpoint.model, loading, names, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_net_that_gives_nan_is_told(tmp_path):
    checkpoint = load_checkpoint()
    with torch.no_grad():
        checkpoint.model.fc.weight[0, 0] = float("nan")
    loading, names = Loading(checkpoint.preprocessing), checkpoint.class_names
    [(path, error)] = explained(PHOTOS[:1], checkpoint.model, loading, names, tmp_path / "out")
    assert path == PHOTOS[0]
    assert "NaN" in str(error)


def test_the_page_needs_no_network():
    assert "http" not in index_page([("a.png", "000001-a.png")])


def test_maps_of_mistakes_show_the_truth_and_the_prediction(tmp_path):
    checkpoint = load_checkpoint()
    names = checkpoint.class_names
    mistakes = [Mistake(k, PHOTOS[k], 3, 1, 0.5) for k in range(2)]
    samples = Samples(PHOTOS[:2], [3, 3], names)
    sheet = mistake_maps(mistakes, samples, checkpoint.model, checkpoint.preprocessing)
    assert sheet.size == (3 * 234 + 10, 2 * 280)
    image = torch.stack([preprocess(path, checkpoint.preprocessing) for path in PHOTOS[:2]])
    chosen = activation_maps_of(checkpoint.model, image, chosen=torch.tensor([[3, 1], [3, 1]]))
    with torch.inference_mode():
        logits = checkpoint.model(image)
    for maps, row in zip(chosen, logits, strict=True):
        assert maps.indices == [3, 1]
        assert maps.logits == pytest.approx([float(row[3]), float(row[1])], rel=1e-5)
    gone = Samples([str(tmp_path / "gone.png")], [3], names)
    with pytest.raises(ImageError):
        mistake_maps(mistakes[:1], gone, checkpoint.model, checkpoint.preprocessing)
