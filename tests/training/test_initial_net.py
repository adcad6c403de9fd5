"""The net that a training starts from."""

from __future__ import annotations

import pytest
import torch

from resnet_tools.data.transforms import CIFAR10
from resnet_tools.errors import TrainingError
from resnet_tools.training.initial_net import NetOptions, initial_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_new_net_has_the_classes_of_the_data():
    made = initial_checkpoint(NetOptions(depth=8), "cifar10", list("abc"), seed=1)
    assert (made.architecture.num_classes, made.class_names, made.preprocessing) == (3, ["a", "b", "c"], CIFAR10)
    same, other = (initial_checkpoint(NetOptions(depth=8), "cifar10", list("abc"), seed=seed) for seed in (1, 2))
    assert torch.equal(made.model.fc.weight, same.model.fc.weight)
    assert not torch.equal(made.model.fc.weight, other.model.fc.weight)


def test_the_number_of_classes_is_checked():
    with pytest.raises(TrainingError, match="--n-classes is 5, but train/ has 3 classes"):
        initial_checkpoint(NetOptions(depth=8, n_classes=5), "cifar10", list("abc"), 0)
    options = NetOptions(depth=8, n_classes=5, allow_unused_outputs=True)
    with pytest.warns(UserWarning, match="2 outputs stand for no class"):
        padded = initial_checkpoint(options, "cifar10", list("abc"), 0)
    assert padded.class_names == ["a", "b", "c", "class 4", "class 5"]
    with pytest.raises(TrainingError, match="--n-classes is 2"):
        initial_checkpoint(NetOptions(depth=8, n_classes=2, allow_unused_outputs=True), "cifar10", list("abc"), 0)


def test_a_net_with_other_classes_needs_a_new_classifier():
    with pytest.raises(TrainingError, match="--reset-classifier"):
        initial_checkpoint(NetOptions(retrain="demo"), "imagenet", [f"thing {k}" for k in range(10)], 0)
    made = initial_checkpoint(NetOptions(retrain="demo", reset_classifier=True), "imagenet", ["cat", "dog"], 0)
    assert (made.class_names, made.model.fc.out_features, made.architecture.num_classes) == (["cat", "dog"], 2, 2)


def test_a_net_of_the_other_stem_is_refused():
    with pytest.raises(TrainingError, match="imagenet stem"):
        initial_checkpoint(NetOptions(retrain="demo", reset_classifier=True), "cifar10", list("abc"), 0)
