"""`resnet train`: fine-tuning and training from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.option_groups import GroupedCommand
from resnet_tools.cli.shared.options import changed_preprocessing, quick_imports, warnings_as_lines
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
from resnet_tools.cli.train_pictures import RunPictures
from resnet_tools.text import printable

if TYPE_CHECKING:
    from resnet_tools.compute.processes import Processes
    from resnet_tools.data.samples import Samples
    from resnet_tools.data.splits import SplitRow
    from resnet_tools.training.compute_config import ComputeConfig
    from resnet_tools.training.options import TrainOptions
    from resnet_tools.training.run import RunData
    from resnet_tools.training.start import Start

MAX_DECODED = (
    2000  # data sets up to this size are fully decoded before training; `resnet check-data` decodes any number
)

SMALL_IMAGES = (
    "Most images are 64 pixels or smaller: a net for small images suits them and is quick (--arch cifar10-resnet-20)"
)


@click.command(
    cls=GroupedCommand,
    epilog="Example: resnet train --retrain resnet-50.t7 --data dir --reset-classifier --n-classes 80",
    short_help="Fine-tune a net, or train a new one.",
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
        from resnet_tools.data.datasets import dataset_kind
        from resnet_tools.training.run_samples import dataset_of, read_samples
        from resnet_tools.training.setup import held_folder, held_to_resume, run_data, set_up_compute
        from resnet_tools.training.start import find_start
    device = find_device(own_device(options.device))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with (
        joined_processes(backend) as processes,
        warnings_as_lines(quiet=processes.rank > 0),
        held_folder(options, processes),
    ):
        # Whatever was given is looked at before the images are, which may take minutes.
        train, val, split = read_samples(options)
        with held_to_resume(options, processes):
            start = find_start(options, dataset_kind(dataset_of(options)), train)
        is_default = options.on_error is None
        options = options.with_on_error(start.state.recipe.name)
        config = set_up_compute(options, start, device, processes)
        changes = options.resize_size, options.crop_size, options.exif_orientation
        sizes = changed_preprocessing(start.checkpoint.preprocessing, *changes)
        data = run_data(options, start, train, val, sizes, config)
        _check_data(train, val, options, processes, may_skip_most=not is_default)
        if options.test_only:
            return _test(options, start, data, config)
        if options.classifier_only:
            _keep_decisions(options, split)
            return train_classifier(options, start, data, config, RunPictures(options, start, data, config))
        return _train(options, start, data, config, split, anew)


def _check_data(
    train: Samples, val: Samples, options: TrainOptions, processes: Processes, *, may_skip_most: bool
) -> None:
    """Check the data set before training, in the first process. Raises: DataError with all that is wrong.

    may_skip_most: leaving out more than half of the images was asked for.
    """
    from resnet_tools.cli.shared.running import progress_bar
    from resnet_tools.data.checking import check_samples
    from resnet_tools.data.datasets import mostly_small
    from resnet_tools.errors import DataError

    if processes.rank > 0 or not options.check:
        return
    if not options.test_only and not options.chooses_net and mostly_small(train):
        click.echo(SMALL_IMAGES, err=True)
    decode = len(train) + len(val) <= MAX_DECODED
    if options.test_only and not decode:
        return  # every image is decoded next
    with progress_bar(len(train) + len(val), "check", quiet=options.quiet) as progress:
        findings = check_samples(train, val, decode=decode, progress=lambda images, _: progress(images, []))
    for warning in findings.warnings:
        click.echo(f"Warning: {printable(warning)}", err=True)
    bad, images = len(findings.errors), len(train) + len(val)
    if bad and (options.on_error == "fail" or (2 * bad > images and not may_skip_most)):
        advice = "Fix these errors, or give --on-error skip to leave out images that cannot be read"
        raise DataError(*findings.errors, advice)
    if bad:
        click.echo(
            f"Warning: {bad} of {images} images cannot be read and are left out; they are listed at the end "
            "(--on-error fail stops instead)",
            err=True,
        )


def _say_split(split: Sequence[SplitRow] | None, folder: Path) -> None:
    if split is not None:
        count = sum(row.split == "val" for row in split)
        file = printable(str(folder / "split.csv"))
        click.echo(f"{count} of {len(split)} images are for validation; {file} says which", err=True)


def _test(options: TrainOptions, start: Start, data: RunData, config: ComputeConfig) -> int:
    """The error rates on the validation set, as the original's -testOnly prints them."""
    from resnet_tools.evaluation.evaluate import evaluate_batches

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


def _train(
    options: TrainOptions,
    start: Start,
    data: RunData,
    config: ComputeConfig,
    split: Sequence[SplitRow] | None,
    anew: Sequence[str],
) -> int:
    """split: which image is for what, if that was decided here. anew: options in place of those of a resumed run."""
    from resnet_tools.training.run import RunStopped
    from resnet_tools.training.setup import build_run

    first, code = config.processes.rank == 0, 0
    pictures = RunPictures(options, start, data, config)
    with stop_requests() as stop_signal:
        run = build_run(options, start, data, config, stop_signal)
        if first:
            print_lines(opening_lines(start))
            print_lines([start_line(options, start, data, config)], err=_is_original(start))
            print_lines(resume_notes(start, anew), err=True)
            _keep_decisions(options, split)
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


def _keep_decisions(options: TrainOptions, split: Sequence[SplitRow] | None) -> None:
    """What a resumed run needs to know of this one."""
    from resnet_tools.data.splits import keep_split
    from resnet_tools.training.arguments import keep_arguments

    keep_split(options.save_folder, split)
    keep_arguments(options, options.save_folder)
    _say_split(split if not options.resume else None, options.save_folder)
