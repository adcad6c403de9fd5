"""`resnet evaluate`: the error of nets on labelled images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.options import (
    Inference,
    check_models,
    inference_options,
    quick_imports,
    warnings_as_lines,
)
from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.cli.shared.weights import weights_option

if TYPE_CHECKING:
    from resnet_tools.checkpoints.checkpoint import Checkpoint
    from resnet_tools.compute.inference import Loading
    from resnet_tools.data.samples import Samples
    from resnet_tools.evaluation.evaluate import Evaluation
    from resnet_tools.nets.resnet import ResNet

A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ERRORS = ("top1_error", "top5_error")


@click.command(
    epilog="Example: resnet evaluate resnet-50.t7 --data imagenet --report report",
    short_help="Print the top-1 and top-5 error on labelled images.",
    help="""Print the top-1 and top-5 error in percent of each MODEL on labelled images, as the original's
    -testOnly does; of several models, a table in Markdown.

    DIR, or DIR/val, holds a folder for each class. Folders are matched to the net's classes by name, for ImageNet's
    1000 also by sorted WordNet id; for a net without names they are its classes in the order of bytes.

    Or it holds images whose classes --labels gives, in lines of `path,class`, of `NAME CLASS`, or of one WordNet id or
    name without spaces for each image. Numbers are the net's outputs, counted from 0. The ILSVRC2012_IDs of
    ILSVRC2012_validation_ground_truth.txt are others and need --synsets.""",
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of labelled images.",
)
@click.option("--split", help="The part of DIR to evaluate.  [default: val, or DIR itself]")
@click.option("--labels", type=A_FILE, help="The class of each image.")
@click.option("--synsets", type=A_FILE, help="All WordNet ids: that of ILSVRC2012_ID 1 in line 1, and so on.")
@click.option("--class-names", type=A_FILE, help="The net's classes in order, one a line, as the folders name them.")
@click.option(
    "--average",
    type=click.Choice(["outputs", "softmax"]),
    default="outputs",
    show_default=True,
    help="What is averaged over ten crops.",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="An unreadable image: leave it out, or stop.",
)
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="A folder for tables and pictures.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with a header.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@weights_option
@inference_options
def command(
    models: tuple[str, ...],
    folder: Path,
    split: str | None,
    labels: Path | None,
    synsets: Path | None,
    class_names: Path | None,
    average: str,
    on_error: str,
    report: Path | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
    weights: str | None,
    inference: Inference,
) -> int:
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    check_models(models)
    with quick_imports():
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.inference import prepare
        from resnet_tools.compute.processes import joined_processes, own_device
        from resnet_tools.data.labelled import Outputs, labelled_samples
        from resnet_tools.data.labels import read_labels
        from resnet_tools.evaluation.evaluate import evaluate
    names = None if class_names is None else read_labels(class_names)
    ready = partial(prepare, device=find_device(own_device(inference.device)), precision=inference.precision)
    conditions = {
        "data": str(folder),
        "split": split,
        "labels": labels and str(labels),
        "precision": inference.precision,
    }

    def samples_of(checkpoint: Checkpoint) -> Samples:
        outputs = Outputs(checkpoint.architecture.num_classes, names or checkpoint.class_names)
        return labelled_samples(folder, outputs, split=split, labels=labels, synsets=synsets)

    with joined_processes() as processes, terminable("Stopped."), warnings_as_lines(quiet=processes.rank > 0):
        first = processes.rank == 0
        run = partial(evaluate, average=average, on_error=on_error, processes=processes)  # type: ignore[arg-type]

        def shown(net: ResNet, samples: Samples, loading: Loading) -> Evaluation:
            own = -(-len(samples) // processes.count)
            with progress_bar(own, "evaluate", quiet=quiet or not first) as progress:
                return run(net, samples, loading, progress=progress)

        rows = (
            _evaluated(model, weights, target if first else None, samples_of, inference, ready, shown, conditions)
            for model, target in zip(models, _report_folders(report, models), strict=True)
        )
        _print_all(rows, "csv" if as_csv else "json" if as_json else "line" if len(models) == 1 else "table", first)
    return 0


def _evaluated(
    model: str,
    weights: str | None,
    report: Path | None,
    samples_of: Callable[[Checkpoint], Samples],
    inference: Inference,
    ready: Callable[[ResNet], ResNet],
    run: Callable[[ResNet, Samples, Loading], Evaluation],
    conditions: dict[str, Any],
) -> dict[str, Any]:
    """The facts of one model; its report is written to the folder `report`."""
    from resnet_tools.checkpoints.checkpoint import load_checkpoint, require_classifier
    from resnet_tools.evaluation.report.files import begin_report, write_report
    from resnet_tools.evaluation.report.summary import summary

    if report is not None:
        begin_report(report)
    checkpoint = load_checkpoint(model, weights=weights)
    require_classifier(checkpoint, model)
    samples, loading = samples_of(checkpoint), inference.loading(checkpoint.preprocessing)
    evaluation = run(ready(checkpoint.model), samples, loading)
    facts = summary(evaluation, checkpoint.architecture, loading, {"model": model, **conditions})
    if report is not None:
        write_report(report, evaluation, facts)
    return facts


def _print_all(rows: Iterable[dict[str, Any]], form: str, first: bool) -> None:
    """Print as the models are done, a table at the end; also the part of it that is done when a model fails."""
    done: list[dict[str, Any]] = []
    try:
        for row in rows:
            done.append(row)
            if first and form in ("json", "line"):
                click.echo(json.dumps(row) if form == "json" else _lines(row))
    finally:
        if first and done and form in ("csv", "table"):
            click.echo((_csv if form == "csv" else _markdown)(done), nl=False)


def _lines(row: dict[str, Any]) -> str:
    """The last line of the original, and below it the published errors with the difference."""
    from resnet_tools.history.lines import results_line

    lines = [results_line(row["top1_error"], row["top5_error"])]
    if row["published"]:
        top1, top5 = (f"{row['published'][name]:6.3f} ({_difference(row, name):+.3f})" for name in ERRORS)
        lines.append(f" * Published top1: {top1}  top5: {top5}")
    return "\n".join(lines)


def _difference(row: dict[str, Any], name: str) -> float:
    """Ours less the published one, in percent points."""
    return float(row[name] - row["published"][name])


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    published = any(row["published"] for row in rows)
    columns = ["model", "images", "top-1 error", "top-5 error"]
    columns += ["published top-1", "difference", "published top-5", "difference"] if published else []
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)]]
    for row in rows:
        cells = [row["model"].replace("|", "\\|"), str(row["images"]), *(f"{row[name]:.3f}" for name in ERRORS)]
        if row["published"]:
            for name in ERRORS:
                cells += [f"{row['published'][name]:.2f}", f"{_difference(row, name):+.3f}"]
        lines.append(cells + [""] * (len(columns) - len(cells)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "images", "unreadable", *ERRORS, *(f"published_{name}" for name in ERRORS)])
    for row in rows:
        published = [row["published"][name] if row["published"] else "" for name in ERRORS]
        writer.writerow([row["model"], row["images"], len(row["unreadable"]), *(row[n] for n in ERRORS), *published])
    return text.getvalue()


def _report_folders(report: Path | None, models: Sequence[str]) -> list[Path | None]:
    """The folder itself for one model, else one in it for each, named as the model's file."""
    if report is None or len(models) == 1:
        return [report] * len(models)
    names: list[str] = []
    for model in models:
        stem, name, number = Path(model).stem, Path(model).stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return [report / name for name in names]
