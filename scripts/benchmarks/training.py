"""Rows of a training: its step, and its start."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.files import data_set, name_elsewhere
from scripts.benchmarks.measure import Row, importing, printed_number, program, quick, row

TURNS = 3


def step_rows(_: Path) -> Iterator[Row]:
    """A step of 16 images, without loading: the median of each process, and of processes that take turns."""
    for net in ("resnet-18",) if quick.get() else ("resnet-18", "resnet-50"):
        for precision in ("single", "bf16"):
            seconds: tuple[list[float], list[float]] = ([], [])
            for _turn in range(1 if quick.get() else TURNS):
                steps = 1 if quick.get() else 7
                seconds[0].append(printed_number("step", net, precision, steps))
                seconds[1].append(printed_number("step_timm", name_elsewhere(net), precision, steps))
            mine, theirs = map(statistics.median, seconds)
            detail = f"{mine * 1e3:,.0f} ms against {theirs * 1e3:,.0f} ms"
            yield Row(f"training step, {net}, {precision} : timm, channels last", mine / theirs, 1.0, detail)


def start_rows(folder: Path) -> Iterator[Row]:
    """From the command to the first batch. The target is 2.2 s where importing torch takes 1.5 s of CPU time."""
    options = ("--data", data_set(folder), "--depth", "18", "--batch-size", "16", "--save", folder / "run")
    ours = program("first_batch", "train", *options, "--n-epochs", "1", "--overwrite")
    name = "start of a training until the first batch : import torch"
    yield row(name, ours, importing("torch"), 2.2 / 1.5, 5)
