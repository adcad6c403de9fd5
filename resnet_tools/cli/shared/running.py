"""Long work on the command line: it shows where it is on stderr, and it can be stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from resnet_tools.errors import Terminated
from resnet_tools.text import printable


@contextmanager
def terminable(message: str) -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: at once, with what is done kept; `message` says so on stderr."""

    def stop(*_: Any) -> None:
        raise Terminated

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        click.echo(message, err=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, earlier)


@contextmanager
def progress_bar(
    count: int, label: str, *, quiet: bool, not_finite: str | None = None
) -> Iterator[Callable[[int, list[str]], None]]:
    """A bar on stderr with rate and time left; call it with the number of images done and messages on unreadable ones.

    Without a terminal, or if `quiet`, only the messages and their number at the end are printed. `not_finite`: how
    messages end that tell of NaN, which are counted apart.
    """
    hidden = quiet or not sys.stderr.isatty()
    unreadable = without_numbers = 0
    recent: deque[tuple[float, int]] = deque(maxlen=100)  # seconds and position: what a resumed run finds is not speed
    with click.progressbar(
        length=count, label=label, file=sys.stderr, hidden=hidden, show_pos=True, show_eta=False, item_show_func=str
    ) as bar:

        def report(files: int, messages: list[str]) -> None:
            nonlocal unreadable, without_numbers
            told = sum(message.endswith(not_finite) for message in messages) if not_finite else 0
            unreadable, without_numbers = unreadable + len(messages) - told, without_numbers + told
            for message in messages:
                click.echo(f"{'' if hidden else chr(10)}Error: {printable(message)}", err=True)
            recent.append((time.monotonic(), bar.pos + files))
            bar.update(files, _speed(recent, count))

        yield report
    if unreadable:
        click.echo(f"{unreadable} of {count} images could not be read.", err=True)
    if without_numbers:
        click.echo(f"{without_numbers} of {count} images gave NaN or infinite features.", err=True)


def _speed(recent: Sequence[tuple[float, int]], count: int) -> str:
    """Rate and time left: `12.3 images/s, 0:01:20 left`."""
    (start, first), (now, position) = recent[0], recent[-1]
    if now <= start or position <= first:
        return ""
    rate = (position - first) / (now - start)
    return f"{rate:.3g} images/s, {timedelta(seconds=round(max(0, count - position) / rate))} left"
