"""Nets of gray images: one input channel, in every format and command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from resnet_tools import load_checkpoint, save_model
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.checkpoints.convert import ENDINGS, Target, convert
from resnet_tools.checkpoints.onnx_files import OnnxNet
from resnet_tools.data.transforms import CIFAR10, IMAGENET, preprocess
from resnet_tools.errors import CheckpointError
from resnet_tools.nets.resnet import build_resnet
from tests.support.demo_images import PHOTOS

CIFAR_GRAY = build_resnet(depth=8, dataset="cifar10", in_channels=1).architecture


@pytest.fixture(params=["cifar", "imagenet"])
def gray(request, tmp_path):
    torch.manual_seed(0)
    imagenet = request.param == "imagenet"
    model = build_resnet(depth=18, num_classes=10, in_channels=1) if imagenet else build_resnet(CIFAR_GRAY)
    preprocessing = (IMAGENET if imagenet else CIFAR10).for_channels(1)
    save_model(Checkpoint(model.eval(), model.architecture, None, preprocessing, "pt"), tmp_path / "gray.pt")
    return tmp_path / "gray.pt"


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_holds_a_gray_net(gray, ending):
    if ending == ".pth" and load_checkpoint(gray).architecture.stem == "cifar":
        pytest.skip("torchvision has no such stem")
    target = gray.with_name(f"out{ending}")
    convert(gray, Target(target))
    if ending == ".onnx":
        assert OnnxNet(target).preprocessing == load_checkpoint(gray).preprocessing
        return
    found = load_checkpoint(target)
    assert found.architecture.in_channels == found.preprocessing.channels == 1
    images = torch.randn(2, 1, 40, 40)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), load_checkpoint(gray).model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_the_file_for_other_libraries_loads_into_their_gray_net(tmp_path, layout):
    model = build_resnet(depth=18, num_classes=10, in_channels=1).eval()
    gray = IMAGENET.for_channels(1)
    save_model(Checkpoint(model, model.architecture, None, gray, "pt"), tmp_path / "gray.pt")
    convert(tmp_path / "gray.pt", Target(tmp_path / "gray.pth", layout=layout))
    there = torchvision.models.resnet18(num_classes=10)
    there.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    there.load_state_dict(torch.load(tmp_path / "gray.pth", weights_only=True))
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(there.eval()(images), model(images), rtol=1e-4, atol=1e-4)


def test_the_commands_feed_a_gray_net_with_gray(gray, capsys):
    net = load_checkpoint(gray)
    with torch.inference_mode():
        expected = net.model(preprocess(PHOTOS[0], net.preprocessing)[None]).softmax(1)[0]
    assert run(["classify", str(gray), str(PHOTOS[0]), "--json", "--top-k", "1"]) == 0
    [best] = json.loads(capsys.readouterr().out)["classes"]
    assert best["index"] == int(expected.argmax())
    assert best["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
    output = gray.with_name("rows.npy")
    assert run(["extract-features", str(gray), str(PHOTOS[0]), "--output", str(output), "--ten-crop"]) == 0
    assert np.load(output).shape == (1, net.architecture.feature_length)
    assert run(["verify", str(gray), str(gray)]) == 0


def test_a_gray_file_and_its_copies_in_color_are_the_same_image(gray, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    Image.fromarray(np.repeat(pixels[:, :, None], 3, 2)).save(tmp_path / "three.png")
    preprocessing = load_checkpoint(gray).preprocessing
    assert torch.equal(
        preprocess(tmp_path / "one.png", preprocessing), preprocess(tmp_path / "three.png", preprocessing)
    )


def test_a_gray_net_is_evaluated(gray, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (10, 200, 30)).save(tmp_path / "data" / name / "x.png")
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{letter}\n" for letter in "abcdefghij"))
    arguments = ["--data", str(tmp_path / "data"), "--class-names", str(names), "--json", "--quiet"]
    assert run(["evaluate", str(gray), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2


def test_a_description_with_colors_for_a_gray_net_is_refused(tmp_path):
    model = build_resnet(CIFAR_GRAY).eval()
    save_model(Checkpoint(model, CIFAR_GRAY, None, CIFAR10, "pt"), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="its preprocessing gives images of 3 channels; the net takes 1"):
        load_checkpoint(tmp_path / "net.pt")


def test_the_input_of_a_foreign_state_dict_is_read_from_its_stem(tmp_path):
    model = torchvision.models.resnet18(num_classes=3)
    model.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    torch.save(model.state_dict(), tmp_path / "gray.pth")
    found = load_checkpoint(tmp_path / "gray.pth")
    assert (found.architecture.in_channels, found.preprocessing) == (1, IMAGENET.for_channels(1))
