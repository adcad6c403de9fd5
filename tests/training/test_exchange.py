"""What several processes agree on."""

from __future__ import annotations

from resnet_tools.metrics import ErrorCounts
from resnet_tools.training.exchange import ProcessStatus, merged_status


def test_any_process_may_ask_to_stop_and_the_first_ones_clock_counts():
    nothing = ErrorCounts()
    first, second = ProcessStatus(0, False, nothing, nothing), ProcessStatus(15, True, nothing, nothing)
    assert merged_status([first, second]) == ProcessStatus(15, False, nothing, nothing)
    assert merged_status([second, first]) == ProcessStatus(15, True, nothing, nothing)


def test_counts_of_all_processes_add_up():
    statuses = [ProcessStatus(0, False, ErrorCounts(2, 1, 0, 3.0), ErrorCounts(k, 0, 0, 0.5)) for k in (4, 5)]
    merged = merged_status(statuses)
    assert (merged.batch, merged.epoch) == (ErrorCounts(4, 2, 0, 6.0), ErrorCounts(9, 0, 0, 1.0))
