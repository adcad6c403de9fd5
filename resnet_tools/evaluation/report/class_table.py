"""The figures of each class -> a table that is sorted by a click, without scripts.

The rows are in the first order; their places in the others are numbers, `--p1` and so on, and the style sheet lays the
rows out by those of the radio button that is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resnet_tools.evaluation.report.html_text import cell, text
from resnet_tools.evaluation.report.tables import ClassErrors

OPEN_ROWS = 20
Entry = tuple[str, ClassErrors]  # with the label of the class
# What a sorting is called, and its key: the classes to look at come first, equal ones in the order of the outputs.
SORTINGS: tuple[tuple[str, Callable[[Entry], Any]], ...] = (
    ("highest error", lambda entry: (-(entry[1].top1_error or 0), -entry[1].images)),
    ("lowest precision", lambda entry: entry[1].precision or 0),
    ("lowest F1", lambda entry: entry[1].f1 or 0),
    ("most images", lambda entry: -entry[1].images),
    ("class", lambda entry: entry[0].casefold()),
)


def class_table(per_class: Sequence[ClassErrors], labels: Sequence[str], *, top5: bool) -> str:
    """The classes that have images, those with the highest error first. labels: of all classes, for the page."""
    label_of = {scores.name: label for scores, label in zip(per_class, labels, strict=True)}
    entries = [(label, scores) for label, scores in zip(labels, per_class, strict=True) if scores.images]
    entries.sort(key=SORTINGS[0][1])
    orders = [_places(entries, key) for _, key in SORTINGS[1:]]
    rows = [
        f'<tr style="{";".join(f"--p{k}:{places[n]}" for k, places in enumerate(orders, 1))}">'
        f"{_cells(label, scores, label_of, top5)}</tr>\n"
        for n, (label, scores) in enumerate(entries)
    ]
    columns = ("class", "images", "top-1 error, %", *("top-5 error, %",) * top5, "recall, %", "precision, %", "F1, %")
    head = "".join(_cell("th", name, n > 0) for n, name in enumerate(columns))
    head += _cell("th", "most confused with (images)", False)
    kind = "classes with-top5" if top5 else "classes"
    body = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{"".join(rows)}</tbody></table>'
    more = len(rows) - OPEN_ROWS
    unfold = f'<label class="more"><input type="checkbox" />{more} more</label>' if more > 0 else ""
    return f'<div class="sorted">{_radios()}<div class="table">{body}</div>{unfold}</div>{_unused(per_class)}'


def _places(entries: Sequence[Entry], key: Callable[[Entry], Any]) -> list[int]:
    """The place of each entry when sorted."""
    places = [0] * len(entries)
    for place, n in enumerate(sorted(range(len(entries)), key=lambda n: key(entries[n]))):
        places[n] = place
    return places


def _radios() -> str:
    buttons = [
        f'<label><input type="radio" name="sort" class="sort{k}"{" checked" * (k == 0)} />{name}</label>'
        for k, (name, _) in enumerate(SORTINGS)
    ]
    return f'<div class="sortings">Sort by {"".join(buttons)}</div>'


def _cells(label: str, scores: ClassErrors, label_of: Mapping[str, str], top5: bool) -> str:
    errors = [scores.top1_error, *[scores.top5_error] * top5]
    numbers = [scores.images, *errors, scores.recall, scores.precision, scores.f1]
    confused = f"{label_of[scores.confused_with]} ({scores.confused_images})" if scores.confused_images else ""
    cells = [_cell("td", text(label), False), *(_cell("td", cell(value), True) for value in numbers)]
    return "".join([*cells, _cell("td", text(confused), False)])


def _cell(tag: str, content: str, number: bool) -> str:
    return f"<{tag}{' class=number' * number}>{content}</{tag}>"


def _unused(per_class: Sequence[ClassErrors]) -> str:
    unused = sum(not scores.images for scores in per_class)
    verb = "has" if unused == 1 else "have"
    note = f"{unused} of the net's {len(per_class)} classes {verb} no images."
    return f'<p class="note">{note}</p>' if unused else ""
