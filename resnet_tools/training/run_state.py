"""Where a run stands, in plain values, and the figures of an epoch that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from resnet_tools.history.history import Epoch
from resnet_tools.metrics import ErrorCounts
from resnet_tools.training.recipe import Recipe, lr_factor

INFINITY = float("inf")


@dataclass
class RunState:
    """Where a run stands, in plain values.

    `epoch`: the last finished one. `batches_done`, `counts`, `seconds`: of the epoch after it; counts are over all
    processes. `data`: a digest of the training samples. `skipped`: name -> why an image could not be read.
    """

    recipe: Recipe
    dataset: str
    seed: int
    data: str
    epoch: int = 0
    batches_done: int = 0
    counts: ErrorCounts = field(default_factory=ErrorCounts)
    seconds: float = 0.0
    best_epoch: int = 0
    best_top1_error: float = INFINITY
    best_top5_error: float = INFINITY
    history: list[Epoch] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def moment(self) -> str:
        """What the names of its files say: E, or E.B after B batches of epoch E."""
        return f"{self.epoch + 1}.{self.batches_done}" if self.batches_done else str(self.epoch)

    @property
    def stops_early(self) -> bool:
        """Whether the last `early_stop` epochs brought nothing better."""
        patience = self.recipe.early_stop
        return bool(patience) and self.best_epoch > 0 and self.epoch - self.best_epoch >= patience


def epoch_figures(state: RunState, epoch: int, images: int, val: ErrorCounts) -> Epoch:
    """The figures of an epoch that has just ended, on `images` training images; `lr` is that of its last batch."""
    recipe, train = state.recipe, state.counts
    batches = -(-images // recipe.batch_size)
    lr = recipe.lr * lr_factor(recipe, epoch - 1 + (batches - 1) / batches)
    speed = train.images / state.seconds if state.seconds else 0.0
    errors = train.loss, train.top1_error, train.top5_error, val.loss, val.top1_error, val.top5_error
    return Epoch(epoch, lr, *errors, state.seconds, speed)
