"""The options of `resnet train`: the original's in GNU style, newer ones, and which exclude each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from resnet_tools.cli.shared.option_groups import FiniteRange, group
from resnet_tools.cli.shared.options import BATCH_SIZE, SIDE_PX, check_models, device_name
from resnet_tools.compute.job import was_restarted
from resnet_tools.errors import TrainingError
from resnet_tools.training.arguments import ARGUMENTS, Plain, given_anew, stored_arguments
from resnet_tools.training.board import require_tensorboard
from resnet_tools.training.options import NOT_WITH_RESUME, RESUMED, TrainOptions
from resnet_tools.training.run_files import BEST, DEFAULT_FOLDER, has_run

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
COUNT = click.IntRange(1)
SHARE = FiniteRange(0, 1, max_open=True)
POSITIVE = FiniteRange(0, min_open=True)
NOT_NEGATIVE = FiniteRange(0)
data, model, recipe, run, speed = map(group, ("Data", "Model", "Recipe", "Run", "Speed"))


class DatasetName(click.Choice[str]):
    """A name of the list, or `module:function`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if ":" in value else super().convert(value, param, ctx)


DATA: tuple[Decorator, ...] = (
    data(
        "--data", default="", type=click.Path(),
        help="A folder of class folders, with train/ and val/ or without, or with CIFAR's files.",
    ),
    data(
        "--dataset",
        type=DatasetName(["imagenet", "cifar10", "cifar100"]),
        help="imagenet stands for any folder of images; module:function or file.py:function is one in Python."
        "  [default: imagenet]",
    ),
    data(
        "--val-fraction", type=FiniteRange(0, 1, min_open=True, max_open=True),
        help="Part of each class to validate on where there is no val/.  [default: 0.2]",
    ),
    data("--train-list", type=A_FILE, help="File with the training images, in lines of `path,class`."),
    data("--val-list", type=A_FILE, help="File with the validation images, in the same form."),
    data(
        "--exif-orientation/--no-exif-orientation", default=None,
        help="Rotate images as their EXIF data says.  [default: yes for a folder, but not with --recipe original]",
    ),
    data("--resize-size", type=SIDE_PX, help="Shorter side for validation, in pixels.  [default: the net's own]"),
    data("--crop-size", type=SIDE_PX, help="Side of the net's input, in pixels.  [default: the net's own]"),
    data(
        "--on-error", type=click.Choice(["fail", "skip"]),
        help="Stop at an image that cannot be read, or leave it out.  [default: skip; fail with --recipe original or "
        "--test-only]",
    ),
    data("--check/--no-check", default=True, show_default=True, help="Check the data set before training."),
)  # fmt: skip
MODEL: tuple[Decorator, ...] = (
    model("--retrain", metavar="FILE", help="Start from the net in this file, or from the built-in small net, `demo`."),
    model("--weights", metavar="KEY", help="Which weights of --retrain to use if it holds several."),
    model("--reset-classifier", is_flag=True, help="Replace the last layer with a new one, for fine-tuning."),
    model(
        "--classifier-only", is_flag=True,
        help="Only fit a new classifier, on features that are computed once: seconds in place of epochs.",
    ),
    model("--n-classes", type=COUNT, help="Number of outputs.  [default: the number of classes in train/]"),
    model("--arch", metavar="NAME", help="A new net of those that `resnet models` lists, such as resnet-18."),
    model(
        "--stem", type=click.Choice(["imagenet", "cifar"]),
        help="Form of a new net: cifar is for images of about 32 pixels.  [default: as the data set has it]",
    ),
    model(
        "--in-channels", type=click.IntRange(1, 3),
        help="Channels of the images that a new net takes: 1 for gray, 3 for color.  [default: 3]",
    ),
    model("--net-type", type=click.Choice(["resnet", "preresnet"]), help="Type of a new net.  [default: resnet]"),
    model("--depth", type=COUNT, help="Depth of a new net: 18, 34, 50, 101, ...  [default: 34]"),
    model(
        "--shortcut-type", type=click.Choice(["A", "B", "C"]),
        help="Shortcuts of a new net.  [default: B, or A for CIFAR]",
    ),
    model("--freeze", type=click.IntRange(0), help="Do not train the first stages: 1 the stem, 2 also layer1, ..."),
    model("--freeze-bn/--no-freeze-bn", default=None, help="Do not train batch norms; keep their running statistics."),
)  # fmt: skip
RECIPE: tuple[Decorator, ...] = (
    recipe(
        "--recipe", type=click.Choice(["original", "finetune", "modern"]),
        help="Defaults for this group.  [default: finetune with --reset-classifier, otherwise original]",
    ),
    recipe("--n-epochs", "epochs", type=COUNT, help="Total number of epochs."),
    recipe("--epoch-number", type=COUNT, default=1, show_default=True, help="Number of the first epoch."),
    recipe("--batch-size", type=BATCH_SIZE, help="Number of images per batch, over all processes."),
    recipe("--accumulate", type=COUNT, help="Number of batches per weight update."),
    recipe("--lr", type=POSITIVE, help="Learning rate."),
    recipe("--classifier-lr", type=POSITIVE, help="Learning rate of the last layer."),
    recipe("--lr-schedule", type=click.Choice(["step", "cosine"]), help="How the learning rates decay."),
    recipe("--warmup-epochs", type=NOT_NEGATIVE, help="Epochs over which the learning rates rise at the start."),
    recipe("--momentum", type=SHARE, help="Nesterov momentum of SGD."),
    recipe("--weight-decay", type=NOT_NEGATIVE, help="Weight decay."),
    recipe("--decay-norm/--no-decay-norm", default=None, help="Apply weight decay to batch norms and biases too."),
    recipe(
        "--augment", "augmentation", type=click.Choice(["original", "light", "trivial", "none"]),
        help="original: random crops and colors; light: larger crops; trivial: larger crops and TrivialAugment.",
    ),
    recipe("--label-smoothing", type=SHARE, help="Share of each label that is spread over all classes."),
    recipe("--mixup", type=NOT_NEGATIVE, help="Alpha of mixup; 0: off."),
    recipe("--cutmix", type=NOT_NEGATIVE, help="Alpha of CutMix; 0: off."),
    recipe("--ema", type=SHARE, help="Validate and save a moving average of the weights with this decay; 0: off."),
    recipe(
        "--early-stop", type=click.IntRange(0), help="Stop after this many epochs without a lower top-1 error; 0: off."
    ),
)  # fmt: skip
RUN: tuple[Decorator, ...] = (
    run("--save", type=click.Path(file_okay=False), help=f"Folder for the run's files.  [default: {DEFAULT_FOLDER}]"),
    run("--resume", type=click.Path(exists=True, file_okay=False), help="Continue the run in this folder."),
    run("--overwrite", is_flag=True, help="Replace the run in the folder of --save."),
    run(
        "--keep", type=click.IntRange(0),
        help="Number of most recent epochs whose files are kept; 0: all.  [default: 2, or 0 with --recipe original]",
    ),
    run("--save-every", type=POSITIVE, metavar="MINUTES", help="Also save within epochs, at this interval."),
    run("--optim-state", type=click.Path(exists=True, dir_okay=False), help="Start with the momentum in this file."),
    run("--manual-seed", type=click.IntRange(0, 2**63 - 1), help="Seed for all random numbers.  [default: 0]"),
    run("--test-only", is_flag=True, help="Only print the error on val/."),
    run("--ten-crop", is_flag=True, help="Validate on ten crops of each image."),
    run(
        "--log-every", type=COUNT,
        help="Number of batches per printed line.  [default: 10, or 1 with --recipe original]",
    ),
    run(
        "--report/--no-report", default=None,
        help="Leave pictures of the training and the report page of the best net.  [default: yes, but not with "
        "--recipe original]",
    ),
    run("--tensorboard/--no-tensorboard", default=False, help="Also write the figures for TensorBoard."),
    run("--quiet", is_flag=True, help="Show no progress bar."),
)  # fmt: skip
SPEED: tuple[Decorator, ...] = (
    speed(
        "--device", default="auto", show_default=True, callback=device_name,
        help="auto, cpu, cuda, cuda:1 (or 1), or mps.",
    ),
    speed(
        "--n-gpu", type=COUNT, default=1, show_default=True,
        help="Number of GPUs on this machine to use, one process each.",
    ),
    speed(
        "--workers", "--n-threads", "workers", type=click.IntRange(0, 256),
        help="Data-loading workers per process.  [default: for a GPU, the cores that this job may use divided by its "
        "processes on this machine, at most 16; for a CPU 2]",
    ),
    speed(
        "--precision", type=click.Choice(["single", "tf32", "double", "half", "bf16"]),
        help="Floating-point format: single is float32; tf32 lets GPUs compute float32 from 10 bits after the point; "
        "half and bf16 are mixed precision.  [default: bf16 on a GPU, or half if it has no bf16; single on a CPU or "
        "with --recipe original]",
    ),
    speed(
        "--cudnn", type=click.Choice(["fastest", "default", "deterministic"]), default="fastest", show_default=True,
        help="How cuDNN chooses its algorithms. deterministic: a run that is repeated on GPUs of the same model, as "
        "many, with the same versions and options, gives the same weights; what has no such algorithm is named in a "
        "warning. Other GPUs or another number of them round differently.",
    ),
    speed("--compile", is_flag=True, help="Compile the net with torch.compile."),
    speed(
        "--checkpoint-activations/--no-checkpoint-activations", default=False,
        help="Recompute activations: less memory, a third more time.",
    ),
    speed("--sync-bn/--no-sync-bn", default=False, help="Compute batch norm statistics over all GPUs."),
)  # fmt: skip

NOT_FOR_A_CLASSIFIER = (
    "recipe", "test_only", "ten_crop", "optim_state", "tensorboard", "save_every", "keep", "precision", "compile",
    "checkpoint_activations", "sync_bn",
)  # fmt: skip
OF_A_NEW_NET = ("arch", "stem", "in_channels", "net_type", "depth", "shortcut_type")


def train_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of the above."""
    for option in reversed((*DATA, *MODEL, *RECIPE, *RUN, *SPEED)):
        function = option(function)
    return function


def read_options(values: Mapping[str, Any]) -> tuple[TrainOptions, list[str]]:
    """The options; those that were not given are what a run to resume has stored. And what was given in their place.

    Raises: click.UsageError, TrainingError if what is stored is damaged or leads nowhere.
    """
    options = TrainOptions(**values)
    if options.classifier_only:
        options = replace(options, reset_classifier=True)
    if was_restarted(os.environ):
        options = options.continued()
    if not options.resume:
        return options, []
    context = click.get_current_context()
    given = {name for name in values if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    folder = Path(options.resume)
    stored = stored_arguments(folder, (*RESUMED, "dataset"))
    code = str(stored.pop("dataset", ""))
    if ":" in code and not given & {"data", "dataset"}:
        raise click.UsageError(
            f"the run in {folder} was trained on --dataset {code}, which is a program: give the option again if you "
            "want to run it"
        )
    parameters = {parameter.name: parameter for parameter in context.command.params}
    taken = {name: _converted(parameters[name], stored[name], folder) for name in stored if name not in given}
    if taken.get("data") and not os.path.exists(taken["data"]):
        raise TrainingError(f"the images of the run in {folder} were in {taken['data']}, which is gone; give --data")
    anew = {name: getattr(options, name) for name in RESUMED if name in given} if stored else {}
    return replace(options, **taken), given_anew(stored, anew)


def _converted(parameter: click.Parameter, value: Plain, folder: Path) -> Any:
    """What is stored goes through the checks of what is typed. Raises: TrainingError."""
    try:
        return parameter.type.convert(str(value), parameter, None)
    except click.BadParameter as error:
        path = folder / ARGUMENTS
        raise TrainingError(
            f"{path}: {parameter.name}: {error.message} Give {parameter.opts[0]} anew, or remove {path}"
        ) from None


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
