"""`resnet classify`: the most probable labels of images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from resnet_tools.cli.shared.notices import warnings_as_lines
from resnet_tools.cli.shared.options import (
    MODEL_HELP,
    Images,
    Inference,
    check_files,
    image_options,
    inference_options,
    model_argument,
    quick_imports,
    refuse_inputs,
)
from resnet_tools.cli.shared.weights import weights_option
from resnet_tools.errors import NotFiniteError, ResnetToolsError
from resnet_tools.text import OUTPUT_ERRORS, csv_cell, printable
from resnet_tools.writing import written_whole

if TYPE_CHECKING:
    from resnet_tools.checkpoints.runnable import Classifier
    from resnet_tools.compute.predictions import Loading, Prediction
    from resnet_tools.errors import ImageError

Form = Literal["text", "json", "csv"]
Write = Callable[["Prediction"], None]
WriteError = Callable[[str, str], None]  # of a path and a message
ENDINGS: dict[str, Form] = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv"}
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": OUTPUT_ERRORS, "newline": ""}
HEADER = ["path", "rank", "index", "label", "probability"]


@click.command(
    epilog="Example: resnet classify resnet-101.t7 cat.jpg",
    help=f"""Print the most probable labels of each IMAGE: a file, a folder (searched recursively), a glob pattern, -
    for an image on stdin, or with --allow-urls an http(s) address.

    {MODEL_HELP}

    Labels are the class names in the checkpoint or in NAME.classes.txt beside NAME.t7; without these they are
    ImageNet's for a net with 1000 outputs, otherwise `class 1`, `class 2`, ...""",
)
@model_argument
@image_options
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Number of labels per image.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per line.")
@click.option("--csv", "as_csv", is_flag=True, help="Write comma-separated values with a header.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the results to this file, including images that cannot be read. "
    "Without --json or --csv its extension selects the format: .json, .jsonl or .csv, otherwise text.",
)
@click.option(
    "--explain",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write to this folder, for each image, a picture of where each label comes from, and a page with all of them.",
)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a contact sheet of the images with their labels, the most certain first: .png, of at most 400 images, "
    "or .html, a page of at most 2,000.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of class names: one per line, numbered lines, JSON, or another common form.",
)
@weights_option
@inference_options
def command(
    model: str,
    sources: Images,
    output: Path | None,
    top_k: int,
    as_json: bool,
    as_csv: bool,
    explain: Path | None,
    sheet: Path | None,
    labels: Path | None,
    weights: str | None,
    inference: Inference,
) -> int:
    form = _form(output, as_json=as_json, as_csv=as_csv)
    if explain is not None and inference.ten_crop:
        raise click.UsageError("--explain shows the center crop; leave out --ten-crop")
    paths = _image_paths(model, sources, [output, sheet], labels)
    with quick_imports():
        from resnet_tools.checkpoints.runnable import load_classifier
    if sheet is not None:
        from resnet_tools.evaluation.classified_sheet import check_sheet

        check_sheet(sheet)
    with warnings_as_lines():
        classifier = load_classifier(
            model,
            inference.device,
            inference.precision,
            engine=inference.engine,
            with_gradients=explain is not None,
            weights=weights,
            labels=labels,
        )
    predictions = _predictions(paths, classifier, inference.loading(classifier.preprocessing), top_k, explain)
    if sheet is not None:
        predictions = _with_sheet(predictions, classifier, sheet, inference)
    from resnet_tools.cli.shared.running import terminable

    with terminable("Stopped."), _opened(output) as file:
        write, write_error = WRITERS[form](classifier.class_names, file, with_errors=output is not None)
        code = _write_all(predictions, len(paths), file, write, write_error)
    if explain is not None:
        from resnet_tools.evaluation.explanations import PAGE_NAME

        click.echo(f"Pictures of where the labels come from: {printable(str(explain / PAGE_NAME))}", err=True)
    return code


def _predictions(
    paths: Sequence[str], classifier: Classifier, loading: Loading, top_k: int, explain: Path | None
) -> Iterator[Prediction | tuple[str, ImageError]]:
    """The best classes of each image, and with `explain` pictures of where they come from in that folder."""
    if explain is None:
        return classifier.classify(paths, loading=loading, top_k=top_k)
    from resnet_tools.evaluation.explanations import explained

    net: Any = classifier.net  # a module, as load_classifier was told
    return explained(paths, net, loading, classifier.class_names, explain, top_k=top_k)


def _with_sheet(
    predictions: Iterable[Prediction | tuple[str, ImageError]],
    classifier: Classifier,
    sheet: Path,
    inference: Inference,
) -> Iterator[Prediction | tuple[str, ImageError]]:
    """The same, which are shown on a contact sheet in the end."""
    from resnet_tools.evaluation.classified_sheet import sheeted

    exif, asked = classifier.preprocessing.exif_orientation, inference.exif_orientation
    return sheeted(
        predictions,
        classifier.class_names,
        sheet,
        exif=exif if asked is None else asked,
        written=lambda: click.echo(f"Contact sheet: {printable(str(sheet))}", err=True),
    )


def _form(output: Path | None, *, as_json: bool, as_csv: bool) -> Form:
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if as_json or as_csv:
        return "json" if as_json else "csv"
    return ENDINGS.get(output.suffix.lower() if output else "", "text")


def _image_paths(model: str, sources: Images, outputs: Sequence[Path | None], labels: Path | None) -> list[str]:
    """The paths of all images. Raises: click.UsageError if there are none, not all, or one is an output."""
    arguments = sources.arguments()
    if not arguments:
        raise click.UsageError("Missing argument 'IMAGE...': give files, folders or --from-file")
    paths = check_files(model, arguments, allow_urls=sources.allow_urls)
    for output in outputs:
        if output is not None:
            refuse_inputs(output, [model, labels, *sources.lists, *paths])
    return paths


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    """stdout, or a file that replaces an earlier one when all results are written."""
    if output is None:
        yield sys.stdout
        return
    try:
        with written_whole(output) as partial, partial.open("w", **TEXT) as file:
            yield file
    except OSError as error:
        raise ResnetToolsError(f"{output}: cannot be written: {error.strerror or error}") from error


def _write_all(
    predictions: Iterable[Prediction | tuple[str, ImageError]],
    count: int,
    file: IO[str],
    write: Write,
    write_error: WriteError,
) -> int:
    """Write results as they arrive and report failures on stderr; 1 if there were any, else 0."""
    quiet = count < 2 or not sys.stderr.isatty() or (file is sys.stdout and sys.stdout.isatty())
    unreadable = not_finite = 0
    with click.progressbar(length=count, label="classify", file=sys.stderr, hidden=quiet, show_pos=True) as bar:
        for prediction in predictions:
            if isinstance(prediction, tuple):
                path, error = prediction
                not_finite += isinstance(error, NotFiniteError)
                unreadable += not isinstance(error, NotFiniteError)
                click.echo(f"{'' if quiet else chr(10)}Error: {printable(str(error))}", err=True)
                write_error(path, str(error).removeprefix(f"{path}: "))
            else:
                write(prediction)
            file.flush()
            bar.update(1)
    if unreadable and count > 1:
        click.echo(f"{unreadable} of {count} images could not be read.", err=True)
    if not_finite and count > 1:
        click.echo(f"For {not_finite} of {count} images the net gives NaN or infinite outputs.", err=True)
    return int(unreadable + not_finite > 0)


def _text_writers(names: Sequence[str], file: IO[str], *, with_errors: bool) -> tuple[Write, WriteError]:
    def write(prediction: Prediction) -> None:
        lines = [f"Classes for\t{printable(prediction.path)}"]
        for position, probability in zip(prediction.indices, prediction.probabilities, strict=True):
            lines.append(f"{probability:.14g}\t{printable(names[position])}")
        click.echo("\n".join([*lines, ""]), file=file)

    def write_error(path: str, message: str) -> None:
        if with_errors:
            click.echo(f"Classes for\t{printable(path)}\nError\t{printable(message)}\n", file=file)

    return write, write_error


def _json_writers(names: Sequence[str], file: IO[str], *, with_errors: bool) -> tuple[Write, WriteError]:
    import json

    def write(prediction: Prediction) -> None:
        best = [
            {"index": position, "label": names[position], "probability": probability}
            for position, probability in zip(prediction.indices, prediction.probabilities, strict=True)
        ]
        click.echo(json.dumps({"path": prediction.path, "classes": best}), file=file)

    def write_error(path: str, message: str) -> None:
        if with_errors:
            click.echo(json.dumps({"path": path, "error": message}), file=file)

    return write, write_error


def _csv_writers(names: Sequence[str], file: IO[str], *, with_errors: bool) -> tuple[Write, WriteError]:
    """No spreadsheet takes a name or message for a formula; only a file has the column `error`."""
    import csv

    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([*HEADER, "error"] if with_errors else HEADER)
    rest = [""] if with_errors else []

    def write(prediction: Prediction) -> None:
        for rank, position in enumerate(prediction.indices, 1):
            probability = f"{prediction.probabilities[rank - 1]:.9g}"
            rows.writerow([csv_cell(prediction.path), rank, position, csv_cell(names[position]), probability, *rest])

    def write_error(path: str, message: str) -> None:
        if with_errors:
            rows.writerow([csv_cell(path), "", "", "", "", csv_cell(message)])

    return write, write_error


WRITERS = {"text": _text_writers, "json": _json_writers, "csv": _csv_writers}
