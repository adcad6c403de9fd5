"""The options of a training against each other and against a run that is there, which may be resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnet_tools.errors import OptionError, TrainingError
from resnet_tools.training.arguments import Plain, given_anew, option_text, stored_arguments
from resnet_tools.training.board import require_tensorboard
from resnet_tools.training.options import NOT_WITH_RESUME, RESUMED, TrainOptions
from resnet_tools.training.run_files import BEST, has_run

NOT_FOR_A_CLASSIFIER = (
    "recipe", "test_only", "ten_crop", "optim_state", "tensorboard", "save_every", "keep", "precision", "compile",
    "cache", "checkpoint_activations", "sync_bn",
)  # fmt: skip
OF_A_NEW_NET = ("arch", "stem", "in_channels", "net_type", "depth", "shortcut_type")


def with_stored(
    options: TrainOptions, given: Collection[str], convert: Callable[[str, Plain, Path], Any]
) -> tuple[TrainOptions, list[str]]:
    """The options, of which those that were not `given` are what the run to resume has stored. And what was given in
    their place.

    convert: checks a stored value by the name of its field; gets the folder of the run too.
    Raises: OptionError, or TrainingError if what is stored is damaged or leads nowhere.
    """
    folder = Path(options.resume or "")
    stored = stored_arguments(folder, (*RESUMED, "dataset"))
    code = str(stored.pop("dataset", ""))
    if ":" in code and not {*given} & {"data", "dataset"}:
        raise OptionError(
            f"the run in {folder} was trained on --dataset {code}, which is a program: give the option again if you "
            "want to run it"
        )
    taken = {name: convert(name, stored[name], folder) for name in stored if name not in given}
    if taken.get("data") and not os.path.exists(taken["data"]):
        raise TrainingError(f"the images of the run in {folder} were in {taken['data']}, which is gone; give --data")
    anew = {name: getattr(options, name) for name in RESUMED if name in given} if stored else {}
    return replace(options, **taken), given_anew(stored, anew)


def check_together(options: TrainOptions) -> None:
    """Raises: OptionError if options contradict each other, name what is not there or would destroy a run."""
    if options.resume:
        unused = [name for name in NOT_WITH_RESUME if getattr(options, name)]
        unused += ["exif_orientation"] if options.exif_orientation is False else []
        unused += ["epoch_number"] if options.epoch_number != 1 else []
        if unused:
            raise OptionError(f"{_listed(unused)}: the run of --resume has its own; leave them out")
    if options.classifier_only:
        _check_classifier_only(options)
    if options.reset_classifier and not options.retrain:
        raise OptionError("--reset-classifier replaces the classifier of a net; give the net with --retrain")
    if options.weights and not options.retrain:
        raise OptionError("--weights chooses among the nets of a file; give the file with --retrain")
    new_net = [name for name in OF_A_NEW_NET if getattr(options, name)]
    if options.retrain and new_net:
        raise OptionError(f"{_listed(new_net)}: the net of --retrain has its own; leave them out")
    if options.recipe == "original" or not (options.recipe or options.resume or options.retrain):
        options.check_cache("original")  # of other runs, a file says which recipe theirs is
    if options.tensorboard and not options.test_only:
        require_tensorboard()
    if options.compile and options.checkpoint_activations:
        raise OptionError("--compile cannot compile what --checkpoint-activations does; leave one of them out")
    own = [name for name in new_net if name not in ("arch", "in_channels")]
    if options.arch and own:
        raise OptionError(f"{_listed(own)}: the net of --arch has its own; leave them out")
    if options.n_gpu > 1 and options.device not in ("auto", "cuda", "cpu"):
        raise OptionError(
            f"--device {options.device}: with --n-gpu {options.n_gpu} each process takes a GPU of its own; leave "
            "--device out, or choose among the GPUs with CUDA_VISIBLE_DEVICES"
        )
    if options.resume and _holds_classifier(Path(options.resume)):
        raise OptionError(
            f"the run in {options.resume} fitted a classifier only, so there is nothing to continue; to train the net, "
            f"start a run with --retrain {options.resume}/{BEST}"
        )
    folder = options.save_folder
    resumed = options.resume and os.path.realpath(options.resume) == os.path.realpath(folder)
    holds_run = has_run(folder) or _holds_classifier(folder)
    if holds_run and not (resumed or options.overwrite or options.test_only):
        resume = f"--resume {folder} to continue it, " if has_run(folder) else ""
        raise OptionError(
            f"{folder} holds a run; give {resume}another folder with --save, or --overwrite to replace it"
        )


def _check_classifier_only(options: TrainOptions) -> None:
    if not options.retrain:
        raise OptionError("--classifier-only needs a net whose features it can use; give it with --retrain")
    suitable = {"batch_size"} | ({"augmentation"} if options.augmentation == "none" else set())
    unused = {*options.recipe_changes, *NOT_FOR_A_CLASSIFIER} - suitable
    given = [option_text(name, True) for name in sorted(unused) if getattr(options, name) not in (None, False)]
    if given or options.n_gpu > 1:
        raise OptionError(
            f"--classifier-only has no epochs and runs in one process; leave out {', '.join(given or ['--n-gpu'])}"
        )


def _holds_classifier(folder: Path) -> bool:
    """Whether the folder has what --classifier-only leaves."""
    if not (folder / BEST).is_file() or has_run(folder):
        return False
    return stored_arguments(folder, ("classifier_only",)).get("classifier_only") is True


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
