"""What `resnet train` says of a run, as text: what begins, each epoch, what came of it, and what can be done next.

The recipe `original` prints the original's lines on stdout (`history/lines.py`), and of these only the first and the
last, on stderr. Errors are in percent.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_tools.text import counted, printable

if TYPE_CHECKING:
    from resnet_tools.data.samples import Samples
    from resnet_tools.history.history import Epoch
    from resnet_tools.metrics import ErrorCounts
    from resnet_tools.training.compute_config import ComputeConfig
    from resnet_tools.training.events import BatchLogged
    from resnet_tools.training.options import TrainOptions
    from resnet_tools.training.run import RunData
    from resnet_tools.training.run_state import RunState
    from resnet_tools.training.start import Start

FEW_CLASSES = 20  # up to so many, a truth among the best five says little and is left out
LONG_SECONDS = 600
FORWARD_SHARE = 1 / 3  # of the time of a training step; the backward pass takes twice as long


def duration(seconds: float) -> str:
    """`0:01:20`."""
    return str(timedelta(seconds=round(max(0.0, seconds))))


def opening_lines(start: Start) -> tuple[str, ...]:
    """The recipe, and what the original prints about the net."""
    from resnet_tools.training.recipe import recipe_line

    return recipe_line(start.state.recipe, start.origin), *start.lines


def resume_notes(start: Start, anew: Sequence[str]) -> list[str]:
    """What was given in place of what a resumed run has, and where that run stands."""
    given = [*anew, *start.anew]
    return ([f"Changed options: {', '.join(given)}"] if given else []) + [f"Note: {note}" for note in start.notes]


def start_line(options: TrainOptions, start: Start, data: RunData, config: ComputeConfig) -> str:
    """`217 training and 57 validation images, 6 classes; resnet-18 from demo, fine-tuning; CPU, 2 threads; saving to
    run1`.
    """
    from resnet_tools.compute.device import device_text
    from resnet_tools.nets.catalog import architecture_name, describe

    train, val, net = data.train, data.val, start.checkpoint.architecture
    name = architecture_name(net) or describe(net).partition(":")[0].lower()
    if options.resume:
        name += f", continuing after epoch {start.state.epoch}"
    elif options.retrain:
        how = "fine-tuning" if options.reset_classifier else "trained further"
        name += f" from {options.retrain}, {'a new classifier only' if options.classifier_only else how}"
    else:
        name += ", a new net"
    classes = counted(len(train.class_names), "class")
    images = f"{len(train):,} training and {counted(len(val), 'validation image')}, {classes}"
    processes = f"{config.processes.count} processes: " if config.processes.count > 1 else ""
    precision = "" if config.precision == "single" else f", {config.precision}"
    device = f"{processes}{device_text(config.device)}{precision}"
    return f"{images}; {name}; {device}; saving to {options.save_folder}"


def batch_line(batch: BatchLogged) -> str:
    """One batch in some, of the training images that the net has just learned from."""
    return (
        f"Epoch {batch.epoch}, batch {batch.batch}/{batch.batches}: loss {batch.counts.loss:.4f}, "
        f"error {batch.counts.top1_error:.1f} %; {batch.seconds:.2f} s, {batch.data_seconds:.2f} s of it for loading"
    )


def epoch_line(
    figures: Epoch, val: ErrorCounts, *, epochs: int, best: bool, num_classes: int, seconds: float, left: float
) -> str:
    """seconds: of the whole epoch with its validation; left: of the run."""
    top5 = [
        f", top-5 error {top5:.2f} %" * (num_classes > FEW_CLASSES) for top5 in (figures.train_top5, val.top5_error)
    ]
    time_left = f", {duration(left)} left" if figures.epoch < epochs else ""
    return (
        f"Epoch {figures.epoch}/{epochs}: training loss {figures.train_loss:.4f}, error {figures.train_top1:.2f} %"
        f"{top5[0]}; validation loss {val.loss:.4f}, error {val.top1_error:.2f} %{top5[1]} "
        f"(accuracy {100 - val.top1_error:.2f} %){', the best so far' if best else ''}; {seconds:.0f} s{time_left}"
    )


def shorter_line(
    train_seconds: float, val_seconds: float, *, fine_tuning: bool, stages: int, frozen: int
) -> str | None:
    """What would shorten a run that takes so many seconds on a CPU; None if it is short, or nothing would.

    stages: those of the net; frozen: as --freeze counts. All stages cost about the same, and a frozen one only its
    forward pass.
    """
    whole = train_seconds + val_seconds
    if whole <= LONG_SECONDS:
        return None
    text = f"the whole run takes about {duration(whole)} on this CPU. "
    if not fine_tuning or frozen >= stages:
        return f"{text}A smaller --crop-size, fewer --n-epochs or a smaller net would shorten it"
    trained_now, trained_then = (1 - max(0, count - 1) / stages for count in (frozen, stages))
    cost_now, cost_then = (FORWARD_SHARE + (1 - FORWARD_SHARE) * share for share in (trained_now, trained_then))
    shorter = train_seconds * cost_then / cost_now + val_seconds
    return (
        f"{text}With --freeze {stages}, which trains only the last stage and the classifier, it would be about "
        f"{duration(shorter)}; --classifier-only computes the features of each image once and takes less than an epoch"
    )


def end_lines(
    state: RunState, folder: Path, num_classes: int, *, seconds: float, begun_after: int, pictures: Sequence[Path]
) -> list[str]:
    """Best epoch, where its net is, how long it took since the epoch `begun_after`, what was left out, the pictures."""
    lines = []
    if state.best_epoch and math.isfinite(state.best_top1_error):
        top5 = f", top-5 error {state.best_top5_error:.2f} %" * (num_classes > FEW_CLASSES)
        net = folder / "model_best.pt"
        lines.append(
            f"Best: epoch {state.best_epoch}, validation error {state.best_top1_error:.2f} % "
            f"(accuracy {100 - state.best_top1_error:.2f} %){top5}; its net {'is' if net.exists() else 'was'} {net}"
            f"{'' if net.exists() else ', which is gone'}"
        )
    if state.epoch > begun_after:
        epochs = counted(state.epoch - begun_after, "epoch")
        skipped = f"; {counted(len(state.skipped), 'image')} left out as unreadable" if state.skipped else ""
        lines.append(f"Took {duration(seconds)} for {epochs}{skipped}")
    if pictures:
        lines.append(f"To look at: {', '.join(map(str, pictures))}")
    return lines


def classifier_line(train: ErrorCounts, val: ErrorCounts, penalty: float, net: Path, num_classes: int) -> str:
    """What came of a run that trained the classifier only."""
    top5 = f", top-5 error {val.top5_error:.2f} %" * (num_classes > FEW_CLASSES)
    return (
        f"Classifier with penalty {penalty:g}: training error {train.top1_error:.2f} %, validation error "
        f"{val.top1_error:.2f} % (accuracy {100 - val.top1_error:.2f} %){top5}; its net is {net}"
    )


def next_lines(options: TrainOptions, val: Samples, *, stopped: bool = False) -> list[str]:
    """`Next:` and two commands that can be pasted."""
    folder = options.save_folder
    is_files = len(val) > 0 and isinstance(val.images[0], str)
    image = str(val.images[0]) if is_files else "IMAGE"
    classify = ["classify", folder, image]
    evaluate = [
        "evaluate",
        folder,
        "--data",
        options.data,
        *(["--labels", options.val_list] if options.val_list else []),
    ]
    if stopped:
        python: list[object] = ["--dataset", options.dataset] if ":" in (options.dataset or "") else []
        commands: list[list[object]] = [["train", "--resume", folder, *python], classify]
    elif is_files and ":" not in (options.dataset or ""):
        commands = [classify, [*evaluate, "--report", folder / "report"]]
    else:
        commands = [classify, ["plot", folder, "--output", folder / "curves.png"]]
    return ["Next:", *(f"  {_pasted(words)}" for words in commands)]


def _pasted(words: Sequence[object]) -> str:
    """A command of ours, quoted for a shell: what a terminal must not see is written as bash and zsh read it."""
    return " ".join(["resnet", *(_quoted(str(word)) for word in words)])


def _quoted(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    return f"$'{printable(word.replace(chr(92), 2 * chr(92)).replace(chr(39), chr(92) + chr(39)))}'"
