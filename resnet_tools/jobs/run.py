"""The options of a training -> its parts, checked and ready; what the command and the function `train` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resnet_tools.compute.processes import Processes
from resnet_tools.data.checking import check_samples
from resnet_tools.data.datasets import SplitData, dataset_kind
from resnet_tools.data.findings import DataFindings
from resnet_tools.data.splits import SplitRow, keep_split
from resnet_tools.errors import DataError, OptionError, TrainingError
from resnet_tools.jobs.running import changed_preprocessing
from resnet_tools.metrics import ErrorCounts
from resnet_tools.training.arguments import keep_arguments
from resnet_tools.training.classifier_only import ClassifierRun, figures_of, save_classifier
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.linear_classifier import LinearClassifier
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.run import RunData
from resnet_tools.training.run_files import LATEST
from resnet_tools.training.run_samples import dataset_of, read_samples
from resnet_tools.training.setup import held_folder, held_to_resume, run_data, set_up_compute
from resnet_tools.training.start import Start, find_start

MAX_DECODED = 2000  # data sets up to this size are fully decoded before training; `resnet check-data` decodes any


@dataclass(frozen=True)
class ReadyRun:
    """`options`: with a choice for images that cannot be read; `may_skip_most`: leaving out more than half of them was
    asked for. `split`: which image is for what, if that was decided here.
    """

    options: TrainOptions
    may_skip_most: bool
    start: Start
    data: RunData
    config: ComputeConfig
    split: Sequence[SplitRow] | None


@contextmanager
def ready_run(
    options: TrainOptions, device: torch.device, processes: Processes, samples: SplitData | None = None
) -> Iterator[ReadyRun]:
    """The parts of the run, whose folder no other training can use until the block ends.

    samples: those of --data if None. Whatever was given is looked at here, before any image is.
    Raises: ResnetToolsError; OptionError if the sizes of images do not fit.
    """
    with held_folder(options, processes):
        train, val, split = read_samples(options) if samples is None else samples
        with held_to_resume(options, processes):
            start = find_start(options, dataset_kind(dataset_of(options)), train)
        may_skip_most, options = options.on_error is not None, options.with_on_error(start.state.recipe.name)
        config = set_up_compute(options, start, device, processes)
        changes = options.resize_size, options.crop_size, options.exif_orientation
        try:
            sizes = changed_preprocessing(start.checkpoint.preprocessing, *changes)
        except ValueError as error:
            raise OptionError(f"{error} (--resize-size, --crop-size)") from error
        data = run_data(options, start, train, val, sizes, config)
        yield ReadyRun(options, may_skip_most, start, data, config, split)


def is_checked(ready: ReadyRun) -> bool:
    """Whether the data set is checked before; with test_only every image of a large one is decoded next anyway."""
    images = len(ready.data.train) + len(ready.data.val)
    return ready.options.check and not (ready.options.test_only and images > MAX_DECODED)


def checked_data(data: RunData, progress: Callable[[int, list[str]], None]) -> DataFindings:
    """What is wrong with the data set."""
    decode = len(data.train) + len(data.val) <= MAX_DECODED
    return check_samples(data.train, data.val, decode=decode, progress=lambda images, _: progress(images, []))


def usable_text(findings: DataFindings, ready: ReadyRun) -> str | None:
    """What to tell of images that are left out. Raises: DataError with all errors, if they are not to be left out."""
    bad, images = len(findings.errors), len(ready.data.train) + len(ready.data.val)
    if bad and (ready.options.on_error == "fail" or (2 * bad > images and not ready.may_skip_most)):
        advice = "Fix these errors, or give --on-error skip to leave out images that cannot be read"
        raise DataError(*findings.errors, advice)
    if not bad:
        return None
    return (
        f"{bad} of {images} images cannot be read and are left out; they are listed at the end (--on-error fail stops "
        "instead)"
    )


def keep_decisions(ready: ReadyRun) -> None:
    """What a resumed run needs to know of this one."""
    keep_split(ready.options.save_folder, ready.split)
    keep_arguments(ready.options, ready.options.save_folder)


@dataclass(frozen=True)
class FittedClassifier:
    """`net`: the file. `train`, `val`: its counts on the images. `reasons`: of images that could not be read."""

    net: Path
    classifier: LinearClassifier
    train: ErrorCounts
    val: ErrorCounts
    seconds: float
    reasons: list[str]


def classifier_images(ready: ReadyRun) -> int:
    """How many images `fitted_classifier` computes features of."""
    return len(ready.data.train) + len(ready.data.val)


def fitted_classifier(ready: ReadyRun, progress: Callable[[int, list[str]], None]) -> FittedClassifier:
    """A new classifier on the features of a net that stays as it is, saved. progress: called with the images done.

    Raises: TrainingError, and whatever `ClassifierRun.run` raises.
    """
    options, start, data, config = ready.options, ready.start, ready.data, ready.config
    if config.processes.count > 1:
        raise TrainingError("--classifier-only runs in one process; start it without torchrun or srun")
    (options.save_folder / LATEST).unlink(missing_ok=True)  # with --overwrite: the folder holds another run now
    begun, reasons = time.monotonic(), []
    run = ClassifierRun(
        replace(start.checkpoint, preprocessing=data.loading.preprocessing),
        str(options.retrain),
        data.train,
        data.val,
        data.loading,
        config.device,
        options.save_folder,
        start.state.seed,
        skip_unreadable=options.on_error == "skip",
    )

    def note(count: int, told: list[str]) -> None:
        reasons.extend(told)
        progress(count, [])

    checkpoint, classifier, train, val = run.run(note)
    seconds = time.monotonic() - begun
    start.state.history = [figures_of(train, val, seconds)]
    net = save_classifier(options.save_folder, checkpoint, start.state.recipe, start.state.history[0])
    run.remove_features()
    return FittedClassifier(net, classifier, train, val, seconds, reasons)
