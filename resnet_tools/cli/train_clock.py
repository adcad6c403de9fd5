"""Events of a run -> how long the rest of it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resnet_tools.cli.train_lines import FORWARD_SHARE

if TYPE_CHECKING:
    from resnet_tools.training.events import Event


@dataclass
class RunClock:
    """Time from event to event, counted as training or as validation; call it with every event as it comes.

    epochs: those of the recipe. images: how many there are to train on and to validate on. now: a clock in seconds.
    What an earlier process did takes no time here.
    """

    epochs: int
    images: tuple[int, int]
    now: Callable[[], float] = time.monotonic
    begun: float = field(init=False)
    epoch_begun: float = field(init=False)
    last: float = field(init=False)
    batches_timed: int = 0
    train_seconds: float = 0.0
    epochs_validated: int = 0
    val_seconds: float = 0.0  # of these epochs
    val_now: float = 0.0  # of the one that is being validated
    batches: int = 0  # of an epoch
    batches_left: int = 0  # of this epoch
    epochs_left: int = 0  # after this one
    validated: float = 0.0  # the part of this epoch's validation that is done

    def __post_init__(self) -> None:
        self.begun = self.epoch_begun = self.last = self.now()

    def __call__(self, event: Event) -> None:
        from resnet_tools.training import events

        now = self.now()
        seconds, self.last = now - self.last, now
        if isinstance(event, events.EpochStarted):
            self.epoch_begun = now
        elif isinstance(event, events.BatchTrained):
            self.train_seconds += seconds
            self.batches_timed += 1
            self.batches, self.batches_left = event.batches, event.batches - event.batch
            self.epochs_left, self.validated, self.val_now = self.epochs - event.epoch, 0.0, 0.0
        elif isinstance(event, events.BatchValidated):
            self.val_now += seconds
            self.validated = event.evaluated.so_far.images / max(1, event.images)
        elif isinstance(event, events.EpochFinished):
            self.val_seconds += self.val_now + seconds
            self.epochs_validated += 1
            self.validated, self.batches_left = 1.0, 0

    @property
    def whole_seconds(self) -> tuple[float, float]:
        """Of the training and of the validation of all epochs, from what those so far took."""
        return self._batch_seconds * self.batches * self.epochs, self._validation_seconds * self.epochs

    @property
    def left_seconds(self) -> float:
        """Until the end of the last epoch."""
        batches = self.batches_left + self.epochs_left * self.batches
        return self._batch_seconds * batches + self._validation_seconds * (self.epochs_left + 1 - self.validated)

    @property
    def _batch_seconds(self) -> float:
        return self.train_seconds / max(1, self.batches_timed)

    @property
    def _validation_seconds(self) -> float:
        """Of one epoch; before the first has ended a guess, as validation is a forward pass only."""
        if self.epochs_validated:
            return self.val_seconds / self.epochs_validated
        train, val = self.images
        return FORWARD_SHARE * self._batch_seconds * self.batches * val / max(1, train)
