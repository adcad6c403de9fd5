"""The summaries of several nets (see report/summary.py) -> a table in Markdown or CSV, with the published errors."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_tools.history.lines import published_line, results_line
from resnet_tools.text import csv_cell, printable

ERRORS = ("top1_error", "top5_error")
Summary = Mapping[str, Any]


def error_lines(summary: Summary) -> list[str]:
    """The original's last line, and below it the published errors with how much higher ours are."""
    ours = (summary["top1_error"], summary["top5_error"])
    published = summary["published"]
    lines = [results_line(*ours)]
    return [*lines, published_line(ours, (published["top1_error"], published["top5_error"]))] if published else lines


def markdown_table(summaries: Sequence[Summary]) -> str:
    """A row for each net; the columns of published errors only if there are any."""
    published = any(summary["published"] for summary in summaries)
    columns = ["model", "images", "top-1 error", "top-5 error"]
    columns += ["published top-1", "difference", "published top-5", "difference"] if published else []
    rows = [columns, ["---", *["--:"] * (len(columns) - 1)]]
    for summary in summaries:
        cells = [printable(summary["model"]).replace("|", "\\|"), str(summary["images"])]
        cells += [f"{summary[name]:.3f}" for name in ERRORS]
        if summary["published"]:
            for name in ERRORS:
                theirs = summary["published"][name]
                cells += [f"{theirs:.2f}", f"{summary[name] - theirs:+.3f}"]
        rows.append(cells + [""] * (len(columns) - len(cells)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def csv_table(summaries: Sequence[Summary]) -> str:
    """A header and a row for each net."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "images", "unreadable", *ERRORS, *(f"published_{name}" for name in ERRORS)])
    for summary in summaries:
        published = [summary["published"][name] if summary["published"] else "" for name in ERRORS]
        errors = [summary[name] for name in ERRORS]
        model = csv_cell(summary["model"])
        writer.writerow([model, summary["images"], len(summary["unreadable"]), *errors, *published])
    return text.getvalue()
