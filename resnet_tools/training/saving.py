"""A run <-> its files, whose names are in `run_files`.

An optimizer state holds all that the next epoch needs besides the net: `RunState`, momentum, loss scaler and random
state; and the weights themselves if the model file holds their average, or float32 of float64. `latest.pt` is written
last, so that a stop at any moment leaves a whole run.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

from resnet_tools.checkpoints.checkpoint import FORMAT as CHECKPOINT_FORMAT
from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.checkpoints.run_folder import net_of_run
from resnet_tools.checkpoints.saving import save_model
from resnet_tools.checkpoints.stored import load_value
from resnet_tools.checkpoints.tensor_files import torch_load, torch_save
from resnet_tools.checkpoints.torch_files import read_torch
from resnet_tools.errors import CheckpointError, ResnetToolsError, TrainingError
from resnet_tools.history.history import HISTORY, Epoch, write_history
from resnet_tools.metrics import ErrorCounts
from resnet_tools.nets.resnet import ResNet
from resnet_tools.training.lua_run import files_beside
from resnet_tools.training.optimizer import momentum_of, set_momentum
from resnet_tools.training.recipe import ORIGINAL_EPOCHS, Recipe
from resnet_tools.training.run_files import BEST, LATEST, files_of_moments, has_run, model_name, optim_state_name
from resnet_tools.training.run_state import RunState
from resnet_tools.training.step import TrainStep
from resnet_tools.writing import written_whole

FORMAT, VERSION = "resnet_tools.training", 1


def save_run(
    folder: Path, checkpoint: Checkpoint, train_step: TrainStep, state: RunState, *, best: bool, keep: int
) -> None:
    """Write the files of this moment, then remove those of unfinished epochs and, unless `keep` is 0, those of all but
    the last `keep` epochs.

    Raises: TrainingError if they cannot be written; the earlier files stay.
    """
    model_file, optim_file = folder / model_name(state.moment), folder / optim_state_name(state.moment)
    errors = _errors_so_far(state)
    try:
        save_model(checkpoint, model_file, extra={"recipe": state.recipe.to_dict(), "epoch": state.epoch, **errors})
        torch_save(_optim_state_content(train_step, state), optim_file)
        if best:
            _copy_whole(model_file, folder / BEST)
        write_history(state.history, folder / HISTORY)
        content = {"epoch": state.epoch, "modelFile": model_file.name, "optimFile": optim_file.name}
        torch_save(content, folder / LATEST)
    except (CheckpointError, OSError) as error:
        raise TrainingError(_advice(folder, error)) from error
    remove_old(folder, state, keep)  # from here on latest.pt names the new files


def remove_old(folder: Path, state: RunState, keep: int) -> None:
    """Remove the files of unfinished epochs before this moment and, unless `keep` is 0, those of all but the last
    `keep` epochs. A run that is resumed does it too, as one that was killed may not have come to it."""
    for moment, old in files_of_moments(folder):
        unfinished = "." in moment and moment != state.moment
        if unfinished or (keep and "." not in moment and int(moment) <= state.epoch - keep):
            old.unlink(missing_ok=True)


def _errors_so_far(state: RunState) -> dict[str, Any]:
    """What a model file says of its training beside the recipe and the epoch, for `resnet inspect`."""
    values: dict[str, Any] = {}
    if state.history and state.history[-1].epoch == state.epoch:
        values["val_top1_error"] = state.history[-1].val_top1
    if state.best_epoch:
        values |= {"best_epoch": state.best_epoch, "best_top1_error": state.best_top1_error}
    return values


def recipe_of(path: Path) -> Recipe | None:
    """The recipe with which the net in a file, or in the folder of a run, was trained, if the file is one of ours that
    says so. What is wrong with a file is said by whoever loads the net in it.
    """
    try:
        content = read_torch(net_of_run(path) if path.is_dir() else path).content
        if not isinstance(content, Mapping) or content.get("format") != CHECKPOINT_FORMAT:
            return None
        return Recipe.from_dict(load_value(content.get("recipe")))
    except (ResnetToolsError, OSError):
        return None


def keep_best(earlier: Path, folder: Path, epoch: int) -> None:
    """Copy the best net so far, that of the epoch, to the other folder in which the run is resumed; or to its own, if
    somebody removed it there."""
    sources = [path for path in (earlier / BEST, earlier / model_name(str(epoch))) if path.is_file()]
    if sources and not (folder / BEST).exists():
        _copy_whole(sources[0], folder / BEST)


def _copy_whole(source: Path, target: Path) -> None:
    with written_whole(target) as partial:
        shutil.copyfile(source, partial)


def load_run(folder: Path) -> tuple[Checkpoint, RunState, dict[str, Any]]:
    """The net, the state of the run and what `restore_train_step` needs, from the files that `latest.pt` names.

    Raises: CheckpointError, TrainingError naming the file that is missing, damaged or of another kind.
    """
    model_file, _ = _latest_files(folder)
    try:
        checkpoint = load_checkpoint(model_file)
    except ResnetToolsError as error:
        raise CheckpointError(f"{error}{_way_on(model_file)}") from error
    return checkpoint, *load_state(folder)


def load_state(folder: Path) -> tuple[RunState, dict[str, Any]]:
    """The same without the net."""
    _, optim_file = _latest_files(folder)
    content = read_optim_state(optim_file)
    return _run_state(content, optim_file), content


def _latest_files(folder: Path) -> tuple[Path, Path]:
    latest = _content(folder / LATEST)
    model, optim_state = latest.get("modelFile"), latest.get("optimFile")
    if not isinstance(model, str) or not isinstance(optim_state, str):
        raise TrainingError(
            f"{folder / LATEST}: names no modelFile and optimFile; expected what `resnet train` writes"
            f"{_way_on(folder / LATEST)}"
        )
    return files_beside(folder / LATEST, model, optim_state)


def read_optim_state(optim_file: Path) -> dict[str, Any]:
    """The content of an `optimState_E.pt`. Raises: CheckpointError, TrainingError if it is another kind of file."""
    content = _content(optim_file)
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise TrainingError(f"{optim_file}: not an optimizer state of `resnet train` (format version {VERSION})")
    return content


def restore_train_step(train_step: TrainStep, content: Mapping[str, Any]) -> None:
    """Continue with the momentum, loss scaler, random state and, if saved, exact weights of an earlier run.

    Raises: TrainingError if they do not fit the net.
    """
    random, scaler = content.get("random"), content.get("scaler")
    try:
        if train_step.average is not None:
            train_step.average.model.load_state_dict(content.get("average") or train_step.model.state_dict())
            train_step.average.updates = int(content.get("average_updates", 0))
        if content.get("weights"):
            train_step.model.load_state_dict(content["weights"])
        if train_step.scaler.is_enabled() and scaler:
            train_step.scaler.load_state_dict(scaler)
        if isinstance(random, torch.Tensor):
            torch.set_rng_state(random)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise TrainingError(f"the optimizer state does not fit the net: {error}") from error
    set_momentum(train_step.model, train_step.optimizer, content.get("momentum", {}))


def _optim_state_content(train_step: TrainStep, state: RunState) -> dict[str, Any]:
    average = train_step.average
    exact = train_step.config.precision == "double"  # a model file is read as float32
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
        "best": [state.best_epoch, state.best_top1_error, state.best_top5_error],
        "history": [list(astuple(epoch)) for epoch in state.history],
        "skipped": dict(state.skipped),
        "momentum": momentum_of(train_step.model, train_step.optimizer),
        "scaler": train_step.scaler.state_dict(),
        "weights": _on_cpu(train_step.model) if average is not None or exact else None,
        "average": _on_cpu(average.model) if average is not None and exact else None,
        "average_updates": average.updates if average is not None else 0,
        "random": torch.get_rng_state(),
    }


def _on_cpu(model: ResNet) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def _run_state(content: Mapping[str, Any], path: Path) -> RunState:
    try:
        best_epoch, best_top1_error, best_top5_error = content["best"]
        if content["dataset"] not in ORIGINAL_EPOCHS or min(content["epoch"], content["batches_done"]) < 0:
            raise ValueError("invalid data set, epoch or batch")
        images, top1_wrong, top5_wrong, loss_sum = content["counts"]
        return RunState(
            Recipe.from_dict(content["recipe"]),
            str(content["dataset"]),
            int(content["seed"]),
            str(content["data"]),
            int(content["epoch"]),
            int(content["batches_done"]),
            ErrorCounts(int(images), int(top1_wrong), int(top5_wrong), float(loss_sum)),
            float(content["seconds"]),
            int(best_epoch),
            float(best_top1_error),
            float(best_top5_error),
            [Epoch(int(epoch), *map(float, figures)) for epoch, *figures in content["history"]],
            {str(name): str(reason) for name, reason in dict(content["skipped"]).items()},
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TrainingError(
            f"{path}: the optimizer state is incomplete or damaged: {error!r}{_way_on(path)}"
        ) from error


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TrainingError(f"{path}: no such file; expected the --save folder of `resnet train`")
    try:
        content = torch_load(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}{_way_on(path)}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise TrainingError(f"{path}: holds a {kind}; expected a table of `resnet train`{_way_on(path)}")
    return content


def _way_on(damaged: Path) -> str:
    """How to train on without a file of the run that is damaged: from the files of its last epoch that has others."""
    folder = damaged.parent
    moments = [moment for moment, _ in files_of_moments(folder)]
    epochs = {int(moment) for moment in moments if "." not in moment and len(moment) < 10}
    whole = [epoch for epoch in epochs if (path := folder / model_name(str(epoch))).is_file() and path != damaged]
    if not whole:
        return ""
    epoch = max(whole)
    optim_file = folder / optim_state_name(str(epoch))
    momentum = f" --optim-state {optim_file}" if optim_file.is_file() and optim_file != damaged else ""
    return (
        f". To train on after epoch {epoch}, start a run in another folder with --retrain "
        f"{folder / model_name(str(epoch))}{momentum} --epoch-number {epoch + 1}"
    )


def _advice(folder: Path, error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, CheckpointError) else error
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    if full or "enough space" in text or "No space" in text or isinstance(cause, RuntimeError):
        free = shutil.disk_usage(folder).free / 1e6
        text += f". {folder} has {free:.0f} MB left: make room, or give --keep 1"
    if not has_run(folder):
        return f"{text}. Nothing of this run has been saved yet"
    return f"{text}. The checkpoint that {folder / LATEST} names is complete; --resume {folder} continues from it"
