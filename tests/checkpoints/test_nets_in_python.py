"""A net that a program holds -> a file: trained, compiled, wrapped, with another classifier; and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnet_tools import build_resnet, load_checkpoint, save_checkpoint
from resnet_tools.checkpoints.nets_in_python import checkpoint_of
from resnet_tools.data.transforms import CIFAR10, IMAGENET
from resnet_tools.errors import CheckpointError, ResnetToolsError
from resnet_tools.nets.resnet import fold_batch_norm
from tests.support.small_nets import small_net

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".PT"])
def test_a_net_is_saved_with_its_names_and_the_preprocessing_of_its_kind(tmp_path, ending):
    net, path = small_net(2).train(), tmp_path / f"net{ending}"
    save_checkpoint(net, path, class_names=("dark", "light"))
    loaded = load_checkpoint(path)
    assert net.training
    assert (loaded.class_names, loaded.preprocessing) == (["dark", "light"], CIFAR10)
    assert torch.equal(loaded.model(IMAGES), net.eval()(IMAGES))


def test_wrappers_are_taken_off_and_a_new_classifier_counts(tmp_path):
    net = small_net()
    net.fc = nn.Linear(net.fc.in_features, 7)
    averaged = torch.optim.swa_utils.AveragedModel(net)
    for model in (net, nn.DataParallel(net), torch.compile(net), averaged, torch.compile(averaged), net.double()):
        found = checkpoint_of(model, class_names=list("abcdefg"))
        assert found.num_classes == 7
        assert found.model(IMAGES) is not None
        assert found.model is not net
    net.fc = nn.Identity()
    assert checkpoint_of(net).num_classes == 0


def test_a_checkpoint_keeps_what_is_not_given_anew(tmp_path):
    demo = load_checkpoint("demo")
    save_checkpoint(demo, tmp_path / "net.pt")
    assert load_checkpoint(tmp_path / "net.pt").class_names == demo.class_names
    other = [name.upper() for name in demo.class_names]
    save_checkpoint(demo, tmp_path / "net.pt", other, IMAGENET)
    assert load_checkpoint(tmp_path / "net.pt").class_names == other


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        (nn.Linear(2, 2), {}, "Linear is no net of this package"),
        (None, {}, "NoneType is no net"),
        (small_net(), {"class_names": ["a"]}, "1 class names are given; expected 10"),
        (small_net(), {"class_names": "abcdefghij"}, "1 class names are given"),
        (small_net(), {"class_names": range(10)}, "expected 10 texts"),
        (fold_batch_norm(small_net().eval()), {}, "not as it was built"),
        (build_resnet(depth=8, dataset="cifar10", in_channels=1), {"preprocessing": IMAGENET}, "for_channels(1) fits"),
        (small_net(), {"path": "net.onnx"}, "'.onnx' is unknown; expected .pt or .safetensors"),
        (small_net(), {"path": "nowhere/net.pt"}, "cannot be written"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_the_reason(model, options, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as refused:
        save_checkpoint(model, **({"path": "net.pt"} | options))
    assert expected in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_net_is_loaded_onto_a_device():
    assert load_checkpoint("demo", device="cpu").model.conv1.weight.device.type == "cpu"
    assert load_checkpoint("demo", device=torch.device("cpu")).num_classes == 10
    with pytest.raises(ResnetToolsError, match="device"):
        load_checkpoint("demo", device="cuda:99")
