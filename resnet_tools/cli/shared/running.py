"""Long-running commands: progress on stderr, and a clean stop."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import click

from resnet_tools.errors import Terminated
from resnet_tools.text import printable

HANGUP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # which Windows has not


@contextmanager
def terminable(message: str) -> Iterator[None]:
    """Let SIGTERM and a lost terminal end the work as Ctrl-C does: at once, keeping finished results; `message` goes
    to stderr, and is all that is said. SIGHUP is left alone where it is ignored, as under nohup."""

    def stop(number: int, _: Any) -> None:
        raise Terminated(number)

    with handled((signal.SIGTERM, *HANGUP), stop):
        try:
            yield
        except (KeyboardInterrupt, Terminated) as stopped:
            with suppress(OSError):  # the terminal may be gone
                click.echo(message, err=True)
            raise stopped if isinstance(stopped, Terminated) else Terminated(signal.SIGINT) from None


@contextmanager
def handled(numbers: Sequence[int], handler: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """Let `handler` have these signals, but SIGHUP where it is ignored, as under nohup. Gives the handlers before."""
    earlier = {number: signal.getsignal(number) for number in numbers}
    earlier = {n: before for n, before in earlier.items() if n not in HANGUP or before is not signal.SIG_IGN}
    for number in earlier:
        signal.signal(number, handler)
    try:
        yield earlier
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@contextmanager
def progress_bar(
    count: int, label: str, *, quiet: bool, not_finite: str | None = None
) -> Iterator[Callable[[int, list[str]], None]]:
    """A bar on stderr with rate and time left; call it with the number of images done and the error messages.

    Without a terminal, or if `quiet`, only the messages and their number at the end are printed. `not_finite`: how
    messages end that tell of NaN, which are counted apart.
    """
    hidden = quiet or not sys.stderr.isatty()
    unreadable = without_numbers = 0
    # Seconds and positions; images that an earlier run did must not count as speed.
    recent: deque[tuple[float, int]] = deque(maxlen=100)
    with click.progressbar(
        length=count, label=label, file=sys.stderr, hidden=hidden, show_pos=True, show_eta=False, item_show_func=_note
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


def _note(speed: str | None) -> str:
    """What follows the bar; there is nothing to say before the first image."""
    return speed or ""


def _speed(recent: Sequence[tuple[float, int]], count: int) -> str:
    """Rate and time left: `12.3 images/s, 0:01:20 left`."""
    (start, first), (now, position) = recent[0], recent[-1]
    if now <= start or position <= first:
        return ""
    rate = (position - first) / (now - start)
    return f"{plain_number(rate)} images/s, {timedelta(seconds=round(max(0, count - position) / rate))} left"


def plain_number(value: float) -> str:
    """A positive number with three digits that count, never with an exponent: 1234, 12.3, 0.00012."""
    decimals = max(0, 2 - math.floor(math.log10(value)))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text
