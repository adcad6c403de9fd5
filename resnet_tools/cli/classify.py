"""`resnet classify`: the most probable labels of images."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import click

from resnet_tools.cli.shared.options import (
    MODEL_HELP,
    Inference,
    check_files,
    inference_options,
    model_argument,
    quick_imports,
    warnings_as_lines,
)
from resnet_tools.cli.shared.weights import weights_option

if TYPE_CHECKING:
    from resnet_tools.compute.inference import Prediction
    from resnet_tools.errors import ImageError


@click.command(
    epilog="Example: resnet classify resnet-101.t7 cat.jpg",
    short_help="Print the most probable labels of images.",
    help=f"""Print the most probable labels of each IMAGE: a file, a folder (searched recursively) or a glob pattern.

    {MODEL_HELP}

    Labels are the checkpoint's own classes, or those of NAME.classes.txt beside NAME.t7; for other nets with 1000
    classes they are ImageNet's, else `class 1`, `class 2`, ...""",
)
@model_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Labels for each image.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with a header.")
@click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="A file with one label a line.")
@weights_option
@inference_options
def command(
    model: str,
    images: tuple[str, ...],
    top_k: int,
    as_json: bool,
    as_csv: bool,
    labels: str | None,
    weights: str | None,
    inference: Inference,
) -> int:
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    paths = check_files(model, images)
    with quick_imports():
        from resnet_tools.checkpoints.checkpoint import load_checkpoint, require_classifier
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.inference import classify, prepare
        from resnet_tools.data.labels import output_names, read_labels
    given_names = None if labels is None else read_labels(labels)
    found_device = find_device(inference.device)
    with warnings_as_lines():
        checkpoint = load_checkpoint(model, weights=weights)
    require_classifier(checkpoint, model)
    names = output_names(given_names or checkpoint.class_names, checkpoint.architecture.num_classes)
    net = prepare(checkpoint.model, found_device, inference.precision)
    loading = inference.loading(checkpoint.preprocessing)
    write = (_json_writer if as_json else _csv_writer if as_csv else _text_writer)(names)
    return _print_all(classify(paths, net, loading, top_k=top_k), len(paths), write)


def _print_all(
    predictions: Iterable[Prediction | tuple[str, ImageError]], count: int, write: Callable[[Prediction], None]
) -> int:
    """Print results as they come and failures to stderr; 1 if there were failures, else 0."""
    quiet = count < 2 or not sys.stderr.isatty() or sys.stdout.isatty()
    failures = 0
    with click.progressbar(length=count, label="classify", file=sys.stderr, hidden=quiet) as bar:
        for prediction in predictions:
            if isinstance(prediction, tuple):
                failures += 1
                click.echo(f"{'' if quiet else chr(10)}Error: {prediction[1]}", err=True)
            else:
                write(prediction)
                sys.stdout.flush()
            bar.update(1)
    if failures and count > 1:
        click.echo(f"{failures} of {count} images could not be read.", err=True)
    return min(failures, 1)


def _text_writer(names: Sequence[str]) -> Callable[[Prediction], None]:
    def write(prediction: Prediction) -> None:
        lines = [f"Classes for\t{prediction.path}"]
        for position, probability in zip(prediction.indices, prediction.probabilities, strict=True):
            lines.append(f"{probability:.14g}\t{names[position]}")
        click.echo("\n".join([*lines, ""]))

    return write


def _json_writer(names: Sequence[str]) -> Callable[[Prediction], None]:
    def write(prediction: Prediction) -> None:
        best = [
            {"index": position, "label": names[position], "probability": probability if isfinite(probability) else None}
            for position, probability in zip(prediction.indices, prediction.probabilities, strict=True)
        ]
        click.echo(json.dumps({"path": prediction.path, "classes": best}))

    return write


def _csv_writer(names: Sequence[str]) -> Callable[[Prediction], None]:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["path", "rank", "index", "label", "probability"])

    def write(prediction: Prediction) -> None:
        for rank, position in enumerate(prediction.indices, 1):
            probability = f"{prediction.probabilities[rank - 1]:.9g}"
            rows.writerow([prediction.path, rank, position, names[position], probability])

    return write
