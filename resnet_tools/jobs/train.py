"""A data set -> a trained net, as `resnet train` trains it, in one process and without a word."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from resnet_tools.checkpoints.checkpoint import Checkpoint, load_checkpoint
from resnet_tools.checkpoints.nets_in_python import save_checkpoint
from resnet_tools.compute.device import find_device, kept_settings
from resnet_tools.compute.processes import ALONE
from resnet_tools.data.custom import samples_of
from resnet_tools.data.datasets import SplitData
from resnet_tools.errors import OptionError
from resnet_tools.history.history import Epoch
from resnet_tools.jobs.run import (
    ReadyRun,
    checked_data,
    fitted_classifier,
    is_checked,
    keep_decisions,
    ready_run,
    usable_text,
)
from resnet_tools.jobs.run_pictures import RunPictures
from resnet_tools.jobs.running import Progress
from resnet_tools.jobs.train_arguments import TrainArguments, train_options
from resnet_tools.text import counted
from resnet_tools.training.board import tensorboard_writer
from resnet_tools.training.events import BatchTrained, EpochFinished, Notice
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.run import RunStopped
from resnet_tools.training.run_files import BEST
from resnet_tools.training.setup import build_run

if TYPE_CHECKING:
    from typing_extensions import Unpack

PARTS = "expected a folder, or two data sets (train, val), each with __len__, __getitem__(k) -> (image, class), classes"


@dataclass(frozen=True, eq=False, repr=False)
class TrainedRun:
    """What `train` gives. `folder` holds the files of the run; `history`: the figures of each epoch, errors in percent.

    `best_epoch` has the lowest top-1 error on the validation images. `skipped`: name -> why an image could not be read.
    """

    folder: Path
    history: list[Epoch]
    skipped: dict[str, str]

    @property
    def best_epoch(self) -> int:
        """The first of those with the lowest top-1 error, from 1; 0 before the first epoch has ended."""
        return min(self.history, key=lambda epoch: epoch.val_top1).epoch if self.history else 0

    @property
    def best_top1_error(self) -> float:
        """In percent, on the validation images; infinite before the first epoch has ended."""
        return min((epoch.val_top1 for epoch in self.history), default=float("inf"))

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The best net with its class names and preprocessing, loaded when it is first asked for."""
        return load_checkpoint(self.folder / BEST)

    def __repr__(self) -> str:
        best = f", best top1 error {self.best_top1_error:.3f} % in epoch {self.best_epoch}" if self.history else ""
        return f"<run in {str(self.folder)!r}: {counted(len(self.history), 'epoch')}{best}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: folder, best_epoch, best_top1_error, history, skipped."""
        best = {"best_epoch": self.best_epoch, "best_top1_error": self.best_top1_error}
        return {"folder": str(self.folder), **best, "history": self.rows(), "skipped": self.skipped}

    def rows(self) -> list[dict[str, Any]]:
        """One row for each epoch, for `pandas.DataFrame`, with the columns of `history.csv`."""
        return [asdict(epoch) for epoch in self.history]


def train(
    data: Any = None,
    *,
    retrain: str | os.PathLike[str] | Checkpoint | nn.Module | None = None,
    reset_classifier: bool = False,
    save: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Unpack[TrainArguments],
) -> TrainedRun:
    """Fine-tune a net on images, or train a new one, as `resnet train` does; the run is saved as there.

    data: a folder of class folders, with `train/` and `val/` or without (then a part is kept for validation), or of
    CIFAR's files; or two data sets (train, val) such as torchvision's, without transforms. Not needed with `resume`.
    retrain: the net to start from, the path of any checkpoint, `demo`, or one that is loaded, which stays as it is.
    reset_classifier: give it a new last layer for the classes of the data, for fine-tuning.
    save: the folder of the run, by default `run`, or that of `resume`, a run to continue with the options it has.
    progress: called with the batches done and those of all epochs.
    The other options are named as in `resnet train --help`: n_epochs, batch_size, lr, recipe, arch, augment, freeze,
    classifier_only, mixup, ema, early_stop, manual_seed, overwrite, report, device, precision, workers, cache, ...

    An interruption (KeyboardInterrupt, also a notebook's stop) saves after the running batch and is then raised;
    `train(resume=folder)` continues. Nothing is printed; oddities of the data are `warnings`.
    Returns: `history`, `folder`, and `checkpoint`, the best net.
    Raises: OptionError, a TrainingError, for options that do not exist or contradict each other; DataError, ImageError,
    CheckpointError, DeviceMemoryError and other ResnetToolsErrors.

    >>> from resnet_tools import train
    >>> run = train("digits", retrain="demo", reset_classifier=True, save="digits-run", n_epochs=1, report=False)
    >>> len(run.history), run.checkpoint.class_names[:3]
    (1, ['0', '1', '2'])
    """
    folder = save if save is not None else None if resume is not None else "run"
    own = {"reset_classifier": reset_classifier, "save": folder, "resume": resume}
    path = data if isinstance(data, (str, os.PathLike)) else None
    given: dict[str, Any] = {**options, **{name: value for name, value in own.items() if value}}
    if path is not None:
        given["data"] = path
    if data is None and resume is None and ":" not in str(given.get("dataset")):
        raise OptionError(f"data is missing; {PARTS}")
    with _file_of(retrain) as file, kept_settings():
        found = train_options(given if file is None else given | {"retrain": file})
        samples = None if path is not None or data is None else _samples(data, found)
        if samples is None and not found.data and ":" not in (found.dataset or ""):
            raise OptionError(f"data: the run in {resume} was trained on data sets in Python; give them again")
        with ready_run(found, find_device(found.device), ALONE, samples) as ready:
            return _trained(ready, progress)


def _trained(ready: ReadyRun, progress: Progress | None) -> TrainedRun:
    options = ready.options
    _check(ready)
    pictures = RunPictures(
        options, ready.start, ready.data, ready.config, lambda: nullcontext(lambda images, reasons: None)
    )
    state = ready.start.state
    if options.classifier_only:
        keep_decisions(ready)
        fitted = fitted_classifier(ready, lambda images, _: None)
        pictures.report()
        return TrainedRun(options.save_folder, state.history, {reason: reason for reason in fitted.reasons})
    with _interruptions() as stop_signal:
        run = build_run(options, ready.start, ready.data, ready.config, stop_signal)
        keep_decisions(ready)
        pictures.begin()
        write = tensorboard_writer(options.save_folder / "tensorboard") if options.tensorboard else None
        try:
            for event in run.train():
                if isinstance(event, BatchTrained) and progress is not None:
                    progress((event.epoch - 1) * event.batches + event.batch, event.epochs * event.batches)
                if isinstance(event, Notice):
                    warnings.warn(event.text, event.category, stacklevel=3)
                if isinstance(event, EpochFinished) and write is not None:
                    write(event.figures)
        except RunStopped as stopped:
            raise KeyboardInterrupt from stopped
    pictures.end()
    return TrainedRun(options.save_folder, list(state.history), dict(state.skipped))


def _check(ready: ReadyRun) -> None:
    if is_checked(ready):
        findings = checked_data(ready.data, lambda images, _: None)
        for warning in findings.warnings:
            warnings.warn(warning, stacklevel=4)
        if left_out := usable_text(findings, ready):
            warnings.warn(left_out, stacklevel=4)


def _samples(data: Any, options: TrainOptions) -> SplitData:
    """Of two data sets in Python. Raises: OptionError, DataError."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise OptionError(f"data is {type(data).__name__}; {PARTS}")
    for_folders = [n for n in ("dataset", "val_fraction", "train_list", "val_list") if getattr(options, n) is not None]
    if for_folders:
        raise OptionError(f"{', '.join(for_folders)}: data says itself what is for validation; leave it out")
    train = samples_of(data[0], None, "train")
    return train, samples_of(data[1], train.class_names, "val"), None


@contextmanager
def _file_of(net: Any) -> Iterator[str | os.PathLike[str] | None]:
    """The file of a net; one that is loaded is in a file as long as the block lasts."""
    if net is None or isinstance(net, (str, os.PathLike)):
        yield net
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.pt")
        save_checkpoint(net, path)
        yield path


@contextmanager
def _interruptions() -> Iterator[Callable[[], int]]:
    """Gives the number of SIGINT once it came, or 0; the second one ends the work as usual, without saving.

    Outside of the main thread, which alone gets signals, it stays 0.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def stop(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    earlier = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: received[0] if received else 0
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if earlier is None else earlier)
