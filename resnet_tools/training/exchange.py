"""What the processes of a run report to each other -> what all of them do next.

A signal reaches one process first, and clocks differ. Whether to stop or to save is therefore decided from what every
process knows, so that all of them do the same after the same batch; otherwise some would wait for the others forever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_tools.metrics import ErrorCounts


@dataclass(frozen=True)
class ProcessStatus:
    """`stop_signal`: the number of the signal that asks to stop, or 0. `batch`, `epoch`: counts of the batch that was
    just trained, and of the epoch so far.
    """

    stop_signal: int
    save_due: bool
    batch: ErrorCounts
    epoch: ErrorCounts


def merged_status(statuses: Sequence[ProcessStatus]) -> ProcessStatus:
    """The status of the whole job: the signal of any process, the clock of process 0, and the sums of the counts."""
    return ProcessStatus(
        # Any signal stops all; of several the largest, so that all report the same one. One clock decides on saving.
        max(status.stop_signal for status in statuses),
        statuses[0].save_due,
        sum((status.batch for status in statuses), ErrorCounts()),
        sum((status.epoch for status in statuses), ErrorCounts()),
    )
