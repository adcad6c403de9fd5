"""The run: epochs of training and validation, saved so that a stop at any moment loses at most the running batch.

`Run.train` is the loop; it yields what happens as events and prints nothing. Every process of a job runs it, process 0
also writes the files. What is computed depends only on seed, data, recipe and the number of processes, so a resumed run
gives the same weights as one that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.compute.inference import Loading
from resnet_tools.compute.processes import Processes, broadcast_buffers
from resnet_tools.data.samples import Samples
from resnet_tools.errors import DeviceMemoryError, ImageError, TrainingError
from resnet_tools.evaluation.evaluate import evaluate_batches, total_counts
from resnet_tools.metrics import ErrorCounts
from resnet_tools.training.batches import (
    Positions,
    TrainingBatch,
    epoch_batches,
    mixing_seed,
    share_of,
    step_of,
)
from resnet_tools.training.counts import BatchCounts, EpochCounts
from resnet_tools.training.events import (
    BatchLogged,
    BatchTrained,
    BatchValidated,
    EpochFinished,
    EpochStarted,
    Event,
    RunFinished,
)
from resnet_tools.training.exchange import ProcessStatus, merged_status
from resnet_tools.training.loading import BatchLoader
from resnet_tools.training.loading_watch import LoadingWatch
from resnet_tools.training.memory import largest_that_fits, memory_advice
from resnet_tools.training.optimizer import set_lr
from resnet_tools.training.recipe import lr_factor
from resnet_tools.training.run_state import RunState, epoch_figures
from resnet_tools.training.saving import save_run
from resnet_tools.training.step import TrainStep
from resnet_tools.training.transforms import Transform

EXCHANGE_EVERY = 10  # batches after which the processes agree on whether to stop or save


class RunStopped(Exception):
    """A signal asked to stop, and the run has been saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@dataclass(frozen=True)
class RunData:
    """The samples, and how their images are loaded: `transform` for training, `loading` for validation.

    skip_unreadable: leave out images that cannot be read; otherwise they are an error.
    """

    train: Samples
    val: Samples
    transform: Transform
    loading: Loading
    skip_unreadable: bool = False


@dataclass(frozen=True)
class SavePolicy:
    """Where a run is saved, and how often within epochs; `keep`: the number of epochs whose files stay, 0 for all."""

    folder: Path
    every_seconds: float = float("inf")
    keep: int = 0


@dataclass
class Run:
    """`checkpoint.model` is the net of `train_step`; the rest of `checkpoint` is saved with the weights.

    stop_signal: gives the number of a signal that asks to stop, or 0.
    """

    train_step: TrainStep
    checkpoint: Checkpoint
    state: RunState
    data: RunData
    saving: SavePolicy
    stop_signal: Callable[[], int] = lambda: 0
    log_every: int = 1
    watch: LoadingWatch | None = None
    processes: Processes = field(init=False)
    counts: EpochCounts = field(init=False)  # of this process
    loader: BatchLoader = field(init=False)
    saved_at: float = field(init=False)  # time.monotonic()

    def __post_init__(self) -> None:
        self.processes = self.train_step.config.processes
        # A resumed epoch has counts over all processes already; process 0 takes them over, so that they count once.
        self.counts = EpochCounts(self.state.counts if self.processes.rank == 0 else ErrorCounts())
        self.loader = BatchLoader(
            self.data.train,
            self.data.transform,
            self.state.seed,
            workers=self.data.loading.workers,
            device=self.train_step.config.device,
        )
        self.saved_at = time.monotonic()

    def train(self) -> Iterator[Event]:
        """Train to the last epoch of the recipe, or until `early_stop`.

        Raises: RunStopped, TrainingError, ImageError for an image that cannot be read.
        """
        state = self.state
        self._check_sizes()
        try:
            while state.epoch < state.recipe.epochs and not state.stops_early:
                epoch = state.epoch + 1
                yield from self._train_epoch(epoch)
                yield from self._validate_epoch(epoch)
        finally:
            self.loader.close()
        yield RunFinished(state.best_top1_error, state.best_top5_error)

    def _train_epoch(self, epoch: int) -> Iterator[Event]:
        """What is left of the epoch: all of it, or the batches after those that an earlier process has trained on."""
        state, recipe, train_step = self.state, self.state.recipe, self.train_step
        plan = epoch_batches(len(self.data.train), recipe.batch_size, state.seed, epoch, self.processes.count)
        train_step.train_mode()
        if state.batches_done == 0:
            yield EpochStarted(epoch)
        clock = time.monotonic()
        for number, batch in enumerate(self._load(plan, epoch), state.batches_done + 1):
            data_seconds = time.monotonic() - clock

            # The learning rate follows the schedule from batch to batch.
            factor = lr_factor(recipe, epoch - 1 + (number - 1) / len(plan))
            set_lr(train_step.optimizer, factor)

            # Forward and backward. With --accumulate several batches make one step, and the last of them updates the
            # weights.
            step_images, last = step_of(plan, number, recipe.accumulate)
            seed = mixing_seed(state.seed, epoch, number, self.processes.rank)
            counts = self._backward(batch, step_images, last=last, seed=seed)
            self.counts.add(counts, f"epoch {epoch}, batch {number}", recipe.lr * factor)
            if last:
                train_step.update()

            state.batches_done = number
            logged = number % self.log_every == 0 or number == len(plan)
            if logged:
                self.counts.read()  # waits for the device, so that the time is that of what has been computed
            seconds = time.monotonic() - clock
            state.seconds += seconds
            yield BatchTrained(
                epoch, recipe.epochs, number, len(plan), self.counts.last, recipe.batch_size, state.seconds
            )

            if self.watch is not None:
                yield from self.watch.notices(batch, data_seconds, seconds)

            # Processes wait for each other here, so several of them do it only now and then.
            if logged or number % EXCHANGE_EVERY == 0 or self.processes.count == 1:
                status = self._exchange()
                if logged:
                    yield BatchLogged(epoch, number, len(plan), seconds, data_seconds, status.batch)
                if last:  # a half-accumulated gradient is not saved
                    self._save_if_asked(status)
            clock = time.monotonic()

    def _validate_epoch(self, epoch: int) -> Iterator[Event]:
        state, model, val = self.state, self.train_step.evaluated_model, self.data.val
        loading = replace(self.data.loading, processes=self.loader.processes)
        broadcast_buffers(model, self.processes)  # all validate the net that process 0 saves
        done: list[tuple[int, ErrorCounts]] = []
        shared_batches = len(val) // (loading.batch_size * self.processes.count)  # that many batches every process has
        for batch in evaluate_batches(
            model,
            val,
            loading,
            on_error="skip" if self.data.skip_unreadable else "fail",
            processes=self.processes,
            autocast=self.train_step.config.autocast,
        ):
            state.skipped.update({val.name(k): reason for k, reason in batch.errors.items()})
            done.append((batch.number, batch.counts))
            yield BatchValidated(epoch, batch, len(val))
            # All processes must call an exchange together, so none is made after the last batch that every one has.
            if len(done) <= shared_batches:
                self._save_if_asked(self._exchange(), only_to_stop=True)
        yield from self._finish_epoch(epoch, total_counts(done, self.processes))

    def _finish_epoch(self, epoch: int, val: ErrorCounts) -> Iterator[Event]:
        state = self.state
        # Each process has seen its own images only, and process 0 writes what is saved.
        for skipped in self.processes.gather(state.skipped):
            state.skipped.update(skipped)
        state.history.append(epoch_figures(state, epoch, len(self.data.train), val))
        best = val.top1_error < state.best_top1_error
        if best:
            state.best_epoch, state.best_top1_error, state.best_top5_error = epoch, val.top1_error, val.top5_error
        yield EpochFinished(state.history[-1], val, best)

        # The state becomes that of a run between two epochs, and is saved as such.
        state.epoch, state.batches_done, state.counts, state.seconds = epoch, 0, ErrorCounts(), 0.0
        self.counts = EpochCounts()
        self._save(best=best)
        stop_signal = self._exchange().stop_signal
        if stop_signal and epoch < state.recipe.epochs:
            raise RunStopped(stop_signal)

    def _check_sizes(self) -> None:
        count = self.processes.count
        if min(self.state.recipe.batch_size, len(self.data.train)) < count:
            raise TrainingError(
                f"{count} processes need an image each in every batch; the batch size is "
                f"{self.state.recipe.batch_size}, and there are {len(self.data.train)} training images. Use fewer "
                "processes"
            )

    def _load(self, plan: Sequence[Positions], epoch: int) -> Iterator[TrainingBatch]:
        """The share of this process in the batches that are left of the epoch."""
        shares = [
            share_of(batch, self.processes.rank, self.processes.count) for batch in plan[self.state.batches_done :]
        ]
        return self.loader.epoch(epoch, shares)

    def _backward(self, batch: TrainingBatch, step_images: int, *, last: bool, seed: int) -> BatchCounts | None:
        """Add the gradient of a batch; None if it has no image that could be read.

        Raises: ImageError; TrainingError saying which batch size would fit.
        """
        self._note_unreadable(batch)
        if batch.images is None:
            return None
        if self.processes.count == self.state.recipe.accumulate == 1:
            # The mean is over the images that were read. Elsewhere nobody knows what others could not read.
            step_images -= len(batch.errors)
        images, targets = batch.images, batch.targets
        try:
            return self.train_step.backward(images, targets, step_images, last=last, seed=seed)
        except DeviceMemoryError:
            pass  # outside of this clause nothing holds on to the memory any more
        self.train_step.optimizer.zero_grad()
        fits = None
        if self.processes.count == 1:  # others would wait for the exchange of what is tried here
            fits = largest_that_fits(
                lambda n: self.train_step.backward(images[:n], targets[:n], n, last=False), len(images)
            )
        raise TrainingError(memory_advice(len(images), fits, self.processes.count, self.state.recipe.accumulate))

    def _note_unreadable(self, batch: TrainingBatch) -> None:
        if batch.errors and not self.data.skip_unreadable:
            raise ImageError(
                f"{batch.errors[0][1]}. Remove or replace the image, or give --on-error skip; the last checkpoint is "
                "kept"
            )
        self.state.skipped.update(batch.errors)
        if batch.images is None and self.processes.count > 1:
            raise ImageError(
                f"{batch.errors[0][1]}. It leaves a process without images in this batch; remove or replace the image"
            )

    def _exchange(self) -> ProcessStatus:
        """Tell the other processes about this one; the status of the whole job. All processes call it together.

        What is saved or exchanged has been looked at before.
        """
        save_due = time.monotonic() - self.saved_at > self.saving.every_seconds
        stop_signal = self.stop_signal()
        if stop_signal or save_due or self.processes.count > 1:
            self.counts.read()
        own = ProcessStatus(stop_signal, save_due, self.counts.last, self.counts.epoch)
        job = merged_status(self.processes.gather(own))
        self.state.counts = job.epoch
        return job

    def _save_if_asked(self, status: ProcessStatus, *, only_to_stop: bool = False) -> None:
        if status.stop_signal or (status.save_due and not only_to_stop):
            self._save(best=False)
        if status.stop_signal:
            raise RunStopped(status.stop_signal)

    def _save(self, *, best: bool) -> None:
        if self.processes.rank == 0:
            saved = replace(self.checkpoint, model=self.train_step.evaluated_model)
            save_run(self.saving.folder, saved, self.train_step, self.state, best=best, keep=self.saving.keep)
        self.saved_at = time.monotonic()
        self.processes.wait()  # nobody ends before the files are written
