"""The files of a run, named as the original names its own, in the folder of `--save`.

model_E.pt      the net after epoch E, for `load_checkpoint`: weights, classes, architecture, preprocessing, recipe
optimState_E.pt what else the next epoch needs: `RunState`, momentum, loss scaler, random state; with a weight average,
                which is then what model_E.pt holds, also the weights themselves
history.csv     a row of figures for each epoch
latest.pt       {"epoch", "modelFile", "optimFile"}: where the run stands. Written last, so that a stop at any moment
                leaves a whole run
model_best.pt   a copy of the model_E.pt with the lowest top-1 error
Stopped within an epoch: model_E.S.pt and optimState_E.S.pt, after S batches of epoch E.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_model
from resnet_tools.checkpoints.tensor_files import torch_load, torch_save
from resnet_tools.errors import CheckpointError, TrainingError
from resnet_tools.history.history import Epoch, write_history
from resnet_tools.metrics import ErrorCounts
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.lua_run import files_beside
from resnet_tools.training.optimizer import momentum_of, set_momentum
from resnet_tools.training.recipe import ORIGINAL_EPOCHS, Recipe
from resnet_tools.training.step import Stepper
from resnet_tools.writing import written_whole

FORMAT, VERSION = "resnet_tools.training", 1
LATEST, BEST, HISTORY = "latest.pt", "model_best.pt", "history.csv"
LEFTOVER = "0.0"  # stands for the number of a file that is not whole
INFINITY = float("inf")


@dataclass
class RunState:
    """Where a run stands: plain values only.

    `epoch`: the last finished one. `batches_done`, `counts`, `seconds`: of the epoch that follows it. `data`: what the
    samples are, as a digest.
    """

    recipe: Recipe
    dataset: str
    seed: int
    data: str
    epoch: int = 0
    batches_done: int = 0
    counts: ErrorCounts = field(default_factory=ErrorCounts)
    seconds: float = 0.0
    best_epoch: int = 0
    best_top1: float = INFINITY
    best_top5: float = INFINITY
    history: list[Epoch] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """Of the names of its files."""
        return f"{self.epoch + 1}.{self.batches_done}" if self.batches_done else str(self.epoch)


def save_run(folder: Path, checkpoint: Checkpoint, stepper: Stepper, state: RunState, *, best: bool, keep: int) -> None:
    """Write the files of this moment, then remove those of unfinished epochs, and with `keep` all but the last epochs.

    Raises: TrainingError if they cannot be written; the earlier ones stay.
    """
    model_file, optim_file = folder / f"model_{state.suffix}.pt", folder / f"optimState_{state.suffix}.pt"
    try:
        save_model(checkpoint, model_file, extra={"recipe": state.recipe.to_dict(), "epoch": state.epoch})
        torch_save(_state_content(stepper, state), optim_file)
        if best:
            _copy_whole(model_file, folder / BEST)
        write_history(state.history, folder / HISTORY)
        content = {"epoch": state.epoch, "modelFile": model_file.name, "optimFile": optim_file.name}
        torch_save(content, folder / LATEST)
    except (CheckpointError, OSError) as error:
        raise TrainingError(_advice(folder, error)) from error
    for number, old in _earlier_files(folder):
        unfinished = "." in number and number != state.suffix
        if unfinished or (keep and "." not in number and int(number) <= state.epoch - keep):
            old.unlink(missing_ok=True)


def keep_best(earlier: Path, folder: Path) -> None:
    """A run that goes on in another folder brings its best net with it."""
    if (earlier / BEST).is_file() and not (folder / BEST).exists():
        _copy_whole(earlier / BEST, folder / BEST)


def _copy_whole(source: Path, target: Path) -> None:
    with written_whole(target) as partial:
        shutil.copyfile(source, partial)


def has_run(folder: Path) -> bool:
    return (folder / LATEST).is_file()


def load_run(folder: Path) -> tuple[Checkpoint, RunState, dict[str, Any]]:
    """The net, the state of the run, and what `restore` needs, as `latest.pt` names them.

    Raises: CheckpointError, TrainingError naming the file that is missing or of another kind.
    """
    model_file, _ = _latest_files(folder)
    return load_checkpoint(model_file), *load_state(folder)


def load_state(folder: Path) -> tuple[RunState, dict[str, Any]]:
    """The same without the net."""
    _, optim_file = _latest_files(folder)
    content = read_state(optim_file)
    return _run_state(content, optim_file), content


def _latest_files(folder: Path) -> tuple[Path, Path]:
    latest = _content(folder / LATEST)
    model_name, optim_name = latest.get("modelFile"), latest.get("optimFile")
    if not isinstance(model_name, str) or not isinstance(optim_name, str):
        raise TrainingError(
            f"{folder / LATEST}: names no modelFile and optimFile; it is not of a run of `resnet train`"
        )
    return files_beside(folder / LATEST, model_name, optim_name)


def read_state(optim_file: Path) -> dict[str, Any]:
    """The content of an `optimState_E.pt`. Raises: CheckpointError, TrainingError if it is another kind of file."""
    content = _content(optim_file)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise TrainingError(f"{optim_file}: not an optimizer state of `resnet train` (format {VERSION})")
    return content


def restore(stepper: Stepper, content: Mapping[str, Any]) -> None:
    """Put the momentum, the loss scaler, the weights behind an average and the random state of a run in place."""
    random, scaler = content.get("random"), content.get("scaler")
    try:
        if stepper.average is not None:
            stepper.average.model.load_state_dict(content.get("average") or stepper.model.state_dict())
            stepper.average.updates = int(content.get("average_updates", 0))
        if content.get("weights"):
            stepper.model.load_state_dict(content["weights"])
        if stepper.scaler.is_enabled() and scaler:
            stepper.scaler.load_state_dict(scaler)
        if isinstance(random, torch.Tensor):
            torch.set_rng_state(random)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise TrainingError(f"the optimizer state does not fit the net: {error}") from error
    set_momentum(stepper.model, stepper.optimizer, content.get("momentum", {}))


def _state_content(stepper: Stepper, state: RunState) -> dict[str, Any]:
    average = stepper.average
    exact = stepper.machine.precision == "double"  # a model file is read as float32
    return {
        "format": FORMAT,
        "version": VERSION,
        "recipe": state.recipe.to_dict(),
        "dataset": state.dataset,
        "seed": state.seed,
        "data": state.data,
        "epoch": state.epoch,
        "batches_done": state.batches_done,
        "counts": list(astuple(state.counts)),
        "seconds": state.seconds,
        "best": [state.best_epoch, state.best_top1, state.best_top5],
        "history": [list(astuple(epoch)) for epoch in state.history],
        "skipped": dict(state.skipped),
        "momentum": momentum_of(stepper.model, stepper.optimizer),
        "scaler": stepper.scaler.state_dict(),
        "weights": _on_cpu(stepper.model) if average is not None or exact else None,
        "average": _on_cpu(average.model) if average is not None and exact else None,
        "average_updates": average.updates if average is not None else 0,
        "random": torch.get_rng_state(),
    }


def _on_cpu(model: ResNet) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def _run_state(content: Mapping[str, Any], path: Path) -> RunState:
    try:
        best_epoch, best_top1, best_top5 = content["best"]
        if content["dataset"] not in ORIGINAL_EPOCHS or min(content["epoch"], content["batches_done"]) < 0:
            raise ValueError("a data set or a number that is not possible")
        images, top1_errors, top5_errors, loss_sum = content["counts"]
        return RunState(
            Recipe.from_dict(content["recipe"]),
            str(content["dataset"]),
            int(content["seed"]),
            str(content["data"]),
            int(content["epoch"]),
            int(content["batches_done"]),
            ErrorCounts(int(images), int(top1_errors), int(top5_errors), float(loss_sum)),
            float(content["seconds"]),
            int(best_epoch),
            float(best_top1),
            float(best_top5),
            [Epoch(int(epoch), *map(float, figures)) for epoch, *figures in content["history"]],
            {str(name): str(reason) for name, reason in dict(content["skipped"]).items()},
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TrainingError(f"{path}: not a whole optimizer state of `resnet train`: {error!r}") from error


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TrainingError(f"{path}: no such file; expected a folder that `resnet train --save` wrote")
    try:
        content = torch_load(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: holds a {type(content).__name__}; expected a table of `resnet train`")
    return content


def _earlier_files(folder: Path) -> list[tuple[str, Path]]:
    """Number and path of what save_run may remove: files of epochs, and what a kill left of one that was not whole."""
    pattern = re.compile(r"(?:model|optimState)_(\d+(?:\.\d+)?)\.pt|\.(?:model|optimState)_[\d.]+\.partial\.pt")
    found = [(pattern.fullmatch(path.name), path) for path in folder.iterdir()]
    return [(match[1] or LEFTOVER, path) for match, path in found if match]


def _advice(folder: Path, error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, CheckpointError) else error
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    if full or "enough space" in text or "No space" in text or isinstance(cause, RuntimeError):
        free = shutil.disk_usage(folder).free / 1e6
        text += f". {folder} has {free:.0f} MB left: remove files of early epochs, or give --keep 1"
    return f"{text}. The run stands as {folder / LATEST} says; --resume {folder} goes on from there"
