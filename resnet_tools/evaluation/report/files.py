"""An evaluation -> the files of a report.

- `summary.json`: what was evaluated, how, the error rates, and the means over classes.
- `per_class.csv`: class, images, top-1 and top-5 error, most confused with, how often; accuracy, precision, recall, F1;
  by output, in percent. The last two lines are means over the classes that have images: each class counting the same
  (macro), and as often as it has images (weighted); their `images` are all images.
- `predictions.csv`: every image in the order of the data: path, truth, probability of the truth, and the five best
  classes with their probabilities; empty cells where it could not be read.
- `confusion.csv`: a row for each true class and a column for each prediction, in images.
- `mistakes.csv`: path, truth, prediction, probability; the most confident first.
- `confusion.png`: classes that are often confused side by side; of many classes the worst ones.
- `mistakes.png`: the most confident mistakes, if there are any.
- `mistake_maps.png`: where in the first of them the truth and the prediction come from.
- `index.html`: everything on one self-contained page.

Names in the CSV files are written as `text.csv_cell` does.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from PIL.Image import Image

from resnet_tools.data.labels import short_names
from resnet_tools.errors import DataError, ImageError
from resnet_tools.evaluation.evaluate import UNREAD, Evaluation
from resnet_tools.evaluation.options import MAPS, PAGE
from resnet_tools.evaluation.report.confusion import draw_confusion
from resnet_tools.evaluation.report.contact_sheet import contact_sheet
from resnet_tools.evaluation.report.folder import SUMMARY, begin_folder, replaced_report
from resnet_tools.evaluation.report.page import html_page
from resnet_tools.evaluation.report.tables import (
    ClassErrors,
    MeanScores,
    Mistake,
    class_errors,
    confusion_matrix,
    macro_means,
    mistakes,
    weighted_means,
)
from resnet_tools.history.plotting import check_plotting, font_file
from resnet_tools.text import csv_cell
from resnet_tools.writing import written_whole

CLASS_COLUMNS = ("class", "images", "top1_error", "top5_error", "most_confused_with", "confused_images")
SCORE_COLUMNS = ("accuracy", "precision", "recall", "f1")


def begin_report(folder: Path) -> None:
    """Make the folder. Raises: DataError or ResnetToolsError before any work is done if a report cannot be written,
    or if the folder holds something else than an earlier report.
    """
    check_plotting()
    begin_folder(folder)


@contextmanager
def report_folder(folder: Path) -> Iterator[None]:
    """`begin_report` for a report that the block writes; if it writes none, the folders that were made are removed."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    begin_report(folder)
    try:
        yield
    finally:
        for place in made:
            with suppress(OSError):  # it is not empty
                place.rmdir()


def write_report(
    folder: Path, evaluation: Evaluation, facts: dict[str, Any], maps_of: Callable[[list[Mistake]], Image] | None = None
) -> Path:
    """Write all files into `folder`, replacing those of an earlier report. facts: see `summary`.

    maps_of: draws where the labels of mistakes come from, for nets that can tell.
    Returns: the path of the page. Raises: DataError if they cannot be written; then an earlier report is still there.
    """
    try:
        with replaced_report(folder) as partial:
            _write_files(partial, evaluation, facts, maps_of)
    except OSError as error:
        place = Path(error.filename2 or error.filename or folder).name
        raise DataError(f"{folder}: the report cannot be written: {place}: {error.strerror}") from error
    return folder / PAGE


def _write_files(
    folder: Path, evaluation: Evaluation, facts: dict[str, Any], maps_of: Callable[[list[Mistake]], Image] | None
) -> None:
    matrix, per_class, wrong = confusion_matrix(evaluation), class_errors(evaluation), mistakes(evaluation)
    names = evaluation.samples.class_names
    short, cells = short_names(names), [csv_cell(name) for name in names]
    _write(folder / SUMMARY, json.dumps(facts, indent=1))
    means = (("(macro mean)", macro_means(per_class)), ("(weighted mean)", weighted_means(per_class)))
    rows = [*map(_class_row, cells, per_class), *(_mean_row(name, scores) for name, scores in means)]
    _write_csv(folder / "per_class.csv", (*CLASS_COLUMNS, *SCORE_COLUMNS), rows)
    counted = ((cell, *row.tolist()) for cell, row in zip(cells, matrix, strict=True))
    _write_csv(folder / "confusion.csv", ("truth \\ prediction", *cells), counted)
    listed = ((csv_cell(m.path), cells[m.truth], cells[m.prediction], _digits(m.probability)) for m in wrong)
    _write_csv(folder / "mistakes.csv", ("path", "truth", "prediction", "probability"), listed)
    _write_csv(folder / "predictions.csv", _prediction_columns(evaluation), _prediction_rows(evaluation, cells))
    shown = draw_confusion(matrix, short, folder / "confusion.png")
    pictures = {"confusion.png": (folder / "confusion.png").read_bytes()}
    if wrong:
        with written_whole(folder / "mistakes.png") as partial:
            exif = bool(facts["exif_orientation"])
            contact_sheet(wrong, evaluation.samples, short, font_file(), exif=exif).save(partial)
        pictures["mistakes.png"] = (folder / "mistakes.png").read_bytes()
    if wrong and maps_of is not None:
        with suppress(ImageError), written_whole(folder / MAPS) as partial:  # an image may be gone since
            maps_of(wrong).save(partial)
        if (folder / MAPS).exists():
            pictures[MAPS] = (folder / MAPS).read_bytes()
    _write(folder / PAGE, html_page(facts, per_class, matrix, wrong, names, shown, pictures))


def _class_row(cell: str, scores: ClassErrors) -> tuple[Any, ...]:
    _, *values = astuple(scores)
    values[3] = csv_cell(scores.confused_with)
    return cell, *values


def _mean_row(name: str, means: MeanScores) -> tuple[Any, ...]:
    _, images, top1_error, top5_error, *scores = astuple(means)
    return name, images, top1_error, top5_error, "", "", *scores


def _prediction_columns(evaluation: Evaluation) -> list[str]:
    best = range(1, evaluation.best.shape[1] + 1)
    return ["path", "truth", "truth_probability", *(f"{name}_{k}" for k in best for name in ("class", "probability"))]


def _prediction_rows(evaluation: Evaluation, cells: Sequence[str]) -> Iterator[Sequence[str]]:
    samples, count = evaluation.samples, evaluation.best.shape[1]
    truths, best = evaluation.truth_probabilities.tolist(), evaluation.best.tolist()
    for k, (target, probabilities) in enumerate(zip(samples.targets, evaluation.best_probabilities, strict=True)):
        row = [csv_cell(samples.name(k)), cells[target]]
        if evaluation.ranks[k] == UNREAD:
            yield [*row, *[""] * (1 + 2 * count)]
            continue
        row.append(_digits(truths[k]))
        for place, probability in zip(best[k], probabilities.tolist(), strict=True):
            row += (cells[place], _digits(probability))
        yield row


def _digits(probability: float) -> str:
    """As many digits as float32 has."""
    return f"{probability:.9g}"


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The cells are safe ones already. Lines go out one by one: of a thousand classes they may be many megabytes."""
    with (
        written_whole(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(itertools.chain([columns], rows))


def _write(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        partial.write_bytes(text.encode(errors="surrogateescape"))
