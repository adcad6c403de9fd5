"""`resnet train`: fine-tuning and training from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.notices import say, warnings_as_lines
from resnet_tools.cli.shared.option_groups import GroupedCommand
from resnet_tools.cli.shared.options import quick_imports
from resnet_tools.cli.shared.several import in_processes
from resnet_tools.cli.train_classifier import train_classifier
from resnet_tools.cli.train_clock import RunClock
from resnet_tools.cli.train_lines import end_lines, next_lines, opening_lines, resume_notes, start_line
from resnet_tools.cli.train_options import check_options, read_options, train_options
from resnet_tools.cli.train_output import (
    event_printer,
    list_skipped,
    print_lines,
    print_stop,
    print_test,
    stop_requests,
)
from resnet_tools.cli.train_pictures import run_pictures
from resnet_tools.errors import OptionError

if TYPE_CHECKING:
    from resnet_tools.data.splits import SplitRow
    from resnet_tools.jobs.run import ReadyRun
    from resnet_tools.jobs.run_pictures import RunPictures
    from resnet_tools.training.options import TrainOptions
    from resnet_tools.training.start import Start

SMALL_IMAGES = (
    "most images are 64 pixels or smaller: a net for small images suits them and trains fast (--arch cifar10-resnet-20)"
)


@click.command(
    cls=GroupedCommand,
    epilog="Example: resnet train --retrain resnet-50.t7 --data dir --reset-classifier --n-classes 80",
    help="""Fine-tune a net on a folder of images, or train a new one.

    --data holds train/LABEL/IMAGE and val/LABEL/IMAGE, or LABEL/IMAGE, of which a part is kept for validation. After
    each epoch, model_E.pt, optimState_E.pt, latest.pt, history.csv and, if it is the best so far, model_best.pt are
    written to --save; at the end also pictures and a report. Ctrl-C saves and stops; --resume FOLDER continues, with
    the options that the run was started with. On several machines: torchrun ... -m resnet_tools train ...""",
)
@train_options
def command(**values: Any) -> int:
    options, anew = read_options(values)
    check_options(options)
    if (code := in_processes(options.n_gpu, options.device)) is not None:
        return code
    with quick_imports():
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.processes import joined_processes, own_device
        from resnet_tools.jobs.run import keep_decisions, ready_run
    device = find_device(own_device(options.device))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with (
        joined_processes(backend) as processes,
        warnings_as_lines(quiet=processes.rank > 0),
        _usage_errors(),
        ready_run(options, device, processes) as ready,
    ):
        _check_data(ready)
        if options.test_only:
            return _test(ready)
        if options.classifier_only:
            keep_decisions(ready)
            _say_split(options, ready.split)
            return train_classifier(ready, run_pictures(ready.options, ready.start, ready.data, ready.config))
        return _train(ready, anew)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """What is wrong with options is wrong with the command line."""
    try:
        yield
    except OptionError as error:
        raise click.UsageError(str(error)) from None


def _check_data(ready: ReadyRun) -> None:
    """Check the data set before training, in the first process. Raises: DataError with all that is wrong."""
    from resnet_tools.cli.shared.running import progress_bar
    from resnet_tools.data.datasets import mostly_small
    from resnet_tools.jobs.run import checked_data, is_checked, usable_text

    options, train, val = ready.options, ready.data.train, ready.data.val
    if ready.config.processes.rank > 0 or not options.check:
        return
    if not options.test_only and not options.chooses_net and mostly_small(train):
        say(SMALL_IMAGES)
    if not is_checked(ready):
        return
    with progress_bar(len(train) + len(val), "check", quiet=options.quiet) as progress:
        findings = checked_data(ready.data, progress)
    for warning in findings.warnings:
        say(warning, UserWarning)
    if left_out := usable_text(findings, ready):
        say(left_out, UserWarning)


def _say_split(options: TrainOptions, split: Sequence[SplitRow] | None) -> None:
    if split is not None and not options.resume:
        count = sum(row.split == "val" for row in split)
        say(f"validation uses {count} of the {len(split)} images; {options.save_folder / 'split.csv'} says which")


def _test(ready: ReadyRun) -> int:
    """The error rates on the validation set, as the original's -testOnly prints them."""
    from resnet_tools.evaluation.evaluate import evaluate_batches

    options, start, data, config = ready.options, ready.start, ready.data, ready.config
    batches = evaluate_batches(
        start.checkpoint.model.to(config.device, config.dtype),
        data.val,
        data.loading,
        on_error=options.on_error or "fail",
        processes=config.processes,
        autocast=config.autocast,
    )
    first = config.processes.rank == 0
    print_lines(start.lines if first else ())
    list_skipped(print_test(batches, data.val, config.processes, quiet=options.quiet))
    return 0


def _train(ready: ReadyRun, anew: Sequence[str]) -> int:
    """anew: options in place of those of a resumed run."""
    from resnet_tools.jobs.run import keep_decisions
    from resnet_tools.training.run import RunStopped
    from resnet_tools.training.setup import build_run

    options, start, data, config = ready.options, ready.start, ready.data, ready.config
    first, code = config.processes.rank == 0, 0
    pictures = run_pictures(options, start, data, config)
    with stop_requests() as stop_signal:
        run = build_run(options, start, data, config, stop_signal)
        if first:
            print_lines(opening_lines(start))
            print_lines([start_line(options, start, data, config)], err=_is_original(start))
            print_lines(resume_notes(start, anew), err=True)
            keep_decisions(ready)
            _say_split(options, ready.split)
            pictures.begin()
        clock = RunClock(start.state.recipe.epochs, (len(data.train), len(data.val)))
        show = event_printer(options, start, config, clock)
        try:
            for event in run.train():
                show(event)
        except RunStopped as stopped:
            code = 128 + stopped.signal  # as a shell reports a process that a signal ended
            print_stop(stopped.signal, run.state, options.save_folder, first=first)
    if first:
        list_skipped(run.state.skipped)
        if not code:
            _print_end(options, start, pictures, clock)
        print_lines(next_lines(options, data.val, stopped=bool(code)), err=bool(code) or _is_original(start))
    config.processes.wait()  # for the first, which draws
    return code


def _is_original(start: Start) -> bool:
    """Whether stdout is for the lines of the original alone."""
    return start.state.recipe.name == "original"


def _print_end(options: TrainOptions, start: Start, pictures: RunPictures, clock: RunClock) -> None:
    """What came of the run, after its pictures have been drawn."""
    seconds = clock.now() - clock.begun
    pictures.end()
    lines = end_lines(
        start.state,
        options.save_folder,
        start.checkpoint.num_classes,
        seconds=seconds,
        begun_after=pictures.begun_after,
        pictures=pictures.drawn,
    )
    print_lines(lines, err=_is_original(start))
