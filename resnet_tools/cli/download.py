"""`resnet download`: fetch a model and keep it only if it is the one that its name promises."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click

from resnet_tools.cli.shared.options import quick_imports
from resnet_tools.cli.shared.running import plain_number, terminable
from resnet_tools.text import printable

MEGABYTE = 1_000_000
STOPPED = "Stopped. Give the same command again to continue."


@click.command(
    epilog="Example: resnet download resnet-50.t7",
    help="""Fetch NAME, a published checkpoint that `resnet models` lists, or the file at an https address.

    The file is kept only if the net in it is the one that its name promises. An interrupted download continues when
    the same command is given again.""",
)
@click.argument("name")
@click.option(
    "--output", type=click.Path(path_type=Path), help="File or folder to write to.  [default: NAME in this folder]"
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
def command(name: str, output: Path | None, force: bool, quiet: bool) -> None:
    with quick_imports():
        from resnet_tools.checkpoints.download import download, find_source, target_of
        from resnet_tools.nets.catalog import describe
    source = find_source(name)
    target = target_of(source, output)
    with terminable(STOPPED), _bar(target.name, quiet=quiet) as report:
        done = download(source, target, report, force=force)
    what = "already exists" if done.was_there else f"saved from {source.address}"
    click.echo(printable(f"{target}: {what} ({done.path.stat().st_size:,} bytes)"))
    click.echo(describe(done.architecture))


@contextmanager
def _bar(label: str, *, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr for bytes; without a terminal, or if `quiet`, nothing."""
    recent: deque[tuple[float, int]] = deque(maxlen=100)  # seconds and bytes: what an earlier call fetched is no speed
    hidden = quiet or not sys.stderr.isatty()
    with click.progressbar(
        length=1, label=printable(label), file=sys.stderr, hidden=hidden, show_eta=False, item_show_func=_note
    ) as bar:

        def report(done: int, total: int | None) -> None:
            recent.append((time.monotonic(), done))
            bar.length = total or done + MEGABYTE  # without a length there is always more to come
            bar.update(done - bar.pos, _speed(recent, total))

        yield report


def _note(speed: str | None) -> str:
    return speed or ""


def _speed(recent: deque[tuple[float, int]], total: int | None) -> str:
    """`12.3 of 97.8 MB, 3.2 MB/s, 0:00:26 left`."""
    (start, first), (now, done) = recent[0], recent[-1]
    of = f" of {total / MEGABYTE:.1f}" if total else ""
    text = f"{done / MEGABYTE:.1f}{of} MB"
    if now <= start or done <= first:
        return text
    rate = (done - first) / (now - start)
    left = f", {timedelta(seconds=round((total - done) / rate))} left" if total else ""
    return f"{text}, {plain_number(rate / MEGABYTE)} MB/s{left}"
