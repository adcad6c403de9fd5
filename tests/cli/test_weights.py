"""`--weights` of the commands, and nets without a classifier on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from resnet_tools import load_checkpoint
from resnet_tools.checkpoints.model_files import DEMO_PATH

BAG = DEMO_PATH.parent / "images" / "bag.png"


def resnet(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resnet_tools", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_classify_says_which_weights_it_takes_and_takes_others(tmp_path: Path):
    state = load_checkpoint().model.state_dict()
    rolled = {key: tensor.roll(3, 0) if key.startswith("fc.") else tensor for key, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": rolled}, tmp_path / "net.pth")
    done = resnet("classify", tmp_path / "net.pth", BAG, "--top-k", 1)
    assert done.stdout.split("\t")[-1].strip() == "class 2"
    assert done.stderr.count("\n") == 1
    assert "the weights at state_dict are used; --weights chooses others: state_dict_ema" in done.stderr
    done = resnet("classify", tmp_path / "net.pth", BAG, "--top-k", 1, "--weights", "state_dict_ema")
    assert done.stdout.split("\t")[-1].strip() == "class 5"
    assert done.stderr == ""


def test_a_net_without_classifier_gives_features_and_no_classes(tmp_path: Path):
    state = load_checkpoint().model.state_dict()
    torch.save({key: t for key, t in state.items() if not key.startswith("fc.")}, tmp_path / "net.pth")
    for model, output in ((tmp_path / "net.pth", "a.npy"), ("demo", "b.npy")):
        done = resnet("extract-features", model, BAG, "--output", tmp_path / output, "--quiet")
        assert done.returncode == 0
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    for arguments in (("classify", tmp_path / "net.pth", BAG), ("evaluate", tmp_path / "net.pth", "--data", tmp_path)):
        done = resnet(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: {tmp_path}/net.pth: the net has no usable classifier")
