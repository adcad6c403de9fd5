"""Rows of a training: its step, and its start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scripts.benchmarks.files import data_set, name_elsewhere
from scripts.benchmarks.measure import Row, Seconds, importing, median, printed_numbers, program, quick, row, timed_row

TURNS = 3


def step_rows(_: Path) -> Iterator[Row]:
    """A step of 16 images, without loading: the median of each process, and of processes that take turns."""
    for net in ("resnet-18",) if quick.get() else ("resnet-18", "resnet-50"):
        for precision in ("single", "bf16"):
            times: tuple[list[Seconds], list[Seconds]] = ([], [])
            for _turn in range(1 if quick.get() else TURNS):
                steps = 1 if quick.get() else 7
                times[0].append(Seconds(*printed_numbers("step", net, precision, steps)))
                times[1].append(Seconds(*printed_numbers("step_timm", name_elsewhere(net), precision, steps)))
            name = f"training step, {net}, {precision} : timm's net, channels last, torch's fused SGD"
            yield timed_row(name, median(times[0]), median(times[1]), 1.0)


def start_rows(folder: Path) -> Iterator[Row]:
    """From the command to the first batch. The target is 2.2 s of CPU time where importing torch takes 1.7 s."""
    options = ("--data", data_set(folder), "--depth", "18", "--batch-size", "16", "--save", folder / "run")
    ours = program("first_batch", "train", *options, "--n-epochs", "1", "--overwrite")
    name = "start of a training until the first batch : import torch"
    yield replace(row(name, ours, importing("torch"), 2.2 / 1.7, 5), of_cpu=True)
