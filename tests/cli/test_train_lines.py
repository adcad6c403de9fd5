"""What is said of a run, and how long it is said to take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from resnet_tools.cli.train_clock import RunClock
from resnet_tools.cli.train_lines import duration, epoch_line, next_lines, shorter_line
from resnet_tools.data.samples import Samples
from resnet_tools.history.history import Epoch
from resnet_tools.metrics import ErrorCounts
from resnet_tools.training.events import BatchTrained, BatchValidated, EpochFinished, EpochStarted


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (20, False), (21, True), (1000, True)])
def test_the_error_of_five_is_shown_where_there_are_many_classes(classes, shown):
    figures = Epoch(1, train_loss=1.0, train_top1=50.0, train_top5=12.5, val_top1=25.0)
    said = {"epochs": 2, "best": True, "num_classes": classes, "seconds": 9.6, "left": 61.0}
    line = epoch_line(figures, ErrorCounts(8, 2, 1, 4.0), **said)
    assert ("top-5 error 12.50 %" in line) is shown
    assert "error 25.00 %" in line
    assert "(accuracy 75.00 %), the best so far; 10 s, 0:01:01 left" in line


def trained(epoch: int, batch: int) -> BatchTrained:
    return BatchTrained(epoch, 3, batch, 2, ErrorCounts(), 8, 1.0)


def validated(images: int) -> BatchValidated:
    return BatchValidated(1, SimpleNamespace(so_far=ErrorCounts(images)), 8)


def test_the_time_that_is_left_is_that_of_the_run():
    now = iter([0, 0, 10, 20, 22, 26, 26, 36, 46, 52])
    clock = RunClock(3, (16, 8), lambda: next(now))
    figures = EpochFinished(Epoch(1), ErrorCounts(), False)
    left = []
    for event in (EpochStarted(1), trained(1, 1), trained(1, 2), validated(4), figures):
        clock(event)
        left.append(clock.left_seconds)
    # Ten seconds a batch, two batches an epoch. A validation of half as many images, forward only: a sixth of 20 s.
    assert left[1:3] == pytest.approx([10 + 40 + 3 * 20 / 6, 40 + 3 * 20 / 6])
    assert left[3] == pytest.approx(40 + 2.5 * 20 / 6)  # half of the first is done
    assert left[4] == pytest.approx(40 + 2 * 6)  # it took 2 + 4 seconds
    assert clock.whole_seconds == pytest.approx((60, 18))
    for event in (EpochStarted(2), trained(2, 1), trained(2, 2), figures):
        clock(event)
    assert clock.left_seconds == pytest.approx(20 + 6)


def test_a_long_run_on_a_cpu_is_told_what_would_shorten_it():
    said = {"fine_tuning": True, "stages": 4, "frozen": 0}
    assert shorter_line(500, 100, **said) is None
    line = shorter_line(1200, 60, **said)
    # Forward is a third; of the backward pass only the last of four stages is left: 1200 * (1 / 3 + 2 / 3 / 4) + 60.
    assert line.startswith("the whole run takes about 0:21:00 on this CPU. With --freeze 4")
    assert f"it would be about {duration(1200 / 2 + 60)}; --classifier-only computes" in line
    assert "--freeze" not in shorter_line(1200, 60, **said | {"fine_tuning": False})
    assert "--freeze" not in shorter_line(1200, 60, **said | {"frozen": 4})


OPTIONS = SimpleNamespace(save_folder="run", data="d", val_list=None, dataset=None)
FILES = Samples(["d/it's/a b.png"], [0], ["it's"])


@pytest.mark.parametrize(
    ("changes", "val", "stopped", "expected"),
    [
        ({}, FILES, False, ["""classify run 'd/it'"'"'s/a b.png'""", "evaluate run --data d --report run/report"]),
        ({}, FILES, True, ["train --resume run", """classify run 'd/it'"'"'s/a b.png'"""]),
        ({}, Samples(["d/\x1bit's\n\\.png"], [0], ["x"]), False, [r"classify run $'d/\x1bit\'s\n\\.png'", None]),
        ({"val_list": "v.csv"}, FILES, False, [None, "evaluate run --data d --labels v.csv --report run/report"]),
        ({"dataset": "m:f"}, FILES, True, ["train --resume run --dataset m:f", None]),
        ({"dataset": "cifar10"}, Samples([0], [0], ["a"]), False, [None, "plot run --output run/curves.png"]),
    ],
)
def test_the_next_commands_are_those_for_the_data(tmp_path, changes, val, stopped, expected):
    from pathlib import Path

    options = SimpleNamespace(**vars(OPTIONS) | changes | {"save_folder": Path("run")})
    lines = next_lines(options, val, stopped=stopped)
    assert lines[0] == "Next:"
    for line, words in zip(lines[1:], expected, strict=True):
        assert words is None or line == f"  resnet {words}"
