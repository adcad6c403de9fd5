"""Images in any form -> labels, features and maps, as the commands give them; nothing of the caller's changes."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools import activation_maps, classify, extract_features, load_checkpoint
from resnet_tools.__main__ import run
from resnet_tools.errors import FeatureError, ImageError, ResnetToolsError
from resnet_tools.jobs.images import given_images
from tests.support.demo_images import PHOTOS

BAG = PHOTOS[1]


def forms_of(path: str) -> list:
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image)
    with open(path, "rb") as file:
        content = file.read()
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return [path, content, io.BytesIO(content), image, pixels, pixels / 255, tensor, tensor.float() / 255]


def test_every_form_of_an_image_gives_the_same_labels():
    alone = classify(BAG)
    assert alone[0].name == BAG
    assert alone[0].label == "bag"
    together = classify(forms_of(BAG))
    assert [image.name for image in together] == [BAG, *(f"image {k}" for k in range(1, 8))]
    for image in together:
        assert image.indices == alone[0].indices
        assert image.probabilities == pytest.approx(alone[0].probabilities, abs=1e-6)


def test_a_batch_a_folder_a_pattern_and_a_generator_are_several_images(tmp_path):
    batch = np.random.default_rng(0).integers(0, 255, (3, 40, 50, 3), np.uint8)
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
    expected = [classify(image)[0].indices for image in batch]
    for given in (batch, tensor, list(batch), (image for image in batch)):
        assert [image.indices for image in classify(given)] == expected
    folder = BAG.rpartition("/")[0]
    assert [image.name for image in classify(folder)] == PHOTOS
    assert [image.name for image in classify(f"{folder}/*.png")] == PHOTOS


def test_the_labels_are_those_of_the_command(capsys):
    assert run(["classify", "demo", *PHOTOS, "--json", "--top-k", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = classify(PHOTOS, top_k=3)
    assert found.to_dict()["images"] == lines
    rows = found.rows()
    assert len(rows) == 3 * len(PHOTOS)
    assert list(rows[0]) == ["name", "rank", "index", "label", "probability", "error"]
    assert [row["label"] for row in rows if row["rank"] == 1] == [image.label for image in found]


@pytest.mark.parametrize("bad", [b"no image", "nowhere.png", np.zeros((2, 2, 7)), np.full((4, 4), 300.0), 3, object()])
def test_a_bad_image_alone_is_an_error_and_among_others_an_entry(bad):
    for job in (classify, extract_features, activation_maps):
        with pytest.raises(ImageError):
            job(bad)
    found = classify([BAG, bad])
    assert [image.error is None for image in found] == [True, False]
    assert found[1].label is found[1].probability is None
    assert found.rows()[-1]["error"] == found[1].error
    features = extract_features([BAG, bad])
    assert features.names == [BAG]
    assert list(features.errors) == [found[1].name]
    with pytest.raises(ImageError):
        extract_features([BAG, bad], on_error="fail")
    assert not extract_features([BAG, bad], on_error="zero").features[1].any()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_k": 0}, "top_k is 0; expected a whole number, 1 or more"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"batch_size": "8"}, "batch_size is '8'; expected a whole number from 1 to 65536"),
        ({"workers": -1}, "workers is -1"),
        ({"precision": "double"}, "expected 'single', 'tf32', 'bf16', 'half'"),
        ({"device": "gpu"}, "device 'gpu' is unknown"),
        ({"crop_px": 300}, "does not fit"),
        ({"class_names": ["a", "b"]}, "the net has 10 classes, but 2 class names are given"),
        ({"weights": "ema"}, "ema"),
        ({"checkpoint": "nowhere.t7"}, "cannot be read"),
        ({"checkpoint": 3}, "int is no net of this package"),
    ],
)
def test_a_value_that_does_not_exist_is_refused_by_name(options, expected):
    with pytest.raises(ResnetToolsError, match=expected.replace("(", r"\(")):
        classify(BAG, **options)


def test_no_images_is_an_error():
    for nothing in ([], {}, np.zeros((0, 4, 4, 3)), iter(())):
        with pytest.raises(ImageError, match="expected a path"):
            classify(nothing)


def test_a_loaded_net_and_the_settings_of_torch_stay_as_they_are(capfd):
    checkpoint = load_checkpoint("demo")
    checkpoint.model.train()
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with warnings.catch_warnings(record=True) as told:
            found = classify(BAG, checkpoint, class_names=[f"c{k}" for k in range(10)])
            extract_features(BAG, checkpoint)
            activation_maps(BAG, checkpoint)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert found[0].label == "c1"
    assert checkpoint.model.training
    after = checkpoint.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not told
    assert capfd.readouterr() == ("", "")


def test_progress_is_told_of_every_image():
    for job in (classify, extract_features):
        seen: list[tuple[int, int]] = []
        job([*PHOTOS, b"bad"], progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[-1] == (11, 11)
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize("ending", [".npy", ".pt", ".t7", ".csv"])
def test_features_in_a_file_are_those_in_memory_and_the_call_is_resumable(tmp_path, ending):
    held = extract_features(PHOTOS, batch_size=4)
    output = tmp_path / f"photos{ending}"
    stored = extract_features([*PHOTOS, "nowhere.png"], output=output, batch_size=4)
    assert stored.files == [output]
    assert stored.names == held.names == PHOTOS
    assert list(stored.errors) == ["nowhere.png"]
    assert np.allclose(stored.features, held.features, rtol=1e-6)
    assert held.rows()[0]["name"] == PHOTOS[0]
    assert len(held.rows()[0]) == 1 + held.features.shape[1]
    json.dumps(held.to_dict())


def test_features_of_images_in_memory_can_be_written_and_shards_need_files(tmp_path):
    stored = extract_features([np.zeros((30, 30, 3), np.uint8), b"bad"], output=tmp_path / "two.npz")
    assert (stored.names, len(stored)) == (["image 0"], 1)
    with pytest.raises(FeatureError, match="some are in memory"):
        extract_features([np.zeros((9, 9))], output=tmp_path / "x.pt", shard_size=1)
    with pytest.raises(FeatureError, match="none of the 1 images"):
        extract_features([b"bad"], output=tmp_path / "x.pt")
    with pytest.raises(FeatureError, match="layer 'layer9' is not in demo"):
        extract_features(BAG, layer="layer9")
    assert not list(tmp_path.glob("x*"))


def test_the_maps_add_up_to_the_logits():
    found = activation_maps(BAG, top_k=4)
    means = found.maps.mean((1, 2)) + np.array(found.biases)
    assert means == pytest.approx(found.logits, abs=1e-4)
    with pytest.raises(ImageError, match="expected one"):
        activation_maps(PHOTOS)


def test_a_folder_of_one_bad_image_is_several_images(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert classify(tmp_path)[0].error
    assert given_images(str(tmp_path / "bad.png")).single
