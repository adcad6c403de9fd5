"""Runs of `resnet train` on a few images of CIFAR-10, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from resnet_tools.__main__ import run
from resnet_tools.history.history import read_history
from tests.support.golden import DATA

CIFAR = ["--data", str(DATA / "train" / "cifar10.t7"), "--dataset", "cifar10", "--quiet"]
SMALL = [*CIFAR, "--depth", "8", "--batch-size", "16", "--lr", "0.01"]


def train(*arguments: object) -> int:
    return run(["train", *map(str, arguments)])


def started(*arguments: object, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """`before`: a command that runs this one."""
    command = [*before, sys.executable, "-u", "-m", "resnet_tools", "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same_weights(a: Path, b: Path) -> bool:
    ours, theirs = weights_of(a), weights_of(b)
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def figures_of(folder: Path) -> list[tuple[float, ...]]:
    """The history without what depends on the clock."""
    return [
        (e.epoch, e.lr, e.train_loss, e.train_top1, e.train_top5, e.val_loss, e.val_top1, e.val_top5)
        for e in read_history(folder / "history.csv")
    ]
