"""Where the golden data lies: the copies in tests/data, and the whole of it beside the repository when it is there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from resnet_tools.metrics import ErrorCounts, counts_of_ranks, ranks_of

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the whole golden data is not beside the repository")


def error_counts(logits: Tensor, targets: Tensor, loss: float = 0.0) -> ErrorCounts:
    """logits (N, K), or (N, 10, K) for ten crops, whose raw outputs the original sums; targets (N,); loss: the mean."""
    logits = logits.sum(1) if logits.ndim == 3 else logits
    return counts_of_ranks(ranks_of(logits, targets), logits.shape[1], loss)


@dataclass(frozen=True)
class ModelCase:
    """One network that the original program wrote, with what it computed."""

    name: str
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.t7"

    @property
    def description(self) -> dict[str, Any]:
        return json.loads((self.folder / f"{self.name}.json").read_text())

    def array(self, what: str) -> np.ndarray:
        return np.load(self.folder / f"{self.name}.{what}.npy")

    def input(self) -> np.ndarray:
        return np.load(self.folder / self.description["input"])["x"]


def model_cases(folder: Path) -> list[ModelCase]:
    return [ModelCase(path.stem, folder) for path in sorted(folder.glob("*.t7"))]


def other_model_cases() -> list[ModelCase]:
    """The cases of the whole golden data that are not copied into tests/data."""
    copied = {case.name for case in model_cases(DATA / "models")}
    return [case for case in model_cases(GOLDEN / "models") if case.name not in copied]
