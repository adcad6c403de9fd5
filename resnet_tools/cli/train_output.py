"""What `resnet train` prints while it runs, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.notices import say
from resnet_tools.cli.shared.running import HANGUP, handled, progress_bar
from resnet_tools.cli.train_clock import RunClock
from resnet_tools.cli.train_lines import batch_line, duration, epoch_line, shorter_line
from resnet_tools.text import counted, printable

if TYPE_CHECKING:
    from resnet_tools.compute.processes import Processes
    from resnet_tools.data.samples import Samples
    from resnet_tools.evaluation.evaluate import EvaluatedBatch
    from resnet_tools.training.compute_config import ComputeConfig
    from resnet_tools.training.events import Event
    from resnet_tools.training.options import TrainOptions
    from resnet_tools.training.run_state import RunState
    from resnet_tools.training.start import Start

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *HANGUP)
SAME_REQUEST_SECONDS = 1  # a launcher and its process group may both pass on the same signal


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Names in them may come from files, so they are made printable."""
    for line in lines:
        click.echo(printable(line), err=err)


def list_skipped(skipped: Mapping[str, str]) -> None:
    if skipped:
        were = "was" if len(skipped) == 1 else "were"
        click.echo(f"{counted(len(skipped), 'image')} could not be read and {were} left out:", err=True)
    for reason in skipped.values():
        click.echo(f"  {printable(reason)}", err=True)


def print_stop(number: int, state: RunState, folder: Path, *, first: bool) -> None:
    if first:
        epoch, batches = state.epoch, state.batches_done
        where = f"in epoch {epoch + 1}, after batch {batches}" if batches else f"after epoch {epoch}"
        name = signal.Signals(number).name
        click.echo(
            f"Stopped by {name} {where}; everything is saved. --resume {printable(str(folder))} continues the run.",
            err=True,
        )


@contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Gives the number of the first SIGINT, SIGTERM or SIGHUP since, or 0; the second ends the process as usual.

    SIGHUP, which a lost terminal sends, is left alone where it is ignored, as under nohup.
    """
    received: list[tuple[int, float]] = []

    def stop(number: int, _: Any) -> None:
        if not received:
            received.append((number, time.monotonic()))
            with suppress(OSError):  # the terminal may be gone
                os.write(2, b"\nStopping after this batch and saving ... (repeat to stop at once without saving)\n")
        elif time.monotonic() - received[0][1] > SAME_REQUEST_SECONDS:
            for each, handler in earlier.items():
                signal.signal(each, handler)
            signal.raise_signal(number)

    with handled(STOP_SIGNALS, stop) as earlier:
        yield lambda: received[0][0] if received else 0


def print_test(batches: Iterable[EvaluatedBatch], val: Samples, processes: Processes, *, quiet: bool) -> dict[str, str]:
    """Print the original's lines on a validation outside of a training; the images that could not be read."""
    from resnet_tools.evaluation.evaluate import total_counts
    from resnet_tools.history import lines

    first, done = processes.rank == 0, []
    skipped: dict[str, str] = {}
    own_images = -(-len(val) // processes.count)
    with progress_bar(own_images, "test", quiet=quiet or not first) as progress:
        for batch in batches:
            done.append((batch.number, batch.counts))
            skipped |= {val.name(k): reason for k, reason in batch.errors.items()}
            if first:
                click.echo(_test_line(0, batch))
                progress(batch.counts.images, [])
    counts = total_counts(done, processes)
    if first:
        click.echo(f"{lines.epoch_end_line(0, counts)}\n{lines.results_line(counts.top1_error, counts.top5_error)}")
    return skipped


def event_printer(
    options: TrainOptions, start: Start, config: ComputeConfig, clock: RunClock
) -> Callable[[Event], None]:
    """A function that shows what happens in a run: lines on stdout, a progress bar on stderr, TensorBoard's files.

    On a terminal, the bar takes the place of the lines on single batches. Only the first process shows anything.
    """
    if config.processes.rank > 0:
        return lambda event: None
    original, num_classes = start.state.recipe.name == "original", start.checkpoint.num_classes
    write_figures = None
    if options.tensorboard:
        from resnet_tools.training.board import tensorboard_writer

        write_figures = tensorboard_writer(options.save_folder / "tensorboard")
    bar = not options.quiet and sys.stderr.isatty()
    bar_only = bar and sys.stdout.isatty()  # both on one terminal: lines would tear the bar apart

    from resnet_tools.training.events import EpochFinished, Notice

    def show(event: Event) -> None:
        clock(event)
        for text in _original_lines(event) if original else _own_lines(event, num_classes, clock):
            if not bar_only or not _is_batch(event):
                _print_line(("\r\033[K" if bar_only else "") + text)
        if isinstance(event, Notice):
            say(event.text, event.category, before="\r\033[K" if bar else "")
        if isinstance(event, EpochFinished) and clock.epochs_validated == 1 and config.device.type == "cpu":
            _advise(options, start, clock)
        if bar and not (bar_only and isinstance(event, EpochFinished)) and (found := _progress(event, clock)):
            label, done, total, note = found
            end = done == total and not bar_only
            click.echo(f"\r\033[K{label}  {done}/{total}  {note}", err=True, nl=end)
        if write_figures and isinstance(event, EpochFinished):
            write_figures(event.figures)

    return show


def _print_line(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:  # the reader of stdout has gone, but training continues
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_batch(event: Event) -> bool:
    from resnet_tools.training.events import BatchLogged, BatchValidated

    return isinstance(event, (BatchLogged, BatchValidated))


def _own_lines(event: Event, num_classes: int, clock: RunClock) -> list[str]:
    """What there is to say when this happens, outside of the original's recipe."""
    from resnet_tools.training import events

    if isinstance(event, events.BatchLogged):
        return [batch_line(event)] if event.batch < event.batches else []  # what the epoch's own line follows
    if isinstance(event, events.EpochFinished):
        seconds, left = clock.last - clock.epoch_begun, clock.left_seconds
        return [
            epoch_line(
                event.figures,
                event.val,
                epochs=clock.epochs,
                best=event.best,
                num_classes=num_classes,
                seconds=seconds,
                left=left,
            )
        ]
    return []


def _advise(options: TrainOptions, start: Start, clock: RunClock) -> None:
    """Say what would make a long run on a CPU shorter."""
    stages, frozen = len(start.checkpoint.architecture.stages), start.state.recipe.freeze
    text = shorter_line(*clock.whole_seconds, fine_tuning=bool(options.retrain), stages=stages, frozen=frozen)
    if text:
        say(text)


def _original_lines(event: Event) -> list[str]:
    """The lines that the original prints when this happens."""
    from resnet_tools.history import lines
    from resnet_tools.training import events

    if isinstance(event, events.EpochStarted):
        return [lines.epoch_line(event.epoch)]
    if isinstance(event, events.BatchLogged):
        figures = (event.batch, event.batches, event.seconds, event.data_seconds, event.counts)
        return [lines.training_line(event.epoch, *figures)]
    if isinstance(event, events.BatchValidated):
        return [_test_line(event.epoch, event.evaluated)]
    if isinstance(event, events.EpochFinished):
        end = lines.epoch_end_line(event.figures.epoch, event.val)
        return [end, lines.best_line(event.val.top1_error, event.val.top5_error)] if event.best else [end]
    if isinstance(event, events.RunFinished):
        return [lines.finished_line(event.best_top1_error, event.best_top5_error)]
    return []


def _test_line(epoch: int, batch: EvaluatedBatch) -> str:
    from resnet_tools.history import lines

    times = (batch.seconds, batch.data_seconds)
    return lines.test_line(epoch, batch.number, batch.batches, *times, batch.counts, batch.so_far)


def _progress(event: Event, clock: RunClock) -> tuple[str, int, int, str] | None:
    """Label, done, total and a note for the progress bar; the time that is left is that of the run."""
    from resnet_tools.training import events

    left = f"{duration(clock.left_seconds)} left"
    if isinstance(event, events.BatchTrained):
        speed = f"{event.batch * event.batch_size / max(event.epoch_seconds, 1e-9):.0f} images/s"
        loss = f"loss {event.counts.loss:.4f}  " if event.counts.images else ""  # none has been read yet
        note = f"{loss}{speed}  {left}"
        return f"epoch {event.epoch}/{event.epochs}", event.batch, event.batches, note
    if isinstance(event, events.BatchValidated):
        counts = event.evaluated.so_far
        note = f"error {counts.top1_error:.2f} %  {left}"
        return f"validation {event.epoch}", counts.images, event.images, note
    if isinstance(event, events.EpochFinished):
        images, error = event.val.images, event.val.top1_error
        return f"validation {event.figures.epoch}", images, images, f"error {error:.2f} %"
    return None
