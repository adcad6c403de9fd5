"""Two nets on the same images: what is compared, and what counts as the same."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from resnet_tools import load_checkpoint, save_model
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.checkpoints.onnx_export import write_onnx
from resnet_tools.checkpoints.saving import description
from resnet_tools.checkpoints.verify import (
    ONNX_TOLERANCE,
    PHOTOS,
    TOLERANCE,
    Comparison,
    compare,
    compare_files,
    fixed_images,
    tolerance_for,
)
from resnet_tools.data.transforms import CIFAR10, IMAGENET
from resnet_tools.errors import ExportError, ImageError
from tests.support.golden import DATA

BAG = str(PHOTOS / "bag.png")


def test_the_fixed_images_are_the_same_every_time():
    first, second = fixed_images(IMAGENET), fixed_images(IMAGENET)
    assert [tuple(batch.shape) for batch in first] == [(12, 3, 48, 48), (1, 3, 48, 72)]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_fixed_images_are_as_small_as_the_nets_own():
    assert [tuple(batch.shape) for batch in fixed_images(CIFAR10)] == [(12, 3, 32, 32), (1, 3, 32, 48)]


def test_the_difference_is_measured_against_the_largest_logit():
    expected = torch.tensor([[1.0, -4.0], [2.0, 3.0]])
    found = torch.tensor([[1.0, -4.5], [3.5, 3.0]])
    comparison = compare(expected, found)
    assert comparison == Comparison(difference=1.5, largest_logit=4.0, images=2, same_class=1)
    assert comparison.relative == 0.375
    assert comparison.within(0.375)
    assert not comparison.within(0.374)
    assert str(comparison) == (
        "largest difference 1.5, which is 0.375 of the largest logit 4; the same best class for 1 of 2 images"
    )


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_never_the_same(wrong):
    logits = torch.tensor([[wrong, 1.0]])
    assert not compare(logits, logits).within(1e9)
    assert not compare(torch.ones(1, 2), logits).within(1e9)


def test_zeros_are_the_same_as_zeros_only():
    zeros = torch.zeros(1, 2)
    assert compare(zeros, zeros).within(0)
    assert not compare(zeros, zeros + 1e-9).within(1e9)


def test_nets_with_other_classes_cannot_be_compared():
    with pytest.raises(ExportError, match="the nets have 10 and 3 classes"):
        compare(torch.zeros(1, 10), torch.zeros(1, 3))


def test_files_of_every_format_are_compared(tmp_path):
    checkpoint = load_checkpoint()
    save_model(checkpoint, tmp_path / "net.pt")
    torch.save(checkpoint.model.state_dict(), tmp_path / "net.pth")
    write_onnx(checkpoint.model, tmp_path / "net.onnx", description(checkpoint))
    assert compare_files(DEMO_PATH, tmp_path / "net.pt").difference == 0
    assert compare_files(tmp_path / "net.pth", DEMO_PATH).difference == 0
    comparison = compare_files(tmp_path / "net.onnx", DEMO_PATH)
    assert 0 < comparison.relative < 1e-5
    assert (comparison.images, comparison.same_class) == (13, 13)


def test_one_changed_weight_is_found(tmp_path):
    checkpoint = load_checkpoint()
    with torch.no_grad():
        checkpoint.model.get_submodule("layer4.1.conv2").weight[0, 0, 0, 0] += 0.01
    save_model(checkpoint, tmp_path / "net.pt")
    assert not compare_files(DEMO_PATH, tmp_path / "net.pt").within(TOLERANCE)


def test_images_of_the_user_are_prepared_as_the_first_net_says(tmp_path):
    save_model(replace(load_checkpoint(), preprocessing=CIFAR10), tmp_path / "net.pt")
    both = [compare_files(*paths, [BAG]) for paths in ((DEMO_PATH, tmp_path / "net.pt"),) * 2]
    assert both[0] == both[1]
    assert (both[0].images, both[0].difference) == (1, 0)
    other = compare_files(tmp_path / "net.pt", DEMO_PATH, [BAG])
    assert other.largest_logit != both[0].largest_logit


def test_an_image_that_cannot_be_read_is_an_error():
    with pytest.raises(ImageError, match=r"text\.jpg"):
        compare_files(DEMO_PATH, DEMO_PATH, [str(DATA / "images" / "text.jpg")])


def test_onnxruntime_may_round_more(tmp_path):
    (tmp_path / "b.onnx").write_bytes(b"\x08\x07")
    assert tolerance_for(tmp_path / "a.t7", tmp_path / "b.pt") == TOLERANCE
    assert tolerance_for(tmp_path / "a.t7", tmp_path / "b.onnx") == ONNX_TOLERANCE


def test_logits_that_are_no_numbers_have_no_best_class_and_are_named():
    expected, found = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[float("nan"), 0.0], [0.0, 1.0]])
    comparison = compare(expected, found, ("a.pt", "b.pt"), ["x.png", "y.png"])
    assert not comparison.within(1)
    assert str(comparison) == (
        "largest difference nan, which is nan of the largest logit 1; the same best class for 1 of 2 images; "
        "b.pt gives NaN or infinite numbers for 1 of 2 images: x.png"
    )
    both = compare(found, found)
    assert not both.within(1)
    assert both.same_class == 1


def test_weights_chooses_the_net_of_the_first_file(tmp_path):
    state = load_checkpoint().model.state_dict()
    averaged = {key: tensor.roll(3, 0) if key.startswith("fc.") else tensor for key, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "both.pth")
    torch.save(averaged, tmp_path / "averaged.pth")
    files = [str(tmp_path / "both.pth"), str(tmp_path / "averaged.pth")]
    assert run(["verify", *files]) == 1
    assert run(["verify", *files, "--weights", "state_dict_ema"]) == 0
