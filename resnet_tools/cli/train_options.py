"""The options of `resnet train`: those of the original in GNU style, and what came since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from resnet_tools.cli.shared.option_groups import group
from resnet_tools.cli.shared.options import SIDE_PX

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
COUNT = click.IntRange(1)
SHARE = click.FloatRange(0, 1, max_open=True)
POSITIVE = click.FloatRange(0, min_open=True)
NOT_NEGATIVE = click.FloatRange(0)
data, model, recipe, run, speed = map(group, ("Data", "Model", "Recipe", "Run", "Speed"))

DATA: tuple[Decorator, ...] = (
    data(
        "--data",
        required=True,
        type=click.Path(),
        help="A folder with train/ and val/, or with CIFAR's files.",
    ),
    data(
        "--dataset",
        type=click.Choice(["imagenet", "cifar10", "cifar100"]),
        help="imagenet is any folder of images.  [default: imagenet]",
    ),
    data("--resize-size", type=SIDE_PX, help="Shorter side at validation in pixels; as the net says, mostly 256."),
    data("--crop-size", type=SIDE_PX, help="Side of the net's input in pixels; as the net says, mostly 224."),
    data(
        "--on-error",
        type=click.Choice(["fail", "skip"]),
        default="fail",
        show_default=True,
        help="Unreadable images.",
    ),
    data("--check/--no-check", default=True, show_default=True, help="Look the data set over before the training."),
)
MODEL: tuple[Decorator, ...] = (
    model("--retrain", metavar="FILE", help="Begin with the net of this file; `demo` is the small one of the package."),
    model("--reset-classifier", is_flag=True, help="Begin with a new classifier: fine-tuning."),
    model("--n-classes", type=COUNT, help="Outputs of the net.  [default: as many as train/ has classes]"),
    model("--net-type", type=click.Choice(["resnet", "preresnet"]), help="Of a new net.  [default: resnet]"),
    model("--depth", type=COUNT, help="Of a new net: 18, 34, 50, 101, ...  [default: 34]"),
    model("--shortcut-type", type=click.Choice(["A", "B", "C"]), help="Of a new net.  [default: B; CIFAR: A]"),
    model("--freeze", type=click.IntRange(0), help="Keep these stages as they are: 1 the stem, 2 also layer1, ..."),
    model("--freeze-bn/--no-freeze-bn", default=None, help="Keep batch norms as they are."),
)
RECIPE: tuple[Decorator, ...] = (
    recipe(
        "--recipe",
        type=click.Choice(["original", "finetune", "modern"]),
        help="Defaults of this group.  [default: finetune with --reset-classifier, else original]",
    ),
    recipe("--n-epochs", "epochs", type=COUNT, help="Epochs in all."),
    recipe("--epoch-number", type=COUNT, default=1, show_default=True, help="The number of the first epoch."),
    recipe("--batch-size", type=click.IntRange(1, 65536), help="Images at once, over all processes."),
    recipe("--accumulate", type=COUNT, help="Batches for one step."),
    recipe("--lr", type=POSITIVE, help="Learning rate."),
    recipe("--classifier-lr", type=POSITIVE, help="Learning rate of the last layer."),
    recipe("--lr-schedule", type=click.Choice(["step", "cosine"]), help="How the rates fall."),
    recipe("--warmup-epochs", type=NOT_NEGATIVE, help="Epochs in which the rates rise."),
    recipe("--momentum", type=SHARE, help="Of SGD, Nesterov's."),
    recipe("--weight-decay", type=NOT_NEGATIVE, help="Weight decay."),
    recipe("--decay-norm/--no-decay-norm", default=None, help="Weight decay also on batch norms and biases."),
    recipe(
        "--augment",
        "augmentation",
        type=click.Choice(["original", "light", "trivial", "none"]),
        help="Random views: crops and colours; larger crops; TrivialAugment.",
    ),
    recipe("--label-smoothing", type=SHARE, help="Share of the truth given to all classes."),
    recipe("--mixup", type=NOT_NEGATIVE, help="Alpha of mixup."),
    recipe("--cutmix", type=NOT_NEGATIVE, help="Alpha of CutMix."),
    recipe("--ema", type=SHARE, help="Decay of the mean of the weights that is validated and saved; 0: none."),
    recipe("--early-stop", type=click.IntRange(0), help="Stop after so many epochs without a better top-1 error."),
)
RUN: tuple[Decorator, ...] = (
    run(
        "--save",
        type=click.Path(file_okay=False),
        help="Folder for checkpoints.  [default: checkpoints]",
    ),
    run("--resume", type=click.Path(exists=True, file_okay=False), help="Go on with the run in this folder."),
    run("--overwrite", is_flag=True, help="Replace the run that is in the folder of --save."),
    run("--keep", type=click.IntRange(0), help="Epochs whose files stay; 0: all.  [default: 2; original recipe: 0]"),
    run("--save-every", type=POSITIVE, metavar="MINUTES", help="Save also within epochs."),
    run("--optim-state", type=click.Path(exists=True, dir_okay=False), help="Begin with the momentum of this file."),
    run("--manual-seed", type=click.IntRange(0, 2**63 - 1), help="Seed of all random numbers.  [default: 0]"),
    run("--test-only", is_flag=True, help="Only print the error on val/."),
    run("--ten-crop", is_flag=True, help="Validate on ten crops."),
    run("--log-every", type=COUNT, help="Batches a line.  [default: 1 with the original recipe, else 10]"),
    run("--tensorboard", is_flag=True, help="Write figures for TensorBoard too."),
    run("--quiet", is_flag=True, help="No progress bar."),
)
SPEED: tuple[Decorator, ...] = (
    speed("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."),
    speed("--n-gpu", type=COUNT, default=1, show_default=True, help="Processes on this machine, a GPU each."),
    speed(
        "--workers", "--n-threads", "workers", type=click.IntRange(0, 256),
        help="Loaders a process.  [default: 2; on a GPU 8, but with the original recipe]",
    ),
    speed(
        "--precision",
        type=click.Choice(["single", "double", "half", "bf16"]),
        help="half and bf16 are mixed.  [default: single; on a GPU what is fastest, but with the original recipe]",
    ),
    speed(
        "--cudnn", type=click.Choice(["fastest", "default", "deterministic"]), default="fastest", show_default=True,
        help="How cuDNN chooses.",
    ),
    speed("--compile", is_flag=True, help="Compile the net with torch.compile."),
    speed("--checkpoint-activations", is_flag=True, help="Less memory, a third more time."),
    speed("--sync-bn", is_flag=True, help="Batch norm over all GPUs."),
)  # fmt: skip

RECIPE_FIELDS = (
    "epochs", "batch_size", "accumulate", "lr", "classifier_lr", "lr_schedule", "warmup_epochs", "momentum",
    "weight_decay", "decay_norm", "augmentation", "label_smoothing", "mixup", "cutmix", "ema", "early_stop", "freeze",
    "freeze_bn",
)  # fmt: skip


# What a run that goes on has already.
NOT_WITH_RESUME = (
    "retrain", "reset_classifier", "n_classes", "net_type", "depth", "shortcut_type", "optim_state",
)  # fmt: skip


def train_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((*DATA, *MODEL, *RECIPE, *RUN, *SPEED)):
        function = option(function)
    return function
