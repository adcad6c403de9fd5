"""Which options of `resnet train` exclude or need each other, before any image is looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from resnet_tools.cli.shared.options import check_models
from resnet_tools.training.arguments import stored_arguments
from resnet_tools.training.board import require_tensorboard
from resnet_tools.training.options import NOT_WITH_RESUME, TrainOptions
from resnet_tools.training.run_files import BEST, has_run

NOT_FOR_A_CLASSIFIER = (
    "recipe", "test_only", "ten_crop", "optim_state", "tensorboard", "save_every", "keep", "precision", "compile",
    "checkpoint_activations", "sync_bn",
)  # fmt: skip
OF_A_NEW_NET = ("arch", "stem", "in_channels", "net_type", "depth", "shortcut_type")


def check_options(options: TrainOptions) -> None:
    """Raises: click.UsageError if options contradict each other, name what is not there or would destroy a run."""
    if not options.data and ":" not in (options.dataset or ""):
        raise click.UsageError("Missing option '--data'.")
    if options.resume:
        unused = [name for name in NOT_WITH_RESUME if getattr(options, name)]
        unused += ["exif_orientation"] if options.exif_orientation is False else []
        unused += ["epoch_number"] if options.epoch_number != 1 else []
        if unused:
            raise click.UsageError(f"{_listed(unused)}: the run of --resume has its own; leave them out")
    if options.classifier_only:
        _check_classifier_only(options)
    if options.reset_classifier and not options.retrain:
        raise click.UsageError("--reset-classifier replaces the classifier of a net; give the net with --retrain")
    if options.weights and not options.retrain:
        raise click.UsageError("--weights chooses among the nets of a file; give the file with --retrain")
    new_net = [name for name in OF_A_NEW_NET if getattr(options, name)]
    if options.retrain and new_net:
        raise click.UsageError(f"{_listed(new_net)}: the net of --retrain has its own; leave them out")
    if options.retrain:
        check_models([options.retrain])
    if options.tensorboard and not options.test_only:
        require_tensorboard()
    if options.compile and options.checkpoint_activations:
        raise click.UsageError("--compile cannot compile what --checkpoint-activations does; leave one of them out")
    own = [name for name in new_net if name not in ("arch", "in_channels")]
    if options.arch and own:
        raise click.UsageError(f"{_listed(own)}: the net of --arch has its own; leave them out")
    if options.n_gpu > 1 and options.device not in ("auto", "cuda", "cpu"):
        raise click.UsageError(
            f"--device {options.device}: with --n-gpu {options.n_gpu} each process takes a GPU of its own; leave "
            "--device out, or choose among the GPUs with CUDA_VISIBLE_DEVICES"
        )
    if options.resume and _holds_classifier(Path(options.resume)):
        raise click.UsageError(
            f"the run in {options.resume} fitted a classifier only, so there is nothing to continue; to train the net, "
            f"start a run with --retrain {options.resume}/{BEST}"
        )
    folder = options.save_folder
    resumed = options.resume and os.path.realpath(options.resume) == os.path.realpath(folder)
    holds_run = has_run(folder) or _holds_classifier(folder)
    if holds_run and not (resumed or options.overwrite or options.test_only):
        resume = f"--resume {folder} to continue it, " if has_run(folder) else ""
        raise click.UsageError(
            f"{folder} holds a run; give {resume}another folder with --save, or --overwrite to replace it"
        )


def _check_classifier_only(options: TrainOptions) -> None:
    if not options.retrain:
        raise click.UsageError("--classifier-only needs a net whose features it can use; give it with --retrain")
    if options.augmentation not in (None, "none", "light"):
        raise click.UsageError("--classifier-only sees images as --augment light or none has them; give one of these")
    unused = {*options.recipe_changes, *NOT_FOR_A_CLASSIFIER} - {"batch_size", "augmentation"}
    spelled = {parameter.name: parameter.opts[0] for parameter in click.get_current_context().command.params}
    given = [spelled[name] for name in sorted(unused) if getattr(options, name) not in (None, False)]
    if given or options.n_gpu > 1:
        raise click.UsageError(
            f"--classifier-only has no epochs and runs in one process; leave out {', '.join(given or ['--n-gpu'])}"
        )


def _holds_classifier(folder: Path) -> bool:
    """Whether the folder has what --classifier-only leaves."""
    if not (folder / BEST).is_file() or has_run(folder):
        return False
    return stored_arguments(folder, ("classifier_only",)).get("classifier_only") is True


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
