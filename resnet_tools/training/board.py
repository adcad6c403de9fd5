"""Figures of each epoch -> TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from resnet_tools.errors import TrainingError
from resnet_tools.history.history import Epoch

MISSING = "--tensorboard needs tensorboard: pip install 'resnet_tools[tensorboard]'"


def require_tensorboard() -> None:
    """Raises: TrainingError if tensorboard is not installed; it is not imported, which takes seconds."""
    if find_spec("tensorboard") is None:
        raise TrainingError(MISSING)


def tensorboard_writer(folder: Path) -> Callable[[Epoch], None]:
    """A function that writes an epoch's figures to `folder`. Raises: TrainingError if tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(MISSING) from error
    writer: Any = SummaryWriter(str(folder))

    def write(epoch: Epoch) -> None:
        for name, value in asdict(epoch).items():
            if name != "epoch":
                writer.add_scalar(name, value, epoch.epoch)
        writer.flush()

    return write
