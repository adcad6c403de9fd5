"""Where a run starts: from a new net, from one in a file, or where an earlier run of ours or the original's stopped."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.data.samples import Samples
from resnet_tools.errors import TrainingError
from resnet_tools.history import lines
from resnet_tools.metrics import ErrorCounts
from resnet_tools.nets.catalog import describe
from resnet_tools.text import counted, listed
from resnet_tools.torch7.sniff import HEAD_BYTES, content_kind
from resnet_tools.training import lua_run
from resnet_tools.training.arguments import given_anew
from resnet_tools.training.initial_net import NetOptions, check_stem, initial_checkpoint, kept_classes, padded
from resnet_tools.training.optimizer import set_momentum
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.recipe import (
    Recipe,
    RecipeName,
    changed,
    default_recipe_name,
    going_on,
    lr_factor,
    make_recipe,
)
from resnet_tools.training.run_files import LATEST, LUA_LATEST, has_run, model_name
from resnet_tools.training.run_samples import DEFAULT_DATASET
from resnet_tools.training.run_state import RunState
from resnet_tools.training.saving import (
    load_run,
    read_optim_state,
    recipe_of,
    restore_train_step,
)
from resnet_tools.training.step import TrainStep


@dataclass(frozen=True)
class Start:
    """The net with its class names and preprocessing, and the state of the run.

    `restore` puts the momentum and what else an earlier run left into a new train step. `lines`: what to print, in the
    words of the original. `origin`: why the recipe is this one. `anew`: values of a resumed recipe that were changed.
    `notes`: what else the user should know.
    """

    checkpoint: Checkpoint
    state: RunState
    restore: Callable[[TrainStep], None]
    lines: tuple[str, ...] = ()
    origin: str = ""
    anew: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_start(options: TrainOptions, dataset: str, train: Samples) -> Start:
    """Where the run starts, on the training set `train`.

    Raises: TrainingError if the options, the data and an earlier run contradict each other; CheckpointError, T7Error
    and the like for files that cannot be read.
    """
    if options.resume is None:
        return _new_run(options, dataset, train)
    folder = Path(options.resume)
    if has_run(folder):
        return _resumed_run(folder, options, dataset, train)
    if (folder / LUA_LATEST).is_file():
        return _resumed_lua_run(folder, options, dataset, train)
    raise TrainingError(
        f"{folder}: holds neither {LATEST} nor the original's {LUA_LATEST}; give the --save folder of the run"
    )


def _new_run(options: TrainOptions, dataset: str, train: Samples) -> Start:
    recipe, origin = _first_recipe(options, dataset)
    net = NetOptions(
        options.net_type,
        options.depth,
        options.shortcut_type,
        options.retrain,
        options.reset_classifier,
        options.n_classes,
        options.arch,
        options.stem,
        options.in_channels,
        options.weights,
        allow_unused_outputs=options.test_only or recipe.name == "original",
    )
    seed = options.manual_seed or 0
    checkpoint = initial_checkpoint(net, dataset, train.class_names, seed)
    is_from_cameras = recipe.name != "original" and dataset == DEFAULT_DATASET
    if is_from_cameras and not options.test_only and not origin:
        upright = replace(checkpoint.preprocessing, exif_orientation=True)
        checkpoint = replace(checkpoint, preprocessing=upright)
    momentum = _momentum_in(Path(options.optim_state), options.retrain) if options.optim_state else {}
    state = RunState(recipe, dataset, seed, digest_of(train), epoch=options.epoch_number - 1)
    return Start(checkpoint, state, _with_momentum(momentum), _new_run_lines(net, checkpoint), origin)


def _first_recipe(options: TrainOptions, dataset: str) -> tuple[Recipe, str]:
    """The recipe of a new run, and why it is this one if nobody asked for it.

    A net that one of our recipes made continues with it: the rates of `original` would undo what it has learned.
    """
    changes = options.recipe_changes
    if options.recipe is None and options.retrain and not options.reset_classifier:
        made = recipe_of(Path(options.retrain))
        if made is not None and made.name != "original":
            # From a later epoch on it is the rest of the same training, whose rates go on where they were.
            going = made if options.epoch_number > 1 else going_on(made, dataset)
            how = "as it was" if options.epoch_number > 1 else "at a low rate"
            return changed(going, **changes), f", which made {options.retrain}, continues {how}"
    name: RecipeName = options.recipe or default_recipe_name(fine_tuning=options.reset_classifier)
    return make_recipe(name, dataset, **changes), ""


def _resumed_run(folder: Path, options: TrainOptions, dataset: str, train: Samples) -> Start:
    checkpoint, state, content = load_run(folder)
    # What the run has computed so far would not be what these options say.
    _check_same(folder, "recipe", state.recipe.name, options.recipe)
    _check_same(folder, "dataset", state.dataset, dataset)
    _check_same(folder, "manual-seed", state.seed, options.manual_seed)
    if state.batches_done:  # the rest of the epoch is cut into batches as its beginning was
        _check_same(folder, "batch-size", state.recipe.batch_size, options.batch_size)
        _check_same(folder, "accumulate", state.recipe.accumulate, options.accumulate)
    _check_classes(folder, checkpoint, train.class_names)
    before, state.recipe = state.recipe, changed(state.recipe, **options.recipe_changes)
    lines_of_start = lines.resume_lines(folder / LATEST, folder / model_name(state.moment))

    # From another folder the same images have other names, under which they are met again.
    state.skipped = {k: v for k, v in state.skipped.items() if os.path.exists(k) or not os.path.dirname(k)}

    # The order of the samples is drawn by position: with other samples, half an epoch is half of something else.
    digest = digest_of(train)
    if digest != state.data and state.batches_done:
        warnings.warn(f"the training images have changed: epoch {state.epoch + 1} starts again", stacklevel=3)
        state.batches_done, state.counts, state.seconds = 0, ErrorCounts(), 0.0
    state.data = digest
    return Start(
        checkpoint,
        state,
        lambda train_step: restore_train_step(train_step, content),
        lines_of_start,
        anew=tuple(given_anew(before.to_dict(), options.recipe_changes)),
        notes=_notes_on_the_end(folder, before, state),
    )


def _notes_on_the_end(folder: Path, before: Recipe, state: RunState) -> tuple[str, ...]:
    """What there is to say if the run has come to its end, or had before it was given more epochs."""
    recipe, epoch = state.recipe, state.epoch
    if epoch >= recipe.epochs:
        more = recipe.epochs + max(1, recipe.epochs // 2)
        return (f"the run in {folder} is finished: {epoch} of {recipe.epochs} epochs; --n-epochs {more} adds more",)
    if state.stops_early:
        return (
            f"the run in {folder} has ended after epoch {epoch}, as {counted(recipe.early_stop, 'epoch')} brought no "
            "lower error; --early-stop 0 continues it",
        )
    if epoch < before.epochs:
        return ()
    last, first = (made.lr * lr_factor(made, done) for made, done in ((before, epoch - 1e-6), (recipe, epoch)))
    if math.isclose(last, first, rel_tol=1e-3):
        return ()
    end = ", and falls to 0 again" if recipe.lr_schedule == "cosine" else ""
    return (
        f"the learning rate was {0 if last < 1e-6 else last:.2g} when the run ended after epoch {epoch}; by the "
        f"{recipe.lr_schedule} schedule of {recipe.epochs} epochs it continues at {first:.2g}{end}",
    )


def _resumed_lua_run(folder: Path, options: TrainOptions, dataset: str, train: Samples) -> Start:
    latest = lua_run.read_latest(folder)
    checkpoint = load_checkpoint(latest.model_file)
    check_stem(checkpoint, dataset, str(latest.model_file))
    net = NetOptions(retrain=str(latest.model_file), allow_unused_outputs=True)
    class_names = kept_classes(checkpoint, train.class_names, net)
    momentum = lua_run.lua_momentum(latest.optim_file, latest.model_file)
    recipe = make_recipe(options.recipe or "original", dataset, **options.recipe_changes)
    state = RunState(recipe, dataset, options.manual_seed or 0, digest_of(train), epoch=latest.epoch)
    named = replace(checkpoint, class_names=class_names)
    lines_of_start = lines.resume_lines(folder / LUA_LATEST, latest.model_file)
    notes = _notes_on_the_end(folder, recipe, state)
    return Start(named, state, _with_momentum(momentum), lines_of_start, notes=notes)


def _with_momentum(momentum: Mapping[str, Any]) -> Callable[[TrainStep], None]:
    return lambda train_step: set_momentum(train_step.model, train_step.optimizer, momentum)


def _new_run_lines(net: NetOptions, checkpoint: Checkpoint) -> tuple[str, ...]:
    """What the original prints about the net. Source: models/init.lua of facebook/fb.resnet.torch."""
    if net.retrain is None:
        return (lines.creating_line(describe(checkpoint.architecture)),)
    loading = lines.loading_model_line(net.retrain)
    if not net.reset_classifier:
        return (loading,)
    return loading, lines.new_classifier_line(checkpoint.architecture.num_classes)


def _check_classes(folder: Path, checkpoint: Checkpoint, class_names: Sequence[str]) -> None:
    """Raises: TrainingError if the outputs would stand for other classes. Warns of classes that are gone."""
    known, found = list(checkpoint.class_names or class_names), list(class_names)
    if known[: len(found)] != found:
        raise TrainingError(f"{folder}: the run has other classes than --data; give the data that it was started with")
    if known not in (found, padded(found, len(known))):
        gone = known[len(found) :]
        warnings.warn(
            f"{folder}: the run has {counted(len(known), 'output')} and the data has only "
            f"{counted(len(found), 'class')}: {listed(gone)} {'is' if len(gone) == 1 else 'are'} not there",
            stacklevel=4,
        )


def _check_same(folder: Path, name: str, earlier: object, given: object) -> None:
    if given is not None and given != earlier:
        raise TrainingError(
            f"the run in {folder} has --{name} {earlier}, now it is {given}; leave the option out to resume the run"
        )


def _momentum_in(path: Path, retrain: str | None) -> Mapping[str, Any]:
    """The momentum in the file of --optim-state: ours, or the original's, whose order the net of --retrain gives."""
    with path.open("rb") as file:
        kind = content_kind(file.read(HEAD_BYTES), path.stat().st_size)
    if kind == "zip":
        momentum: Mapping[str, Any] = read_optim_state(path).get("momentum", {})
        return momentum
    if retrain is None:
        raise TrainingError(f"--optim-state {path}: give the .t7 net that it belongs to with --retrain")
    return lua_run.lua_momentum(path, Path(retrain))


def digest_of(samples: Samples) -> str:
    """A hash of class names, file names and targets, which tells whether samples are still the same."""
    digest = hashlib.sha256(repr(list(samples.class_names)).encode("utf-8", "surrogateescape"))
    for k in range(len(samples)):
        name = os.path.basename(samples.name(k)).encode("utf-8", "surrogateescape")
        digest.update(b"%d %s\0" % (samples.targets[k], name))
    return digest.hexdigest()
