"""The run: epochs of training and validation, saved so that a stop at any moment loses nothing but the running batch.

Every process of a job runs this; process 0 reports and writes. What is computed depends on seed, data, recipe and the
number of processes alone, so a resumed run is the run that would have been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from torch import Tensor

from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.compute.inference import Loading
from resnet_tools.compute.processes import Processes, broadcast_buffers
from resnet_tools.data.samples import Samples
from resnet_tools.errors import ImageError, MemoryShortage, TrainingError
from resnet_tools.history import lines
from resnet_tools.history.history import Epoch
from resnet_tools.metrics import ErrorCounts
from resnet_tools.training.batches import (
    BatchLoader,
    Load,
    Positions,
    TrainingBatch,
    epoch_batches,
    loaded,
    mixing_seed,
    share_of,
)
from resnet_tools.training.memory import largest_that_fits
from resnet_tools.training.optimizer import set_lr
from resnet_tools.training.recipe import lr_factor
from resnet_tools.training.saving import RunState, save_run
from resnet_tools.training.step import Stepper, check_loss
from resnet_tools.training.validation import validate

ASKED_EVERY = 10  # batches after which processes ask each other whether to stop or save


class Stopped(Exception):
    """A signal asked to stop; the run is saved. `args[0]` is the number of the signal."""


@dataclass(frozen=True)
class Data:
    """The samples, and how their images are loaded: for training by `load`, for validation by `loading`."""

    train: Samples
    val: Samples
    load: Load
    loading: Loading


@dataclass(frozen=True)
class Reports:
    """Where a run tells what it does; `line` gets the original's lines, `progress` the phase, done, total and a note.

    `stopping` gives the number of a signal that asks to stop, or 0.
    """

    line: Callable[[str], None] = lambda _: None
    progress: Callable[[str, int, int, str], None] = lambda *_: None
    epoch: Callable[[Epoch], None] = lambda _: None
    stopping: Callable[[], int] = lambda: 0
    log_every: int = 1


@dataclass(frozen=True)
class Asked:
    """What all processes do now: stop because of the signal of this number, if it is not 0; save."""

    stop: int
    save: bool


@dataclass(frozen=True)
class Saving:
    """Where and when a run is saved; `keep`: how many epochs' files stay, 0 for all."""

    folder: Path
    every_seconds: float = float("inf")
    keep: int = 0


@dataclass
class Run:
    """`checkpoint.model` is the stepper's net; its description is what is saved with the weights."""

    stepper: Stepper
    checkpoint: Checkpoint
    state: RunState
    data: Data
    saving: Saving
    reports: Reports = field(default_factory=Reports)
    workers: int = 2
    skip_unreadable: bool = False

    def train(self) -> RunState:
        """Train to the last epoch of the recipe, or until `early_stop`; the state then.

        Raises: Stopped, TrainingError, ImageError for an image that cannot be read.
        """
        state = self.state
        self._check_sizes()
        self._own = state.counts if self._processes.rank == 0 else ErrorCounts()
        self._saved_at = time.monotonic()
        while state.epoch < state.recipe.epochs and not self._stale():
            self._train_epoch(state.epoch + 1)
            self._validate_epoch(state.epoch + 1)
        self._line(lines.finished_line(state.best_top1, state.best_top5))
        return state

    @property
    def _processes(self) -> Processes:
        return self.stepper.machine.processes

    def _check_sizes(self) -> None:
        count = self._processes.count
        if min(self.state.recipe.batch_size, len(self.data.train)) < count:
            raise TrainingError(
                f"{count} processes need an image each in every batch; there are batches of "
                f"{self.state.recipe.batch_size} and {len(self.data.train)} training images. Use fewer processes"
            )

    def _stale(self) -> bool:
        patience = self.state.recipe.early_stop
        return bool(patience) and self.state.best_epoch > 0 and self.state.epoch - self.state.best_epoch >= patience

    def _train_epoch(self, epoch: int) -> None:
        state, recipe, count = self.state, self.state.recipe, self._processes.count
        plan = epoch_batches(len(self.data.train), recipe.batch_size, state.seed, epoch, count)
        self.stepper.train_mode()
        if state.batches_done == 0:
            self._line(lines.epoch_line(epoch))
        started = time.monotonic()
        for number, batch in enumerate(self._batches(plan, epoch), state.batches_done + 1):
            data_seconds = time.monotonic() - started
            counts = self._step(batch, plan, number, epoch)
            self._own += counts
            state.batches_done = number
            seconds = time.monotonic() - started
            state.seconds += seconds
            self._show_progress(counts, number, len(plan))
            logged = number % self.reports.log_every == 0 or number == len(plan)
            if logged or number % ASKED_EVERY == 0 or count == 1:  # alone, nobody has to be asked
                asked, counts = self._exchange(counts)
                if logged:
                    self._line(lines.training_line(epoch, number, len(plan), seconds, data_seconds, counts))
                self._save_within(plan, number, asked)
            started = time.monotonic()

    def _show_progress(self, counts: ErrorCounts, number: int, batches: int) -> None:
        state = self.state
        left = timedelta(seconds=round(state.seconds / number * (batches - number)))
        speed = number * state.recipe.batch_size / max(state.seconds, 1e-9)
        note = f"loss {counts.loss:.4f}  {speed:.0f} images/s  {left} left"
        self.reports.progress(f"epoch {state.epoch + 1}/{state.recipe.epochs}", number, batches, note)

    def _batches(self, plan: Sequence[Positions], epoch: int) -> Iterator[TrainingBatch]:
        """What is left of the epoch for this process."""
        rank, count = self._processes.rank, self._processes.count
        shares = [share_of(batch, rank, count) for batch in plan[self.state.batches_done :]]
        loader = BatchLoader(self.data.train, self.data.load, self.state.seed, epoch)
        pin = self.stepper.machine.device.type == "cuda"
        return loaded(loader, shares, workers=self.workers, pin=pin)

    def _step(self, batch: TrainingBatch, plan: Sequence[Positions], number: int, epoch: int) -> ErrorCounts:
        """One batch; the weights move with the last one of those that are accumulated."""
        self._note_unreadable(batch)
        recipe, counts = self.state.recipe, ErrorCounts()
        factor = lr_factor(recipe, epoch - 1 + (number - 1) / len(plan))
        set_lr(self.stepper.optimizer, factor)
        images, last = _accumulated(plan, number, recipe.accumulate)
        if batch.images is not None:
            images -= len(batch.errors) if self._processes.count == recipe.accumulate == 1 else 0
            seed = mixing_seed(self.state.seed, epoch, number, self._processes.rank)
            counts = self._backward(batch.images, batch.targets, images, last=last, seed=seed)
            check_loss(counts, f"epoch {epoch}, batch {number}", recipe.lr * factor)
        if last:
            self.stepper.step()
        return counts

    def _note_unreadable(self, batch: TrainingBatch) -> None:
        if batch.errors and not self.skip_unreadable:
            raise ImageError(f"{batch.errors[0][1]}. Remove it, or give --on-error skip; the last checkpoint is kept")
        self.state.skipped.update(batch.errors)
        if batch.images is None and self._processes.count > 1:
            raise ImageError(f"{batch.errors[0][1]}. A process has no other image in this batch; remove the image")

    def _backward(self, images: Tensor, targets: Tensor, total: int, *, last: bool, seed: int) -> ErrorCounts:
        try:
            return self.stepper.backward(images, targets, total, last=last, seed=seed)
        except MemoryShortage:
            pass  # outside of this clause nothing holds on to the memory any more
        self.stepper.optimizer.zero_grad(set_to_none=True)
        fits = largest_that_fits(lambda n: self.stepper.backward(images[:n], targets[:n], n, last=False), len(images))
        raise TrainingError(_memory_advice(len(images), fits, self._processes.count, self.state.recipe.accumulate))

    def _exchange(self, counts: ErrorCounts) -> tuple[Asked, ErrorCounts]:
        """What any process is asked to do, and the counts of the batch over all processes."""
        due = time.monotonic() - self._saved_at > self.saving.every_seconds
        gathered = self._processes.gather((self.reports.stopping(), due, counts, self._own))
        self.state.counts = sum((own for *_, own in gathered), ErrorCounts())
        asked = Asked(max(stop for stop, *_ in gathered), gathered[0][1])  # the first process's clock counts
        return asked, sum((of_batch for _, _, of_batch, _ in gathered), ErrorCounts())

    def _save_within(self, plan: Sequence[Positions], number: int, asked: Asked) -> None:
        """Save if it is time or if the run must stop, unless a step is half accumulated."""
        _, whole = _accumulated(plan, number, self.state.recipe.accumulate)
        if whole and (asked.stop or asked.save):
            self._save(best=False)
        if whole and asked.stop:
            raise Stopped(asked.stop)

    def _validate_epoch(self, epoch: int) -> None:
        state, model, machine = self.state, self.stepper.evaluated, self.stepper.machine
        broadcast_buffers(model, self._processes)
        counts, skipped = ErrorCounts(), state.skipped if self.skip_unreadable else None
        shared_batches = len(self.data.val) // (self.data.loading.batch_size * self._processes.count)
        batches = validate(model, self.data.val, self.data.loading, machine, epoch, skipped=skipped)
        for number, (line, counts) in enumerate(batches, 1):
            if line:
                self._line(line)
            self.reports.progress(f"validation {epoch}", counts.images, len(self.data.val), f"top1 {counts.top1:.3f}")
            if number <= shared_batches:  # those that every process has
                asked, _ = self._exchange(ErrorCounts())
                if asked.stop:
                    self._save(best=False)
                    raise Stopped(asked.stop)
        self._line(lines.epoch_end_line(epoch, counts))
        self._finish_epoch(epoch, counts)

    def _finish_epoch(self, epoch: int, val: ErrorCounts) -> None:
        state, train = self.state, self.state.counts
        for skipped in self._processes.gather(state.skipped):
            state.skipped.update(skipped)
        batches = -(-len(self.data.train) // state.recipe.batch_size)
        lr = state.recipe.lr * lr_factor(state.recipe, epoch - 1 + (batches - 1) / batches)
        speed = train.images / state.seconds if state.seconds else 0.0
        figures = (train.loss, train.top1, train.top5, val.loss, val.top1, val.top5, state.seconds, speed)
        state.history.append(Epoch(epoch, lr, *figures))
        self.reports.epoch(state.history[-1])
        best = val.top1 < state.best_top1
        if best:
            state.best_epoch, state.best_top1, state.best_top5 = epoch, val.top1, val.top5
            self._line(lines.best_line(val.top1, val.top5))
        state.epoch, state.batches_done, state.counts, state.seconds = epoch, 0, ErrorCounts(), 0.0
        self._own = ErrorCounts()
        self._save(best=best)
        asked, _ = self._exchange(ErrorCounts())
        if asked.stop and epoch < state.recipe.epochs:
            raise Stopped(asked.stop)

    def _save(self, *, best: bool) -> None:
        if self._processes.rank == 0:
            saved = replace(self.checkpoint, model=self.stepper.evaluated)
            folder = self.saving.folder
            save_run(folder, saved, self.stepper, self.state, best=best, keep=self.saving.keep)
        self._saved_at = time.monotonic()
        self._processes.wait()

    def _line(self, line: str) -> None:
        if self._processes.rank == 0:
            self.reports.line(line)


def _accumulated(plan: Sequence[Positions], number: int, accumulate: int) -> tuple[int, bool]:
    """The images of the step that batch `number` (from 1) is part of, and whether it is the last batch of it."""
    first = (number - 1) // accumulate * accumulate
    group = plan[first : first + accumulate]
    return sum(map(len, group)), number == first + len(group)


def _memory_advice(images: int, fits: int, processes: int, accumulate: int) -> str:
    where = "a process" if processes > 1 else "the device"
    text = f"a batch of {images} images does not fit into the memory of {where}"
    if not fits:
        return f"{text}, nor does one image; try a smaller --crop-size, --checkpoint-activations or --precision bf16"
    batches = -(-images // fits) * accumulate
    return (
        f"{text}; {fits} would. Give --batch-size {fits * processes} --accumulate {batches} for steps of as many "
        "images, or try --checkpoint-activations, --precision bf16 or a smaller --crop-size"
    )
