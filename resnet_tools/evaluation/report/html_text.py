"""Plain values -> the text and tables of an HTML page; everything that comes from names is escaped here."""

from __future__ import annotations

import html
from collections.abc import Sequence

from resnet_tools.text import printable

Cell = str | int | float | None
LABEL_CHARACTERS = 60  # of a class name; the CSV files have all of it


def text(value: str) -> str:
    """Printable and escaped for HTML; bytes of file names that are not UTF-8 become replacement characters."""
    return html.escape(printable(value).encode(errors="surrogateescape").decode(errors="replace"))


def label(name: str) -> str:
    """The class name as pages show it: a long one ends in `…`."""
    return name if len(name) <= LABEL_CHARACTERS else f"{name[: LABEL_CHARACTERS - 1].rstrip()}…"


def cell(value: Cell) -> str:
    """A value as tables show it, escaped; floats have two digits after the point."""
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else text(str(value))


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A plain table: columns whose first cell is no text are aligned as numbers; a first column of files is wide."""
    kinds = ["" if isinstance(value, str) else ' class="number"' for value in rows[0]] if rows else [""] * len(columns)
    head = "".join(f"<th{kind}>{text(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    lines = ("".join(f"<td{kind}>{cell(value)}</td>" for value, kind in zip(row, kinds, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    opening = '<table class="files">' if columns[0] == "file" else "<table>"
    return f'<div class="table">{opening}<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
