"""An evaluation -> the files of a report.

- `summary.json`: what was evaluated, how, and the error rates.
- `per_class.csv`: class, images, top-1 and top-5 error in percent, most confused with, how often, by output.
- `confusion.csv`: a row for each true class and a column for each prediction, in images.
- `mistakes.csv`: path, truth, prediction, probability; the most confident first.
- `confusion.png`: in percent, with classes that are often confused side by side; of many classes the worst ones.
- `mistakes.png`: the most confident mistakes, if there are any.
- `index.html`: everything on one self-contained page.

Names in the CSV files are written as `text.csv_cell` does.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tools.data.labels import short_names
from resnet_tools.errors import DataError
from resnet_tools.evaluation.evaluate import Evaluation
from resnet_tools.evaluation.report.contact_sheet import contact_sheet
from resnet_tools.evaluation.report.page import html_page
from resnet_tools.evaluation.report.tables import Counts, class_errors, confusion_matrix, mistakes, shown_classes
from resnet_tools.history.plotting import check_plotting, font_file, plot_confusion
from resnet_tools.text import csv_cell
from resnet_tools.writing import written_whole

ALL_CLASSES, WORST_CLASSES = 100, 50  # up to so many classes are all drawn; of more, so many of the worst
OTHER = "(other)"


@contextmanager
def report_folder(folder: Path) -> Iterator[None]:
    """Make the folder for a report that the block writes; if it writes none, what was made is removed again.

    Raises: DataError or ResnetToolsError before any work is done if a report cannot be written.
    """
    check_plotting()
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: a folder for the report cannot be made there ({error.strerror})") from error
    try:
        yield
    finally:
        for place in made:
            with suppress(OSError):  # it is not empty
                place.rmdir()


def write_report(folder: Path, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    """Write all files into `folder`. facts: see `summary`. Raises: DataError if they cannot be written."""
    matrix, per_class, wrong = confusion_matrix(evaluation), class_errors(evaluation), mistakes(evaluation)
    names = evaluation.samples.class_names
    short = short_names(names)
    try:
        _write(folder / "summary.json", json.dumps(facts, indent=1))
        columns = ("class", "images", "top1_error", "top5_error", "most_confused_with", "confused_images")
        rows = ((c.name, c.images, c.top1_error, c.top5_error, c.confused_with, c.confused_images) for c in per_class)
        _write_csv(folder / "per_class.csv", columns, rows)
        counted = ((name, *cells) for name, cells in zip(names, matrix.tolist(), strict=True))
        _write_csv(folder / "confusion.csv", ("truth \\ prediction", *names), counted)
        listed = ((m.path, m.truth, m.prediction, f"{m.probability:.9g}") for m in wrong)
        _write_csv(folder / "mistakes.csv", ("path", "truth", "prediction", "probability"), listed)
        shown = _draw_confusion(matrix, short, folder / "confusion.png")
        (folder / "mistakes.png").unlink(missing_ok=True)  # of an earlier report
        if wrong:
            with written_whole(folder / "mistakes.png") as partial:
                contact_sheet(wrong, dict(zip(names, short, strict=True)), font_file()).save(partial)
        pictures = {name: (folder / name).read_bytes() for name in ("confusion.png", "mistakes.png")[: 1 + bool(wrong)]}
        _write(folder / "index.html", html_page(facts, per_class, matrix, wrong, shown, pictures))
    except OSError as error:
        raise DataError(
            f"{error.filename2 or error.filename or folder}: the report cannot be written: {error.strerror}"
        ) from error


def _draw_confusion(matrix: Counts, names: Sequence[str], path: Path) -> int:
    """Returns the number of classes that are drawn."""
    most = ALL_CLASSES if np.count_nonzero(matrix.sum(0) + matrix.sum(1)) <= ALL_CLASSES else WORST_CLASSES
    shown = shown_classes(matrix, most)
    cells = matrix[np.ix_(shown, shown)]
    images = matrix[shown].sum(1, keepdims=True)
    others = images - cells.sum(1, keepdims=True)
    columns = [names[k] for k in shown]
    if most == WORST_CLASSES:
        cells, columns = np.hstack([cells, others]), [*columns, OTHER]
    plot_confusion(100 * cells / np.maximum(1, images), [names[k] for k in shown], columns, path)
    return len(shown)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([csv_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in (columns, *rows))
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        partial.write_bytes(text.encode(errors="surrogateescape"))
