"""The names of a run's files, in the folder of `--save`; the original's names with another ending.

model_E.pt       the net after epoch E, for `load_checkpoint`: weights, classes, architecture, preprocessing, recipe
optimState_E.pt  what else the next epoch needs, see training/saving.py
model_best.pt    a copy of the model_E.pt with the lowest top-1 error
history.csv      the figures of each epoch, see history/history.py
latest.pt        {"epoch", "modelFile", "optimFile"}: where the run stands
latest.t7        the same in a run of the original

A run that stopped within an epoch has model_E.B.pt and optimState_E.B.pt, after B batches of epoch E.
"""

from __future__ import annotations

import re
from pathlib import Path

from resnet_tools.checkpoints.run_folder import BEST as BEST
from resnet_tools.checkpoints.run_folder import LATEST as LATEST
from resnet_tools.checkpoints.run_folder import LUA_LATEST as LUA_LATEST

DEFAULT_FOLDER = "checkpoints"
NOT_WHOLE = "0.0"  # stands for the moment of a file that was not written to its end
_MOMENT = r"\d+(?:\.\d+)?"  # E or E.B
_REMOVABLE = re.compile(rf"(?:model|optimState)_({_MOMENT})\.pt|\.(?:model|optimState)_[\d.]+\.partial\.pt")


def model_name(moment: str) -> str:
    """moment: `E` after epoch E, `E.B` after B batches of epoch E."""
    return f"model_{moment}.pt"


def optim_state_name(moment: str) -> str:
    return f"optimState_{moment}.pt"


def has_run(folder: Path) -> bool:
    return (folder / LATEST).is_file()


def files_of_moments(folder: Path) -> list[tuple[str, Path]]:
    """Moment and path of each model and optimizer state; NOT_WHOLE for what a killed process left of one."""
    found = [(_REMOVABLE.fullmatch(path.name), path) for path in folder.iterdir()]
    return [(match[1] or NOT_WHOLE, path) for match, path in found if match]
