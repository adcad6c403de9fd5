"""`resnet train`: fine-tuning and training from scratch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.option_groups import GroupedCommand
from resnet_tools.cli.shared.options import changed_preprocessing, quick_imports, warnings_as_lines
from resnet_tools.cli.shared.several import in_processes
from resnet_tools.cli.train_options import check_options, train_options
from resnet_tools.cli.train_output import (
    event_printer,
    list_skipped,
    print_lines,
    print_stop,
    print_test,
    stop_requests,
)
from resnet_tools.compute.job import was_restarted
from resnet_tools.text import printable
from resnet_tools.training.options import TrainOptions

if TYPE_CHECKING:
    from resnet_tools.compute.processes import Processes
    from resnet_tools.data.samples import Samples
    from resnet_tools.data.splits import SplitRow
    from resnet_tools.training.compute_config import ComputeConfig
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
    written to --save. Ctrl-C saves and stops; --resume continues. On several machines: torchrun ... -m resnet_tools
    train ...""",
)
@train_options
def command(**values: Any) -> int:
    options = TrainOptions(**values)
    if was_restarted(os.environ):
        options = options.continued()
    check_options(options)
    if (code := in_processes(options.n_gpu, options.device)) is not None:
        return code
    with quick_imports():
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.processes import joined_processes, own_device
        from resnet_tools.data.datasets import dataset_kind, read_split_dataset
        from resnet_tools.data.splits import SPLIT_FILE, Splitting
        from resnet_tools.training.setup import held_folder, held_to_resume, run_data, set_up_compute
        from resnet_tools.training.start import dataset_of, find_start
    device = find_device(own_device(options.device))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with (
        joined_processes(backend) as processes,
        warnings_as_lines(quiet=processes.rank > 0),
        held_folder(options, processes),
    ):
        dataset = dataset_of(options)
        stored = Path(options.resume, SPLIT_FILE) if options.resume else None
        splitting = Splitting(options.val_fraction, options.manual_seed or 0, stored)
        train, val, split = read_split_dataset(dataset, options.data, splitting, options.train_list, options.val_list)
        _check_data(train, val, options, processes)
        with held_to_resume(options, processes):
            start = find_start(options, dataset_kind(dataset), train)
        config = set_up_compute(options, start, device, processes)
        changes = options.resize_size, options.crop_size, options.exif_orientation
        sizes = changed_preprocessing(start.checkpoint.preprocessing, *changes)
        data = run_data(options, start, train, val, sizes, config)
        if options.test_only:
            return _test(options, start, data, config)
        return _train(options, start, data, config, split)


def _check_data(train: Samples, val: Samples, options: TrainOptions, processes: Processes) -> None:
    """Check the data set before training, in the first process. Raises: DataError with all that is wrong."""
    from resnet_tools.cli.shared.running import progress_bar
    from resnet_tools.data.checking import check_samples
    from resnet_tools.data.datasets import mostly_small
    from resnet_tools.errors import DataError

    if processes.rank > 0 or not options.check:
        return
    if not options.chooses_net and mostly_small(train):
        click.echo(SMALL_IMAGES, err=True)
    decode = len(train) + len(val) <= MAX_DECODED
    with progress_bar(len(train) + len(val), "check", quiet=options.quiet) as progress:
        findings = check_samples(train, val, decode=decode, progress=lambda images, _: progress(images, []))
    for warning in findings.warnings:
        click.echo(f"Warning: {printable(warning)}", err=True)
    if findings.errors and options.on_error == "fail":
        advice = "Fix these errors, or give --on-error skip to leave out images that cannot be read"
        raise DataError(*findings.errors, advice)


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
        on_error=options.on_error,
        processes=config.processes,
        autocast=config.autocast,
    )
    first = config.processes.rank == 0
    print_lines(start.lines if first else ())
    list_skipped(print_test(batches, data.val, config.processes, quiet=options.quiet))
    return 0


def _train(
    options: TrainOptions, start: Start, data: RunData, config: ComputeConfig, split: Sequence[SplitRow] | None
) -> int:
    """split: which image is for what, if that was decided here."""
    from resnet_tools.data.splits import keep_split
    from resnet_tools.training.recipe import recipe_line
    from resnet_tools.training.run import RunStopped
    from resnet_tools.training.setup import build_run

    first, code = config.processes.rank == 0, 0
    print_lines((recipe_line(start.state.recipe), *start.lines) if first else ())
    with stop_requests() as stop_signal:
        run = build_run(options, start, data, config, stop_signal)
        if first:
            keep_split(options.save_folder, split)
            _say_split(split if not options.resume else None, options.save_folder)
        show = event_printer(options, first=first)
        try:
            for event in run.train():
                show(event)
        except RunStopped as stopped:
            code = 128 + stopped.signal  # as a shell reports a process that a signal ended
            print_stop(stopped.signal, run.state, options.save_folder, first=first)
    list_skipped(run.state.skipped if first else {})
    return code
