"""Where a run begins: with a new net, with one from a file, or where an earlier run stopped, ours or the original's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.data.samples import Samples
from resnet_tools.errors import TrainingError
from resnet_tools.metrics import ErrorCounts
from resnet_tools.nets.catalog import describe
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind
from resnet_tools.training import lua_run
from resnet_tools.training.optimizer import set_momentum
from resnet_tools.training.recipe import RecipeName, changed, default_recipe, recipe
from resnet_tools.training.saving import LATEST, RunState, has_run, load_run, load_state, read_state, restore
from resnet_tools.training.setup import NetOptions, check_stem, digest_of, kept_classes, starting_net
from resnet_tools.training.step import Stepper


@dataclass(frozen=True)
class Start:
    """The net and its description, the state of the run, what puts the rest of it into a stepper, and what to print."""

    checkpoint: Checkpoint
    state: RunState
    restore: Callable[[Stepper], None]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wishes:
    """What the user asks of the recipe: its name and changed fields; None for what was not said."""

    recipe: RecipeName | None
    changes: Mapping[str, Any]
    seed: int | None


def new_start(
    net: NetOptions, wishes: Wishes, dataset: str, train: Samples, first_epoch: int, optim_state: str | None
) -> Start:
    """A run from its beginning, `first_epoch` from 1; `optim_state` is a file whose momentum it starts with."""
    name: RecipeName = wishes.recipe or default_recipe(fine_tuning=net.reset_classifier)
    made, seed = recipe(name, dataset, **wishes.changes), wishes.seed or 0
    checkpoint = starting_net(net, dataset, train.class_names, seed)
    momentum = _momentum(Path(optim_state), net.retrain) if optim_state else {}
    state = RunState(made, dataset, seed, digest_of(train), epoch=first_epoch - 1)
    begin = _begin_with(momentum)
    return Start(checkpoint, state, begin, _first_lines(net, checkpoint))


def dataset_of(resume: str | None) -> str:
    """The data set of the run in a folder; `imagenet`, the default, if there is none that says it."""
    if resume is None or not has_run(Path(resume)):
        return "imagenet"
    return load_state(Path(resume))[0].dataset


def resumed_start(folder: Path, wishes: Wishes, dataset: str | None, train: Samples) -> Start:
    """A run that goes on from the latest.pt, or from the original's latest.t7, in `folder`.

    Raises: TrainingError if there is none, or if what is asked for contradicts it.
    """
    if has_run(folder):
        return _resumed(folder, wishes, dataset, train)
    if not (folder / lua_run.LATEST).is_file():
        raise TrainingError(
            f"{folder}: holds neither latest.pt nor the original's latest.t7; give the --save folder of the run"
        )
    latest = lua_run.read_latest(folder)
    checkpoint = load_checkpoint(latest.model_file)
    check_stem(checkpoint, dataset or "imagenet", str(latest.model_file))
    class_names = kept_classes(
        checkpoint, train.class_names, NetOptions(retrain=str(latest.model_file), padded_classes=True)
    )
    momentum = lua_run.lua_momentum(latest.optim_file, latest.model_file)
    made = recipe(wishes.recipe or "original", dataset or "imagenet", **wishes.changes)
    state = RunState(made, dataset or "imagenet", wishes.seed or 0, digest_of(train), epoch=latest.epoch)
    named = Checkpoint(checkpoint.model, checkpoint.architecture, class_names, checkpoint.preprocessing, "t7")
    return Start(named, state, _begin_with(momentum), _resume_lines(folder / lua_run.LATEST, latest.model_file))


def _resumed(folder: Path, wishes: Wishes, dataset: str | None, train: Samples) -> Start:
    checkpoint, state, content = load_run(folder)
    _check_same(folder, "recipe", state.recipe.name, wishes.recipe)
    _check_same(folder, "dataset", state.dataset, dataset)
    _check_same(folder, "manual-seed", state.seed, wishes.seed)
    if state.batches_done:
        for name in ("batch_size", "accumulate"):
            _check_same(folder, name.replace("_", "-"), getattr(state.recipe, name), wishes.changes.get(name))
    if checkpoint.class_names is not None and list(checkpoint.class_names[: len(train.class_names)]) != list(
        train.class_names
    ):
        raise TrainingError(f"{folder}: the run has other classes than the data; give the data that it began with")
    state.recipe = changed(state.recipe, **wishes.changes)
    digest = digest_of(train)
    if digest != state.data and state.batches_done:
        warnings.warn(f"the training images changed: epoch {state.epoch + 1} begins anew", stacklevel=3)
        state.batches_done, state.counts, state.seconds = 0, ErrorCounts(), 0.0
    state.data = digest
    lines = _resume_lines(folder / LATEST, folder / f"model_{state.suffix}.pt")
    return Start(checkpoint, state, lambda stepper: restore(stepper, content), lines)


def _begin_with(momentum: Mapping[str, Any]) -> Callable[[Stepper], None]:
    return lambda stepper: set_momentum(stepper.model, stepper.optimizer, momentum)


def _first_lines(net: NetOptions, checkpoint: Checkpoint) -> tuple[str, ...]:
    """What the original prints of the net. Source: models/init.lua of facebook/fb.resnet.torch."""
    if net.retrain is None:
        return (f"=> Creating model: {describe(checkpoint.architecture)}",)
    lines = (f"Loading model from file: {net.retrain}",)
    outputs = checkpoint.architecture.num_classes
    return (*lines, f" => Replacing classifier with {outputs}-way classifier") if net.reset_classifier else lines


def _resume_lines(latest: Path, model_file: Path) -> tuple[str, ...]:
    return f"=> Loading checkpoint {latest}", f"=> Resuming model from {model_file}"


def _check_same(folder: Path, name: str, earlier: object, wished: object) -> None:
    if wished is not None and wished != earlier:
        raise TrainingError(
            f"the run in {folder} has --{name} {earlier}, now it is {wished}; leave the option out to go on"
        )


def _momentum(path: Path, retrain: str | None) -> Mapping[str, Any]:
    """What --optim-state names: ours, or the original's, whose order the net of --retrain gives."""
    with path.open("rb") as file:
        kind = content_kind(file.read(HEAD_BYTES), path.stat().st_size)
    if kind == "zip":
        momentum: Mapping[str, Any] = read_state(path).get("momentum", {})
        return momentum
    if retrain is None:
        raise TrainingError(f"--optim-state {path}: give the .t7 net that it belongs to with --retrain")
    return lua_run.lua_momentum(path, Path(retrain))
