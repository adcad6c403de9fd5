"""`resnet evaluate`: the error of nets on labelled images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.notices import warnings_as_lines
from resnet_tools.cli.shared.options import (
    Inference,
    check_models,
    file_names,
    inference_options,
    quick_imports,
)
from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.cli.shared.several import in_processes, n_gpu_option
from resnet_tools.cli.shared.weights import weights_option
from resnet_tools.evaluation.options import PAGE, EvaluateOptions, Format
from resnet_tools.text import printable

if TYPE_CHECKING:
    from resnet_tools.checkpoints.runnable import Net, Runnable
    from resnet_tools.compute.processes import Processes

A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    epilog="Example: resnet evaluate resnet-50.t7 --data imagenet --report report",
    help="""Print the top-1 and top-5 error of each MODEL on labelled images, in percent, as the original's -testOnly
    does. For several models, print a Markdown table.

    DIR, or DIR/val, holds one folder of images per class. Folders are matched to the net's classes by name, or for
    ImageNet's 1000 classes by sorted WordNet id. If the net has no class names, the folders are its classes in byte
    order. A folder that `resnet train` divided is divided in the same way: split.csv beside the MODEL, or in DIR, says
    which images are evaluated.

    Alternatively, DIR holds images and --labels gives their classes, in lines of `path,class`, of `NAME CLASS`, or of
    one WordNet id or class name without spaces per image. Numbers are the net's outputs, counted from 0. The
    numbers in ILSVRC2012_validation_ground_truth.txt (ILSVRC2012_IDs) follow another order, which --synsets gives.""",
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=file_names)
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of labelled images, DIR.",
)
@click.option("--split", help="Subfolder of DIR to evaluate.  [default: val, or DIR itself]")
@click.option("--labels", type=A_FILE, help="File with the class of each image.")
@click.option("--synsets", type=A_FILE, help="File with all WordNet ids: line N holds that of ILSVRC2012_ID N.")
@click.option(
    "--class-names",
    type=A_FILE,
    help="File with the net's class names, spelled as the folders are, in any form that classify's --labels takes.",
)
@click.option(
    "--average",
    type=click.Choice(["outputs", "softmax"]),
    default="outputs",
    show_default=True,
    help="What to average over ten crops.",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="Leave out an image that cannot be read, or stop.",
)
@click.option(
    "--report", type=click.Path(file_okay=False, path_type=Path), help="Write tables and charts to this folder."
)
@click.option("--json", is_flag=True, help="Print one JSON object per line.")
@click.option("--csv", is_flag=True, help="Print comma-separated values with a header.")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@n_gpu_option
@weights_option
@inference_options
def command(inference: Inference, n_gpu: int, **values: Any) -> int:
    options = EvaluateOptions(**values)
    if options.json and options.csv:
        raise click.UsageError("--json and --csv exclude each other")
    check_models(options.models)
    if (code := in_processes(n_gpu, inference.device)) is not None:
        return code
    with quick_imports():
        from resnet_tools.checkpoints.runnable import ready_net
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.engines import device_for, find_engine
        from resnet_tools.compute.processes import joined_processes, own_device
    engine = find_engine(inference.engine, inference.device, inference.precision)
    device = find_device(own_device(device_for(engine, inference.device)))
    ready = partial(ready_net, engine=inference.engine, device=device, precision=inference.precision)
    with joined_processes() as processes, terminable("Stopped."), warnings_as_lines(quiet=processes.rank > 0):
        summaries = _summaries(options, inference, ready, processes)
        _print_all(summaries, options.format, first=processes.rank == 0)
    return 0


def _summaries(
    options: EvaluateOptions, inference: Inference, ready: Callable[[Runnable], Net], processes: Processes
) -> Iterator[dict[str, Any]]:
    """The summary of each model in turn, after its report has been written."""
    from resnet_tools.evaluation.report.files import report_folder

    folders = options.report_folders if processes.rank == 0 else [None] * len(options.models)
    with ExitStack() as stack:
        for folder in folders:
            if folder is not None:
                stack.enter_context(report_folder(folder))
        for model, folder in zip(options.models, folders, strict=True):
            yield _evaluate(model, folder, options, inference, ready, processes)
            if folder is not None:
                click.echo(f"saved the report to {printable(str(folder / PAGE))}", err=True)


def _evaluate(
    model: str,
    report: Path | None,
    options: EvaluateOptions,
    inference: Inference,
    ready: Callable[[Runnable], Net],
    processes: Processes,
) -> dict[str, Any]:
    """The summary of one model; `report`: the folder for its report, which is there."""
    from resnet_tools.checkpoints.runnable import load_runnable, require_classifier
    from resnet_tools.jobs.evaluate import evaluate_on, samples_for
    from resnet_tools.jobs.nets import given_names

    checkpoint = load_runnable(model, weights=options.weights)
    require_classifier(checkpoint, model)
    inference.check_sizes(checkpoint.preprocessing)
    names = given_names(options.class_names, checkpoint.num_classes) or checkpoint.class_names
    samples = samples_for(options, checkpoint, names, model)
    own_images = -(-len(samples) // processes.count)
    with progress_bar(own_images, "evaluate", quiet=options.quiet or processes.rank > 0) as progress:
        return evaluate_on(
            checkpoint,
            samples,
            replace(options, models=(model,)),
            inference.running(),
            ready=ready,
            report=report,
            progress=progress,
            processes=processes,
        ).summary


def _print_all(summaries: Iterable[dict[str, Any]], form: Format, *, first: bool) -> None:
    """Print lines as models finish, or a table at the end; if a model fails, the table of those before it."""
    from resnet_tools.evaluation.error_tables import csv_table, error_lines, markdown_table

    done: list[dict[str, Any]] = []
    try:
        for facts in summaries:
            done.append(facts)
            if first and form in ("json", "lines"):
                click.echo(json.dumps(facts) if form == "json" else "\n".join(error_lines(facts)))
    finally:
        if first and done and form in ("csv", "table"):
            click.echo((csv_table if form == "csv" else markdown_table)(done), nl=False)
