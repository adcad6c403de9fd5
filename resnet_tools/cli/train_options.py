"""The options of `resnet train`: the original's in GNU style, newer ones, and which exclude each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from resnet_tools.cli.shared.option_groups import FiniteRange, group
from resnet_tools.cli.shared.options import BATCH_SIZE, SIDE_PX, check_models, device_name, file_names
from resnet_tools.compute.job import was_restarted
from resnet_tools.errors import OptionError, TrainingError
from resnet_tools.training.arguments import ARGUMENTS, Plain
from resnet_tools.training.option_checks import check_together, with_stored
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.run_files import DEFAULT_FOLDER

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
        help="imagenet stands for any folder of images; module:function or file.py:function names one in Python."
        "  [default: imagenet]",
    ),
    data(
        "--val-fraction", type=FiniteRange(0, 1, min_open=True, max_open=True),
        help="Share of each class to validate on if there is no val/.  [default: 0.2]",
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
    model(
        "--retrain", metavar="FILE", shell_complete=file_names,
        help="Start from the net in this file, or from the built-in small net, `demo`.",
    ),
    model("--weights", metavar="KEY", help="Which weights of --retrain to use if it holds several."),
    model("--reset-classifier", is_flag=True, help="Replace the last layer with a new one, for fine-tuning."),
    model(
        "--classifier-only", is_flag=True,
        help="Train only a new classifier, in seconds, on features that are computed once.",
    ),
    model("--n-classes", type=COUNT, help="Number of outputs.  [default: the number of classes in train/]"),
    model("--arch", metavar="NAME", help="A new net of those that `resnet models` lists, such as resnet-18."),
    model(
        "--stem", type=click.Choice(["imagenet", "cifar"]),
        help="Form of a new net: cifar is for images of about 32 pixels.  [default: that of the data set]",
    ),
    model(
        "--in-channels", type=click.IntRange(1, 3),
        help="Channels of the images that a new net takes: 1 for gray, 3 for colour.  [default: 3]",
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
        help="original: random crops and colours; light: larger crops; trivial: larger crops and TrivialAugment.",
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
    run("--test-only", is_flag=True, help="Only print the errors on val/."),
    run("--ten-crop", is_flag=True, help="Validate on ten crops of each image."),
    run(
        "--log-every", type=COUNT,
        help="Number of batches per printed line.  [default: 10, or 1 with --recipe original]",
    ),
    run(
        "--report/--no-report", default=None,
        help="Draw the training, and write the report page of the best net.  [default: yes, but not with --recipe "
        "original]",
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
        "--cache", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path),
        help="Keep copies of large images there, with sides of twice the crop, so that later epochs need not decode "
        "them whole. `modern` enlarges its smallest crops, a sixth, from them; no loss was found beyond the spread of "
        "seeds. At most half of the free disk space; it can be removed at any time. Not with --recipe original.",
    ),
    speed(
        "--precision", type=click.Choice(["single", "tf32", "double", "half", "bf16"]),
        help="Floating-point format: single is float32; tf32 lets GPUs compute float32 from 10 bits after the point; "
        "half and bf16 are mixed precision.  [default: bf16 on a GPU, or half if it has no bf16; single on a CPU or "
        "with --recipe original]",
    ),
    speed(
        "--cudnn", type=click.Choice(["fastest", "default", "deterministic"]), default="fastest", show_default=True,
        help="How cuDNN chooses its algorithms. deterministic: a run repeated with the same options and versions on as "
        "many GPUs of the same model gives the same weights; operations without such an algorithm are named in a "
        "warning. Other GPUs, or another number of them, round differently.",
    ),
    speed("--compile", is_flag=True, help="Compile the net with torch.compile."),
    speed(
        "--checkpoint-activations/--no-checkpoint-activations", default=False,
        help="Recompute activations: less memory, a third more time.",
    ),
    speed("--sync-bn/--no-sync-bn", default=False, help="Compute batch norm statistics over all GPUs."),
)  # fmt: skip


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
    parameters = {parameter.name: parameter for parameter in context.command.params}
    try:
        return with_stored(options, given, lambda name, value, folder: _converted(parameters[name], value, folder))
    except OptionError as error:
        raise click.UsageError(str(error)) from None


def _converted(parameter: click.Parameter, value: Plain, folder: Path) -> Any:
    """What is stored goes through the checks of what is typed. Raises: TrainingError."""
    try:
        return parameter.type.convert(str(value), parameter, None)
    except click.BadParameter as error:
        path = folder / ARGUMENTS
        raise TrainingError(
            f"{path}: {parameter.opts[0]}: {error.message} Give {parameter.opts[0]} again, or remove {path}"
        ) from None


def check_options(options: TrainOptions) -> None:
    """Raises: click.UsageError if options contradict each other, name what is not there or would destroy a run."""
    if not options.data and ":" not in (options.dataset or ""):
        raise click.UsageError("Missing option '--data'.")
    try:
        check_together(options)
    except OptionError as error:
        raise click.UsageError(str(error)) from None
    if options.retrain:
        check_models([options.retrain])
