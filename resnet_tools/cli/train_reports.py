"""What a training says while it runs, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from resnet_tools.training.run import Reports
    from resnet_tools.training.start import Start

SAME_REQUEST_SECONDS = 1  # a launcher and its group may both pass a signal on


def list_skipped(skipped: dict[str, str]) -> None:
    if skipped:
        click.echo(f"{len(skipped)} images could not be read and were left out:", err=True)
    for reason in skipped.values():
        click.echo(f"  {reason}", err=True)


def stopped(number: int, epoch: int, batches: int, folder: Path, *, first: bool) -> int:
    if first:
        where = f"epoch {epoch + 1}, batch {batches}" if batches else f"the end of epoch {epoch}"
        name = signal.Signals(number).name
        click.echo(f"Stopped by {name} at {where}; all is saved. --resume {folder} goes on from here.", err=True)
    return 128 + number


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM appends its number to; the second ends the process as usual."""
    flag: list[int] = []
    asked: list[float] = []
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: Any) -> None:
        if not flag:
            asked.append(time.monotonic())
            os.write(2, b"\nStopping after this batch and saving ... (again: at once, without saving)\n")
        elif time.monotonic() - asked[0] > SAME_REQUEST_SECONDS:
            for each, handler in earlier.items():
                signal.signal(each, handler)
            signal.raise_signal(number)
        flag.append(number)

    for number in earlier:
        signal.signal(number, stop)
    try:
        yield flag
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def reports(options: dict[str, Any], start: Start, flag: list[int], *, first: bool) -> Iterator[Reports]:
    """Lines to stdout, a progress bar on stderr; on a terminal the bar takes the place of the lines of batches."""
    from resnet_tools.training.run import Reports

    bar = first and not options["quiet"] and sys.stderr.isatty()
    terse = bar and sys.stdout.isatty()

    def line(text: str) -> None:
        if not terse or not text.startswith(" | "):
            try:
                click.echo(("\r\033[K" if terse else "") + text)
            except BrokenPipeError:  # nobody reads any more; the training goes on
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def progress(phase: str, done: int, total: int, note: str) -> None:
        if bar:
            click.echo(f"\r\033[K{phase}  {done}/{total}  {note}", err=True, nl=done == total and not terse)

    write = None
    if options["tensorboard"] and first:
        from resnet_tools.training.board import tensorboard_writer

        write = tensorboard_writer(Path(options["save"]) / "tensorboard")
    every = options["log_every"] or (1 if start.state.recipe.name == "original" else 10)
    yield Reports(line, progress, write or (lambda _: None), lambda: flag[0] if flag else 0, every)
