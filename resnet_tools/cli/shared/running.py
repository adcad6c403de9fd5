"""Long-running commands: progress on stderr, and a clean stop."""

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
    """Let SIGTERM end the work as Ctrl-C does: at once, keeping finished results; `message` goes to stderr."""

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
def progress_bar(count: int, label: str, *, quiet: bool) -> Iterator[Callable[[int, list[str]], None]]:
    """A bar on stderr with rate and time left; call it with the number of images done and the error messages.

    Without a terminal, or if `quiet`, only the messages and their number at the end are printed.
    """
    hidden = quiet or not sys.stderr.isatty()
    unreadable = 0
    recent: deque[tuple[float, int]] = deque(
        maxlen=100
    )  # (seconds, position); images that an earlier run did must not count as speed
    with click.progressbar(
        length=count, label=label, file=sys.stderr, hidden=hidden, show_pos=True, show_eta=False, item_show_func=str
    ) as bar:

        def report(files: int, messages: list[str]) -> None:
            nonlocal unreadable
            unreadable += len(messages)
            for message in messages:
                click.echo(f"{'' if hidden else chr(10)}Error: {printable(message)}", err=True)
            recent.append((time.monotonic(), bar.pos + files))
            bar.update(files, _speed(recent, count))

        yield report
    if unreadable:
        click.echo(f"{unreadable} of {count} images could not be read.", err=True)


def _speed(recent: Sequence[tuple[float, int]], count: int) -> str:
    """Rate and time left: `12.3 images/s, 0:01:20 left`."""
    (start, first), (now, position) = recent[0], recent[-1]
    if now <= start or position <= first:
        return ""
    rate = (position - first) / (now - start)
    return f"{rate:.3g} images/s, {timedelta(seconds=round(max(0, count - position) / rate))} left"
