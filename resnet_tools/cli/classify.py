"""`resnet classify`: the most probable labels of images."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import click

from resnet_tools.cli.common import (
    MODEL_HELP,
    changed_preprocessing,
    check_files,
    inference_options,
    model_argument,
    quick_imports,
    warnings_as_lines,
)

if TYPE_CHECKING:
    from resnet_tools.errors import ImageError
    from resnet_tools.inference import Prediction


@click.command(
    epilog="Example: resnet classify resnet-101.t7 cat.jpg",
    help=f"""Print the most probable labels of each IMAGE: a file, a folder (searched recursively) or a glob pattern.

    {MODEL_HELP}

    Labels are the checkpoint's own classes, or those of NAME.classes.txt beside NAME.t7; for other nets with 1000
    classes they are ImageNet's, else `class 1`, `class 2`, ...""",
)
@model_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Labels for each image.")
@click.option("--json", "form", flag_value="json", help="One JSON object a line.")
@click.option("--csv", "form", flag_value="csv", help="Comma-separated values with a header.")
@click.option("--labels", type=click.Path(exists=True, dir_okay=False), help="A file with one label a line.")
@inference_options
def command(
    model: str,
    images: tuple[str, ...],
    top_k: int,
    form: str | None,
    labels: str | None,
    batch_size: int,
    device: str,
    precision: str,
    resize_size: int | None,
    crop_size: int | None,
    ten_crop: bool,
    exif_orientation: bool,
    workers: int,
) -> int:
    paths = check_files(model, images)
    with quick_imports():
        from resnet_tools.checkpoint import load_model
        from resnet_tools.data.labels import class_names
        from resnet_tools.inference import Loading, classify, find_device, prepare
    with warnings_as_lines():
        checkpoint = load_model(model)
    names = class_names(_labels(labels) or checkpoint.classes, checkpoint.architecture.classes)
    net = prepare(checkpoint.model, find_device(device), precision)
    preprocessing = changed_preprocessing(checkpoint.preprocessing, resize_size, crop_size)
    loading = Loading(preprocessing, batch_size, ten_crop, exif_orientation, workers)
    return _print_all(classify(paths, net, loading, top_k=top_k), len(paths), _WRITERS[form](names))


def _labels(path: str | None) -> list[str] | None:
    from resnet_tools.data.labels import read_labels

    return None if path is None else read_labels(path)


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
                click.echo(f"Error: {prediction[1]}", err=True)
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
        for position, probability in zip(prediction.classes, prediction.probabilities, strict=True):
            lines.append(f"{probability:.14g}\t{names[position]}")
        click.echo("\n".join([*lines, ""]))

    return write


def _json_writer(names: Sequence[str]) -> Callable[[Prediction], None]:
    def write(prediction: Prediction) -> None:
        best = [
            {"index": position, "label": names[position], "probability": probability}
            for position, probability in zip(prediction.classes, prediction.probabilities, strict=True)
        ]
        click.echo(json.dumps({"path": prediction.path, "classes": best}))

    return write


def _csv_writer(names: Sequence[str]) -> Callable[[Prediction], None]:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["path", "rank", "index", "label", "probability"])

    def write(prediction: Prediction) -> None:
        for rank, position in enumerate(prediction.classes, 1):
            probability = f"{prediction.probabilities[rank - 1]:.9g}"
            rows.writerow([prediction.path, rank, position, names[position], probability])

    return write


_WRITERS = {None: _text_writer, "json": _json_writer, "csv": _csv_writer}
