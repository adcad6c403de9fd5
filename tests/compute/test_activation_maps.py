"""The mean of a map is the logit less the bias, for every form of net; that is what makes the maps exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.compute.activation_maps import activation_maps_of
from resnet_tools.compute.inference import prepare
from resnet_tools.data.transforms import preprocess
from resnet_tools.errors import CheckpointError
from resnet_tools.nets.resnet import ResNet, build_resnet
from tests.support.demo_images import PHOTOS
from tests.support.golden import DATA, model_cases
from tests.support.small_nets import CPU

CASES = [case for case in model_cases(DATA / "models") if "first_upload" not in case.name]


def assert_exact(model: ResNet, images: torch.Tensor, top_k: int = 3) -> None:
    with torch.inference_mode():
        logits = model(images)
    found = activation_maps_of(model, images, top_k)
    assert len(found) == len(images)
    for maps, row in zip(found, logits, strict=True):
        best = row.sort(descending=True, stable=True)
        assert maps.indices == best.indices[:top_k].tolist()
        assert maps.logits == pytest.approx(best.values[:top_k].tolist(), rel=1e-5, abs=1e-5)
        assert maps.probabilities == pytest.approx(row.softmax(0)[best.indices[:top_k]].tolist(), rel=1e-4)
        means = maps.maps.mean((1, 2), dtype=np.float64)
        scale = float(row.abs().max())
        assert np.abs(means - (np.array(maps.logits) - np.array(maps.biases))).max() <= 1e-4 * scale


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_mean_of_a_map_is_the_logit_less_the_bias(case):
    assert_exact(load_checkpoint(case.path).model, torch.from_numpy(case.input()))


@pytest.mark.parametrize("folded", [False, True])
def test_maps_of_a_photo_are_those_of_the_folded_net(folded):
    checkpoint = load_checkpoint()
    images = torch.stack([preprocess(path, checkpoint.preprocessing) for path in PHOTOS[:2]])
    model = prepare(checkpoint.model, CPU) if folded else checkpoint.model
    assert_exact(model, images)
    assert activation_maps_of(model, images, 99)[0].maps.shape == (10, 7, 7)


def test_the_map_points_at_what_decides():
    """A net whose one class sums the brightness: the map is bright where the image is."""
    torch.manual_seed(0)
    model = build_resnet(depth=8, dataset="cifar10", num_classes=1).eval()
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, :16, :16] = 3
    plain, lit = (activation_maps_of(model, batch)[0].maps[0] for batch in (torch.zeros_like(images), images))
    change = np.abs(lit - plain)
    assert change[:4, :4].mean() > 5 * change[5:, 5:].mean()


def test_a_net_without_a_classifier_is_refused():
    model = build_resnet(depth=8, dataset="cifar10")
    model.fc = torch.nn.Identity()
    with pytest.raises(CheckpointError, match="this net has none"):
        activation_maps_of(model, torch.zeros(1, 3, 32, 32))
    with pytest.raises(CheckpointError, match=r"an \.onnx does not give"):
        activation_maps_of(torch.nn.Identity(), torch.zeros(1, 3, 32, 32))
