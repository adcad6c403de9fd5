"""The same net in torchvision and timm: strict loads, equal logits, and reasons for what they do not have."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from resnet_tools.checkpoints.layouts import NAMES, check_installed, name_in, net_there, state_for
from resnet_tools.errors import ExportError
from resnet_tools.nets.architecture import Architecture
from resnet_tools.nets.catalog import architecture, named_architecture
from resnet_tools.nets.resnet import ResNet

IMAGES = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))


def random_net(net: Architecture) -> ResNet:
    """With statistics as training leaves them, so that a wrong one shows."""
    torch.manual_seed(0)
    model = ResNet(net).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "running_mean", "bias")) or "bn" in name:
            tensor.copy_(torch.rand(tensor.shape) + (0.5 if name.endswith(("var", "weight")) else -0.5))
    return model


@pytest.mark.parametrize(
    ("layout", "ours"), [(layout, ours) for layout, names in NAMES.items() for ours in names], ids=str
)
def test_every_named_net_has_the_parameters_of_that_name_there(layout, ours):
    net = named_architecture(ours)
    with torch.device("meta"):
        state = ResNet(net).state_dict()
        assert net_there(layout, net, state_for(layout, net, state)).state_dict().keys() == state.keys()


OLD = replace(architecture(18, num_classes=10), conv_bias=True, pooling="sum", bn_eps=1e-3)


@pytest.mark.parametrize(
    ("layout", "net"),
    [
        ("torchvision", replace(named_architecture("resnext-50-32x4d"), num_classes=5)),
        (
            "torchvision",
            replace(named_architecture("published-resnet-34"), num_classes=7),
        ),  # shortcuts without batch norm
        ("torchvision", OLD),
        ("torchvision", replace(OLD, shortcut_batch_norm=False)),
        ("timm", named_architecture("published-resnet-18")),
    ],
    ids=["resnext", "published-34", "old", "old and bare", "timm"],
)
def test_the_logits_there_are_ours(layout, net):
    model = random_net(net)
    there = net_there(layout, net, state_for(layout, net, model.state_dict()))
    with torch.inference_mode():
        expected, found = model(IMAGES), there(IMAGES)
    assert found.shape == (2, net.num_classes)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_a_shortcut_without_batch_norm_gets_one_that_is_exactly_the_identity():
    net = named_architecture("published-resnet-18")
    state = state_for("torchvision", net, random_net(net).state_dict())
    norm = torch.nn.BatchNorm2d(128).eval()
    norm.load_state_dict({k[22:]: v for k, v in state.items() if k.startswith("layer2.0.downsample.1.")})
    images = torch.randn(2, 128, 14, 14) * 100
    with torch.inference_mode():
        assert torch.equal(norm(images), images)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (architecture(50, net_type="preresnet"), "its blocks compute in pre-activation order"),
        (named_architecture("published-resnet-50"), "its blocks compute in bn-after-addition order"),
        (architecture(20, dataset="cifar10"), "its stem is the 3 x 3 convolution for CIFAR"),
        (architecture(18, shortcut_type="A"), "its shortcuts are of type A"),
        (architecture(34, shortcut_type="C"), "its shortcuts are of type C"),
        (replace(architecture(18), stem_width=32), r"no net there has basic blocks \[2, 2, 2, 2\] .* stem of width 32"),
        (architecture(200), "no net there has bottleneck blocks"),
    ],
)
def test_what_torchvision_does_not_have_is_refused_with_the_reason(net, reason):
    with pytest.raises(ExportError, match=f"torchvision cannot express this net: .*{reason}.*; write"):
        state_for("torchvision", net, {})


def test_timm_has_a_net_that_torchvision_lacks():
    assert name_in("timm", architecture(200)) == "resnet200"


def test_weights_that_do_not_fit_are_an_error():
    net = architecture(18)
    with torch.device("meta"):
        state = ResNet(net).state_dict()
    del state["conv1.weight"]
    with pytest.raises(ExportError, match="torchvision's resnet18 does not load these weights"):
        net_there("torchvision", net, state)


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ExportError, match=r"--layout timm needs timm: pip install 'resnet_tools\[timm\]'"):
        check_installed("timm")
