"""The figures of an evaluation -> one self-contained HTML page that needs no network and runs no scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_tools.data.labels import short_names
from resnet_tools.evaluation.options import MAPS
from resnet_tools.evaluation.report.class_table import class_table
from resnet_tools.evaluation.report.html_text import Cell, label, table, text
from resnet_tools.evaluation.report.style import STYLE
from resnet_tools.evaluation.report.tables import ClassErrors, Counts, Mistake, frequent_confusions
from resnet_tools.metrics import TOP_K
from resnet_tools.text import counted

OPEN_ROWS, MOST_ROWS = 20, 1000  # of a table: shown at once, and when unfolded; the CSV files hold the rest
SMALLEST_SCALE = 0.7  # to which a picture shrinks on a narrow screen, where its letters can just be read
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # what the browser may load and run
MAPS_NOTE = (
    "The image as the net sees it, then what in it makes the truth and the prediction: red places add to a class, blue "
    "ones take away from it, with one scale for both."
)
NO_CONDITIONS = {
    *("images", "classes", "top1_error", "top5_error", "top5_k", "accuracy", "macro", "weighted"),
    *("unreadable", "published", "model"),
}


def html_page(
    facts: Mapping[str, Any],
    per_class: Sequence[ClassErrors],
    matrix: Counts,
    mistakes: Sequence[Mistake],
    class_names: Sequence[str],
    shown: int,
    pictures: Mapping[str, bytes],
) -> str:
    """facts: see `summary.summary`. shown: the number of classes in confusion.png. pictures: the PNGs by name."""
    labels = [label(name) for name in short_names(class_names)]
    title = text(f"Evaluation of {facts.get('model', 'a net')}")
    parts = [f"<h1>{title}</h1>", _figures(facts)]
    parts += ["<h2>Classes</h2>", _means(facts), class_table(per_class, labels, top5=len(labels) > TOP_K)]
    parts += ["<h2>Confusions</h2>", _confusion_note(shown, len(per_class))]
    parts += [_picture("confusion.png", pictures, "confusion matrix"), _confusion_table(per_class, matrix, labels)]
    parts.append("<h2>Most confident mistakes</h2>")
    if mistakes:
        parts.append(_picture("mistakes.png", pictures, "images of the most confident mistakes"))
        parts.append(_mistake_table(mistakes, labels))
        if MAPS in pictures:
            parts += ["<h3>Where the labels come from</h3>", f'<p class="note">{MAPS_NOTE}</p>']
            parts.append(_picture(MAPS, pictures, "where in the images truth and prediction come from"))
    else:
        parts.append("<p>None: every image was classified correctly.</p>")
    parts += [*_unreadable(facts.get("unreadable", [])), "<h2>How it was measured</h2>", _conditions(facts)]
    parts.append('<p class="note">All predictions, image by image, are in predictions.csv beside this page.</p>')
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _figures(facts: Mapping[str, Any]) -> str:
    figures = [(f"{facts['top1_error']:.3f} %", "top-1 error")]
    if facts["classes"] > TOP_K:
        figures.append((f"{facts['top5_error']:.3f} %", "top-5 error"))
    figures.append((f"{facts['accuracy']:.3f} %", "accuracy"))
    for name, noun in (("images", "image"), ("classes", "class")):
        number, noun = counted(facts[name], noun).split()
        figures.append((number, noun))
    published = facts.get("published")
    if published:
        for k in (1, 5):
            difference = facts[f"top{k}_error"] - published[f"top{k}_error"]
            figures.append((f"{published[f'top{k}_error']:.2f} %", f"published top-{k}, ours {difference:+.2f}"))
    cells = "".join(f"<div><b>{text(value)}</b>{text(name)}</div>" for value, name in figures)
    return f'<div class="figures">{cells}</div>'


def _means(facts: Mapping[str, Any]) -> str:
    """The means of what the table of classes shows."""
    rows = [
        (f"{kind} mean", *(facts[kind][name] for name in ("recall", "precision", "f1")))
        for kind in ("macro", "weighted")
    ]
    note = (
        "Recall is the share of a class's images that are recognised: its accuracy. Precision is the share of what was "
        "predicted to be of the class that is; F1 is their harmonic mean. In the macro mean each class counts the "
        "same, in the weighted one as often as it has images; classes without images do not count."
    )
    return f'{table(("", "recall, %", "precision, %", "F1, %"), rows)}<p class="note">{note}</p>'


def _confusion_table(per_class: Sequence[ClassErrors], matrix: Counts, labels: Sequence[str]) -> str:
    rows = [
        (labels[truth], labels[prediction], images, 100 * images / per_class[truth].images)
        for truth, prediction, images in frequent_confusions(matrix)
    ]
    return _folded_table(("truth", "predicted", "images", "of the class, %"), rows, "confusion.csv")


def _confusion_note(shown: int, per_class: int) -> str:
    which = f"The {shown} classes in the most frequent confusions" if shown < per_class else "All classes"
    return (
        f'<p class="note">{which}, coloured by the share of the images in each row: blue is right, red is wrong. '
        "Classes that are often confused are next to each other. All numbers of images are in confusion.csv.</p>"
    )


def _mistake_table(mistakes: Sequence[Mistake], labels: Sequence[str]) -> str:
    rows = [(m.path, labels[m.truth], labels[m.prediction], f"{100 * m.probability:.2f} %") for m in mistakes]
    return _folded_table(("file", "truth", "prediction", "probability"), rows, "mistakes.csv")


def _unreadable(images: Sequence[Mapping[str, str]]) -> list[str]:
    if not images:
        return []
    rows = [(image["path"], image["reason"]) for image in images]
    ending = "is not counted" if len(images) == 1 else "are not counted"
    title = f"<h2>{counted(len(images), 'image')} could not be read and {ending}</h2>"
    return [title, _folded_table(("file", "why"), rows, "summary.json")]


def _conditions(facts: Mapping[str, Any]) -> str:
    rows = []
    for name, value in facts.items():
        if name in NO_CONDITIONS or value is None or value is False:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        shown = "yes" if value is True else f"{value:.4f}" if isinstance(value, float) else str(value)
        rows.append(f"<tr><th>{text(name.replace('_', ' '))}</th><td>{text(shown)}</td></tr>")
    return f'<div class="table"><table class="facts">{"".join(rows)}</table></div>'


def _picture(name: str, pictures: Mapping[str, bytes], meaning: str) -> str:
    content = pictures[name]
    width = int.from_bytes(content[16:20], "big")  # of a PNG
    size = f"width:100%;min-width:{SMALLEST_SCALE * width:.0f}px;max-width:{width}px"
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<div class="picture"><img alt="{text(meaning)}" style="{size}" src="{source}"></div>'


def _folded_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], file: str) -> str:
    """The first rows, and more to unfold; `file` holds the rest."""
    shown = table(columns, rows[:OPEN_ROWS])
    more, rest = rows[OPEN_ROWS:MOST_ROWS], len(rows) - MOST_ROWS
    if more:
        shown += f"<details><summary>{len(more)} more</summary>{table(columns, more)}"
        shown += (f'<p class="note">{rest:,} more are in {file}.</p>' if rest > 0 else "") + "</details>"
    return shown
