"""Architecture -> nn.Module: shapes, names, initial values, torchvision's nets, folding."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from torch import distributed, nn
from torchvision.models.feature_extraction import create_feature_extractor

from resnet_tools.errors import ResnetToolsError
from resnet_tools.nets.catalog import (
    PUBLISHED,
    architecture,
    architecture_name,
    architecture_names,
    describe,
    named_architecture,
)
from resnet_tools.nets.resnet import ResNet, build_resnet, fold_batch_norm
from tests.support.strategies import architectures

TORCHVISION = {
    "resnet-18": "resnet18",
    "resnet-34": "resnet34",
    "resnet-50": "resnet50",
    "resnet-101": "resnet101",
    "resnet-152": "resnet152",
    "resnext-50-32x4d": "resnext50_32x4d",
    "wide-resnet-50-2": "wide_resnet50_2",
}


def with_lively_batch_norms(model: ResNet) -> ResNet:
    """Running statistics and scales that differ from their initial values, as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight.data, 0.5), (module.running_var, 0.5), (module.running_mean, -0.5)):
                tensor.uniform_(low, low + 1, generator=generator)
    return model.eval()


@pytest.mark.parametrize(("ours", "theirs"), TORCHVISION.items())
def test_state_dicts_load_strictly_into_torchvision_and_compute_the_same(ours, theirs):
    model = with_lively_batch_norms(build_resnet(ours))
    other = getattr(torchvision.models, theirs)()
    other.load_state_dict(model.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model(images), other.eval()(images), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(architectures())
def test_logits_are_the_classifier_of_the_features(net):
    model = build_resnet(net).eval()
    with torch.inference_mode():
        images = torch.ones(2, net.in_channels, 40, 33)
        features = model.forward_features(images)
        assert features.shape == (2, net.feature_length)
        assert torch.equal(model(images), model.fc(features))


@settings(deadline=None, max_examples=30)
@given(architectures())
def test_folded_batch_norms_change_nothing(net):
    model = with_lively_batch_norms(build_resnet(net))
    folded = fold_batch_norm(copy.deepcopy(model))
    images = torch.randn(2, net.in_channels, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = model(images), folded(images)
    assert (found - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())
    assert len(batch_norms(folded)) < len(batch_norms(model))


def batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", architecture_names())
def test_every_name_says_the_depth_of_its_net(name):
    net = named_architecture(name)
    assert str(net.depth) == next(part for part in name.split("-") if part.isdigit())
    assert f"-{net.depth} (" in describe(net)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Counted by torchvision for its nets; CIFAR nets as in table 6 of arXiv:1512.03385 (0.27 M, 0.85 M).
        ("resnet-18", 11_689_512),
        ("resnet-50", 25_557_032),
        ("resnet-152", 60_192_808),
        ("cifar10-resnet-20", 269_722),
        ("cifar10-resnet-56", 853_018),
        ("published-resnet-18", 11_687_720),  # less the batch norms of three shortcuts: 2 (128 + 256 + 512) = 1792
    ],
)
def test_parameter_counts(name, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build_resnet(name).parameters()) == parameters


def test_the_published_nets_have_their_names():
    assert [architecture_name(p.architecture) for p in PUBLISHED] == [
        "published-resnet-18",
        "published-resnet-34",
        "published-resnet-50",
        "resnet-101",
        "resnet-152",
        "published-resnet-200",
    ]


def test_new_nets_are_initialised_as_the_original_does():
    torch.manual_seed(0)
    model = build_resnet(depth=50, num_classes=200)
    conv = model.get_submodule("layer3.0.conv2").weight  # 3 x 3, 256 outputs: N(0, sqrt(2 / (9 * 256)))
    assert conv.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    assert conv.mean().item() == pytest.approx(0, abs=1e-4)
    bound = 1 / math.sqrt(2048)
    assert 0.99 * bound < model.fc.weight.abs().max().item() <= bound
    assert model.fc.bias.eq(0).all()
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in batch_norms(model))
    assert model.conv1.bias is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 17}, "depth 17 is not one of 18, 34, 50, 101, 152, 200"),
        ({"depth": 19, "dataset": "cifar10"}, r"depth 19 is not 6 n \+ 2"),
        ({"depth": 50, "shortcut_type": "A"}, "shortcut type A doubles the channels"),
        ({"net_type": "vgg"}, "net type 'vgg' is unknown"),
        ({"dataset": "mnist"}, "data set 'mnist' is unknown"),
        ({"net": "resnet-18", "depth": 50}, "depth cannot be combined with a net"),
        ({"depth": 18, "shortcut_type": "D"}, "shortcut_type is 'D', which is impossible"),
        ({"depth": 18, "classes": 0}, "at least one class"),
        ({"depth": 18, "classes": 2.5}, "classes is 2.5, which is impossible"),
        ({"depth": 18, "num_classes": 5, "classes": 5}, "num_classes and classes mean the same"),
        ({"depth": 18, "in_channels": 4}, "images of 4 channels; expected 3, or 1 for gray"),
    ],
)
def test_nets_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ResnetToolsError, match=message):
        build_resnet(**options)


def test_classes_is_the_older_name_of_num_classes():
    assert build_resnet("cifar10-resnet-20", classes=7).architecture.num_classes == 7
    assert build_resnet("cifar10-resnet-20", num_classes=7).architecture.num_classes == 7


def test_a_net_of_gray_images_takes_one_channel():
    model = build_resnet("cifar10-resnet-20", in_channels=1).eval()
    assert model.conv1.weight.shape == (16, 1, 3, 3)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert "1 input channel" in describe(model.architecture)


@pytest.mark.parametrize("shortcut_type", ["A", "B"])
def test_a_stage_of_the_same_width_halves_the_sides_on_both_paths(shortcut_type):
    net = replace(architecture(8, dataset="cifar10"), widths=(16, 16, 16), inner_widths=(16, 16, 16))
    model = build_resnet(replace(net, shortcut_type=shortcut_type)).eval()
    assert model.layer2(torch.zeros(1, 16, 32, 32)).shape == (1, 16, 16, 16)


def test_an_unknown_name_lists_the_names():
    with pytest.raises(
        ResnetToolsError, match=r"'resnet-51' names no architecture; the names are resnet-18, resnet-34"
    ):
        build_resnet("resnet-51")


def test_options_are_the_originals():
    assert architecture() == architecture(
        34, dataset="imagenet", net_type="resnet", shortcut_type="B", num_classes=1000
    )
    assert architecture(20, dataset="cifar100").shortcut_type == "A"
    assert architecture(20, dataset="cifar100").num_classes == 100


def test_any_input_size_gives_one_row_an_image():
    model = build_resnet(depth=18, num_classes=7).eval()
    with torch.inference_mode():
        for height, width in ((320, 320), (64, 96), (33, 47)):
            assert model(torch.zeros(2, 3, height, width)).shape == (2, 7)


def test_features_of_any_layer_can_be_had_by_name():
    extractor = create_feature_extractor(build_resnet("preresnet-18").eval(), ["layer2", "norm", "avgpool"])
    features = extractor(torch.zeros(1, 3, 64, 64))
    assert {name: tuple(f.shape) for name, f in features.items()} == {
        "layer2": (1, 128, 8, 8),
        "norm": (1, 512, 2, 2),
        "avgpool": (1, 512, 1, 1),
    }


def test_nets_learn():
    torch.manual_seed(0)
    for order in ("resnet", "preresnet"):
        model = build_resnet(depth=8, dataset="cifar10", net_type=order)
        images, targets = torch.randn(8, 3, 16, 16), torch.arange(8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        assert all(p.grad is not None for p in model.parameters())


# They are plain modules.

PLAIN = [architecture(8, dataset="cifar10"), architecture(8, dataset="cifar10", net_type="preresnet")]
INPUT = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(INPUT)


@pytest.mark.parametrize("net", PLAIN)
def test_a_net_can_be_copied_and_pickled(net):
    model = build_resnet(net).eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(other), logits(model))
        assert other.architecture == net
        assert all(p is not q for p, q in zip(other.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("net", PLAIN)
def test_the_state_of_a_net_can_be_pickled(net):
    model, other = build_resnet(net).eval(), build_resnet(net).eval()
    other.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())), strict=True)
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("net", PLAIN)
def test_a_net_compiles_as_one_graph(net):
    model = build_resnet(net).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(logits(compiled), logits(model))


@pytest.mark.filterwarnings("ignore:`torch.jit")  # it is deprecated from torch 2.9 on
@pytest.mark.parametrize("net", PLAIN)
def test_a_traced_net_takes_other_batches_and_sizes(net):
    model = build_resnet(net).eval()
    traced = torch.jit.trace(model, torch.zeros(1, 3, 40, 40))
    assert torch.equal(logits(traced), logits(model))


def test_a_net_trains_in_distributed_data_parallel(tmp_path):
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = build_resnet(PLAIN[0])
        alone = copy.deepcopy(model)
        parallel = nn.parallel.DistributedDataParallel(model)
        for net in (parallel, alone):
            nn.functional.cross_entropy(net(INPUT), torch.tensor([1, 2])).backward()
        for (name, one), other in zip(model.named_parameters(), alone.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad), name
    finally:
        distributed.destroy_process_group()
