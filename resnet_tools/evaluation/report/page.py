"""The figures of an evaluation -> one self-contained HTML page without scripts."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_tools.evaluation.report.tables import ClassErrors, Counts, Mistake, frequent_confusions
from resnet_tools.text import printable

OPEN_ROWS, MOST_ROWS = 20, 1000  # of a table: shown at once, and when unfolded; the CSV files hold the rest
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto; padding: 0 1.5rem;
  max-width: 1180px; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
.figures div { background: #f3f5f8; border-radius: 8px; padding: .7rem 1.2rem; }
.figures b { display: block; font-size: 1.6rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #eee; vertical-align: top;
  overflow-wrap: anywhere; }
.table { overflow-x: auto; }
th { white-space: nowrap; font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
table.facts { margin-top: .5rem; }
summary { cursor: pointer; color: #0b57a4; margin: .4rem 0; }
.picture { overflow-x: auto; margin-inline: calc((100% - max(100%, min(100vw - 3rem, 1900px))) / 2); }
.picture img { display: block; max-width: none; margin: 0 auto; }
.note { color: #555; font-size: .9rem; }
"""
Cell = str | int | float | None


def html_page(
    facts: Mapping[str, Any],
    per_class: Sequence[ClassErrors],
    matrix: Counts,
    mistakes: Sequence[Mistake],
    shown: int,
    pictures: Mapping[str, bytes],
) -> str:
    """facts: see `summary.summary`. shown: the number of classes in confusion.png. pictures: the PNGs by name."""
    title = f"Evaluation of {facts.get('model', 'a net')}"
    parts = [f"<h1>{_text(title)}</h1>", _figures(facts)]
    parts += ["<h2>Classes, worst first</h2>", _class_table(per_class)]
    parts += ["<h2>Confusions</h2>", _confusion_note(shown, len(per_class))]
    parts += [_picture("confusion.png", pictures, "confusion matrix"), _confusion_table(per_class, matrix)]
    parts.append("<h2>Most confident mistakes</h2>")
    if mistakes:
        parts += [_picture("mistakes.png", pictures, "images of the most confident mistakes"), _mistake_table(mistakes)]
    else:
        parts.append("<p>None: every image was classified correctly.</p>")
    parts += [*_unreadable(facts.get("unreadable", [])), "<h2>How it was measured</h2>", _conditions(facts)]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _figures(facts: Mapping[str, Any]) -> str:
    figures = [
        (f"{facts['top1_error']:.3f} %", "top-1 error"),
        (f"{facts['top5_error']:.3f} %", f"top-{facts['top5_k']} error"),
        (f"{facts['images']:,}", "images"),
        (str(facts["classes"]), "classes"),
    ]
    published = facts.get("published")
    if published:
        for k in (1, 5):
            difference = facts[f"top{k}_error"] - published[f"top{k}_error"]
            figures.append((f"{published[f'top{k}_error']:.2f} %", f"published top-{k}, ours {difference:+.2f}"))
    cells = "".join(f"<div><b>{_text(value)}</b>{_text(name)}</div>" for value, name in figures)
    return f'<div class="figures">{cells}</div>'


def _conditions(facts: Mapping[str, Any]) -> str:
    left_out = {"images", "classes", "top1_error", "top5_error", "top5_k", "unreadable", "published", "model"}
    rows = []
    for name, value in facts.items():
        if name in left_out or value is None or value is False:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        shown = "yes" if value is True else f"{value:.4f}" if isinstance(value, float) else str(value)
        rows.append(f"<tr><th>{_text(name.replace('_', ' '))}</th><td>{_text(shown)}</td></tr>")
    return f'<table class="facts">{"".join(rows)}</table>'


def _class_table(per_class: Sequence[ClassErrors]) -> str:
    known = [c for c in per_class if c.images]
    rows = [
        (
            c.name,
            c.images,
            c.top1_error,
            c.top5_error,
            _most_confused(c),
        )
        for c in sorted(known, key=lambda c: (-(c.top1_error or 0), -c.images))
    ]
    columns = ("class", "images", "top-1 error, %", "top-5 error, %", "most confused with (images)")
    unused = len(per_class) - len(known)
    note = f'<p class="note">{unused} of the net\'s {len(per_class)} classes have no images.</p>' if unused else ""
    return _table(columns, rows, "per_class.csv") + note


def _most_confused(errors: ClassErrors) -> str:
    return f"{errors.confused_with} ({errors.confused_images})" if errors.confused_images else ""


def _confusion_table(per_class: Sequence[ClassErrors], matrix: Counts) -> str:
    rows = [
        (per_class[truth].name, per_class[prediction].name, images, 100 * images / per_class[truth].images)
        for truth, prediction, images in frequent_confusions(matrix)
    ]
    return _table(("truth", "predicted", "images", "percent of the class"), rows, "confusion.csv")


def _confusion_note(shown: int, per_class: int) -> str:
    which = f"The {shown} classes in the most frequent confusions" if shown < per_class else "All classes"
    return (
        f'<p class="note">{which}, in percent of the images in each row; classes that are often confused are '
        "next to each other. Blue is right, red is wrong. All counts are in confusion.csv.</p>"
    )


def _mistake_table(mistakes: Sequence[Mistake]) -> str:
    rows = [(m.path, m.truth, m.prediction, f"{100 * m.probability:.2f} %") for m in mistakes]
    return _table(("file", "truth", "prediction", "probability"), rows, "mistakes.csv")


def _unreadable(images: Sequence[Mapping[str, str]]) -> list[str]:
    if not images:
        return []
    rows = [(image["path"], image["reason"]) for image in images]
    title = f"<h2>{len(images)} images could not be read and are not counted</h2>"
    return [title, _table(("file", "why"), rows, "summary.json")]


def _picture(name: str, pictures: Mapping[str, bytes], meaning: str) -> str:
    content = base64.b64encode(pictures[name]).decode()
    return f'<div class="picture"><img alt="{_text(meaning)}" src="data:image/png;base64,{content}"></div>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], file: str) -> str:
    """The first rows, and more to unfold; `file` holds the rest."""
    text = _plain_table(columns, rows[:OPEN_ROWS])
    more, rest = rows[OPEN_ROWS:MOST_ROWS], len(rows) - MOST_ROWS
    if more:
        text += f"<details><summary>{len(more)} more</summary>{_plain_table(columns, more)}"
        text += (f'<p class="note">{rest} more are in {file}.</p>' if rest > 0 else "") + "</details>"
    return text


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    kinds = ["" if isinstance(value, str) else ' class="number"' for value in rows[0]] if rows else [""] * len(columns)
    head = "".join(f"<th{kind}>{_text(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    lines = ("".join(f"<td{kind}>{_cell(value)}</td>" for value, kind in zip(row, kinds, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(value: Cell) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else _text(str(value))


def _text(value: str) -> str:
    """Printable and escaped for HTML; bytes of file names that are not UTF-8 become replacement characters."""
    return html.escape(printable(value).encode(errors="surrogateescape").decode(errors="replace"))
