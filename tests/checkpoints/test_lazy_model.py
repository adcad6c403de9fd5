"""The module of a checkpoint is built when it is asked for, once, and is what counts from then on."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from resnet_tools import Checkpoint, load_checkpoint, save_model
from resnet_tools.checkpoints.weights import Weights, held_by
from resnet_tools.errors import CheckpointError


def is_built(checkpoint: Checkpoint) -> bool:
    return held_by(checkpoint)._module is not None


def test_it_is_built_once_over_the_same_memory():
    checkpoint = load_checkpoint()
    assert not is_built(checkpoint)
    first = checkpoint.arrays["conv1.weight"]
    model = checkpoint.model
    assert checkpoint.model is model
    assert not model.training
    assert model.conv1.weight.data_ptr() == first.ctypes.data
    with pytest.raises(AttributeError):
        checkpoint.model = model  # frozen


def test_what_was_trained_is_what_is_saved(tmp_path):
    checkpoint = load_checkpoint()
    with torch.no_grad():
        checkpoint.model.fc.bias.fill_(3)
    assert (checkpoint.arrays["fc.bias"] == 3).all()
    save_model(checkpoint, tmp_path / "net.pt")
    assert (load_checkpoint(tmp_path / "net.pt").arrays["fc.bias"] == 3).all()


@pytest.mark.parametrize("built", [False, True])
def test_copies_hold_the_same_net(built):
    checkpoint = load_checkpoint()
    if built:
        assert checkpoint.model is not None
    for copied in (pickle.loads(pickle.dumps(checkpoint)), copy.deepcopy(checkpoint), replace(checkpoint, format="x")):
        assert list(copied.arrays) == list(checkpoint.arrays)
        for key, array in checkpoint.arrays.items():
            np.testing.assert_array_equal(copied.arrays[key], array)
        assert copied.class_names == checkpoint.class_names
        assert copied.model.architecture == checkpoint.architecture


def test_weights_are_checked_before_anything_is_built():
    checkpoint = load_checkpoint()
    arrays = dict(checkpoint.arrays)
    for change, message in (
        ({"fc.bias": np.zeros(3, np.float32)}, r"fc\.bias has the shape \(3,\); expected \(10,\)"),
        ({"odd": np.zeros(1, np.float32)}, "the key odd is unknown"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Weights(checkpoint.architecture, arrays | change)
    del arrays["bn1.running_var"]
    with pytest.raises(CheckpointError, match=r"the key bn1\.running_var is missing"):
        Weights(checkpoint.architecture, arrays)
