"""Histories and confusion matrices -> charts, PNG or SVG by the file extension. Only this module uses matplotlib.

The colours are those of Okabe and Ito, which are distinguishable with any colour vision.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.errors import ResnetToolsError
from resnet_tools.history.history import Epoch
from resnet_tools.writing import written_whole

FORMATS = (".png", ".svg")
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
PANELS = (  # title, unit, and the columns with the style of their lines
    ("Validation error", "percent", {"val_top1": "-", "val_top5": "--"}),
    ("Training error", "percent", {"train_top1": "-", "train_top5": "--"}),
    ("Training loss", "cross entropy", {"train_loss": "-"}),
)
LABEL_CHARACTERS = 30
# Up to so many classes -> inches of a cell, points of its labels
CELLS = ((12, 0.62, 10.0), (25, 0.42, 9.0), (50, 0.235, 8.0), (10_000, 0.165, 7.0))
NUMBERED_CLASSES = 25  # up to so many classes, the cells have room for numbers


def check_plotting(path: Path | None = None) -> None:
    """Raises: ResnetToolsError if matplotlib is missing or the extension of `path` names no format."""
    if path is not None and path.suffix.lower() not in FORMATS:
        raise ResnetToolsError(f"{path}: the extension {path.suffix!r} names no format; it is {' or '.join(FORMATS)}")
    _figure_class()


def font_file() -> str:
    """A font with Latin, Greek and Cyrillic letters that comes with matplotlib."""
    _figure_class()
    from matplotlib.font_manager import findfont

    return str(findfont("DejaVu Sans"))


def drawable(name: str) -> str:
    """The name on one line, with `?` for each character that SVG does not allow or that fonts cannot lay out."""
    return "".join(" " if sign.isspace() else sign if sign.isprintable() else "?" for sign in name)


def plot_histories(runs: Mapping[str, Sequence[Epoch]], path: Path) -> None:
    """Validation error, training error and training loss by epoch, each run in a colour of its own; top-5 is dashed.

    Raises: ResnetToolsError if the file cannot be written.
    """
    colors = _colors(len(runs))
    with _figure(path, (15, 4.6 + 0.22 * max(0, len(runs) - 4))) as figure:
        for number, (title, unit, columns) in enumerate(PANELS, 1):
            axes = figure.add_subplot(1, 3, number)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.set_ylabel(unit)
            axes.grid(alpha=0.3)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            drawn = [
                _draw_line(axes, history, column, style, color)
                for history, color in zip(runs.values(), colors, strict=True)
                for column, style in columns.items()
            ]
            if any(drawn):
                axes.set_ylim(bottom=0)
            else:
                axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, color="gray")
        figure.get_layout_engine().set(wspace=0.06)
        _legend(figure, list(runs), colors)


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    return list(COLORS[:count]) if count <= len(COLORS) else list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _draw_line(axes: Any, history: Sequence[Epoch], column: str, style: str, color: str) -> bool:
    points = [(epoch.epoch, getattr(epoch, column)) for epoch in history]
    points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
    marker = "o" if len(points) <= 12 else ""
    if points:
        inside = "none" if style == "--" else "full"  # a run of one epoch has no line that could be dashed
        axes.plot(*zip(*points, strict=True), style, color=color, marker=marker, markersize=4, fillstyle=inside)
    return bool(points)


def _legend(figure: Any, names: Sequence[str], colors: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color) for color in colors]
    handles += [Line2D([], [], color="gray", linestyle=style) for style in ("-", "--")]
    # A leading space, as matplotlib leaves out labels that begin with an underscore.
    labels = [f" {_cut(name, 60)}" for name in names] + ["top-1", "top-5"]
    columns = min(len(labels), 6 if max(map(len, labels)) < 24 else 3)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def plot_confusion(shares: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """A matrix in percent of the images of each row, (R, C); the first R columns are the classes of the rows.

    The diagonal is blue and mistakes are red, each with its own scale, so that even a few mistakes show.
    Raises: ResnetToolsError if the file cannot be written.
    """
    num_classes = len(rows)
    inches, points = next((inches, points) for most, inches, points in CELLS if num_classes <= most)
    width, height = len(columns) * inches, num_classes * inches
    right: NDArray[Any] = np.eye(*shares.shape) > 0
    # No layout is computed: the axes have the size of their cells, and the picture grows to hold the labels.
    with _figure(path, (width, height), layout="none") as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        bar_axes = figure.add_axes((0, 1 + 0.15 / height, min(1, 3 / width), 0.14 / height))
        largest = max(5.0, float(shares[~right].max(initial=0)))
        axes.imshow(np.ma.masked_array(shares, ~right), cmap="Blues", vmin=0, vmax=130)
        wrong = axes.imshow(np.ma.masked_array(shares, right | (shares == 0)), cmap="Reds", vmin=0, vmax=largest)
        axes.set_xticks(range(len(columns)), [_cut(name) for name in columns], rotation=90, fontsize=points)
        axes.set_yticks(range(num_classes), [_cut(name) for name in rows], fontsize=points)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#dddddd", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("prediction", fontsize=points + 1)
        axes.set_ylabel("truth", fontsize=points + 1)
        bar = figure.colorbar(wrong, cax=bar_axes, orientation="horizontal", ticklocation="top")
        bar.set_label("wrong, percent of the class's images", fontsize=points)
        bar_axes.tick_params(labelsize=points)
        if num_classes <= NUMBERED_CLASSES:
            _write_numbers(axes, shares, right, largest, points)


def _write_numbers(axes: Any, shares: NDArray[np.float64], right: NDArray[Any], largest: float, size: float) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            dark = share > (80 if right[row, column] else 0.6 * largest)
            text = f"{share:.0f}" if share >= 0.95 else f"{share:.1f}"
            axes.text(column, row, text, ha="center", va="center", size=size, color="white" if dark else "#333333")


def _cut(name: str, characters: int = LABEL_CHARACTERS) -> str:
    if len(name) <= characters:
        return drawable(name)
    return f"{drawable(name[: characters - 1]).rstrip()}…"


@contextmanager
def _figure(path: Path, inches: tuple[float, float], layout: str = "constrained") -> Iterator[Any]:
    """A figure that is written to `path` when the block ends; the same figures give the same bytes."""
    figure_class, rc_context = _figure_class()
    settings = {"text.parse_math": False, "svg.hashsalt": "resnet_tools", "svg.fonttype": "none"}
    with rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks; they show as boxes
        figure = figure_class(figsize=inches, dpi=110, layout=layout)
        yield figure
        try:
            with written_whole(path) as partial:
                metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
                figure.savefig(partial, metadata=metadata, bbox_inches="tight", pad_inches=0.15)
        except OSError as error:
            raise ResnetToolsError(f"{path}: cannot be written: {error.strerror or error}") from error


def _figure_class() -> tuple[Any, Any]:
    """matplotlib's Figure, which draws without a screen and without state of its own, and its settings."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ResnetToolsError("charts need matplotlib: pip install 'resnet_tools[plot]'") from None
    return Figure, rc_context
