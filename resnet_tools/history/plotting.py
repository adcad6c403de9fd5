"""Histories and confusion matrices -> charts; PNG, SVG or PDF by the extension. Only this module uses matplotlib.

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

FORMATS = (".png", ".svg", ".pdf")
DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # left out, so that the bytes stay the same
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
PANELS = (  # title, unit, and the columns with the style of their lines
    ("Validation error", "percent", {"val_top1": "-", "val_top5": "--"}),
    ("Training error", "percent", {"train_top1": "-", "train_top5": "--"}),
    ("Training loss", "cross entropy", {"train_loss": "-"}),
)
RUN_PANELS = (("Error", "percent", "top1"), ("Loss", "cross entropy", "loss"))  # title, unit, end of the columns
PARTS = {"val": COLORS[0], "train": COLORS[1]}
TOP_STYLES: dict[Any, str] = {"-": "top-1", "--": "top-5"}
BEST_MARK: dict[str, Any] = {
    "color": COLORS[0],
    "linestyle": "none",
    "marker": "o",
    "markersize": 9,
    "markerfacecolor": "white",
    "markeredgewidth": 2,
    "zorder": 5,
}
LABEL_CHARACTERS = 30
# Up to so many classes -> inches of a cell, points of its labels
CELLS = ((4, 1.0, 11.0), (12, 0.62, 10.0), (25, 0.42, 9.0), (50, 0.235, 8.0), (10_000, 0.165, 7.0))
NUMBERED_CLASSES = 25  # up to so many classes, the cells have room for numbers
BAR_INCHES = 2.4
LEAST_SCALE_PERCENT = 10.0  # the darkest colour of mistakes stands for at least this share, so that few look like few


def check_plotting(path: Path | None = None) -> None:
    """Raises: ResnetToolsError if matplotlib is missing or the extension of `path` is unknown."""
    if path is not None and path.suffix.lower() not in FORMATS:
        raise ResnetToolsError(
            f"{path}: the extension {path.suffix!r} is unknown; expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
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
            axes = _panel(figure, (1, 3, number), title, unit)
            drawn = [
                _draw_line(axes, history, column, style, color)
                for history, color in zip(runs.values(), colors, strict=True)
                for column, style in columns.items()
            ]
            _finish_panel(axes, drawn)
        figure.get_layout_engine().set(wspace=0.06)
        _legend(figure, list(runs), colors, TOP_STYLES)


def draw_training(history: Sequence[Epoch], path: Path) -> None:
    """One run: errors in one panel, losses in the other, with the epoch of the lowest validation error marked.

    Top-5 errors are dashed, and left out where they are always 0, as they are with up to five classes.
    Raises: ResnetToolsError if the file cannot be written.
    """
    best = _best_epoch(history)
    top5 = any(epoch.val_top5 > 0 or epoch.train_top5 > 0 for epoch in history)
    with _figure(path, (10, 4.2)) as figure:
        for number, (title, unit, kind) in enumerate(RUN_PANELS, 1):
            axes = _panel(figure, (1, 2, number), title, unit)
            kinds = {"top1": "-", "top5": "--"} if top5 and kind == "top1" else {kind: "-"}
            drawn = [
                _draw_line(axes, history, f"{part}_{column}", style, color)
                for column, style in kinds.items()
                for part, color in PARTS.items()
            ]
            _finish_panel(axes, drawn)
            if best is not None and any(drawn):
                axes.axvline(best.epoch, color="#666666", linewidth=1, linestyle=":", zorder=1)
                axes.plot([best.epoch], [getattr(best, f"val_{kind}")], **BEST_MARK)
        figure.get_layout_engine().set(wspace=0.06)
        mark = (
            {} if best is None else {f"lowest validation error: {best.val_top1:.2f} %, epoch {best.epoch}": BEST_MARK}
        )
        _legend(figure, ("validation", "training"), list(PARTS.values()), TOP_STYLES if top5 else {}, mark)


def _best_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The first one with the lowest validation error, whose net a run keeps as its best."""
    known = [epoch for epoch in history if math.isfinite(epoch.val_top1)]
    return min(known, key=lambda epoch: epoch.val_top1, default=None)


def _panel(figure: Any, place: tuple[int, int, int], title: str, unit: str) -> Any:
    axes = figure.add_subplot(*place)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return axes


def _finish_panel(axes: Any, drawn: Sequence[bool]) -> None:
    if any(drawn):
        axes.set_ylim(bottom=0, top=1.03 * axes.get_ylim()[1])  # a single point would lie on the edge
    else:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, color="gray")


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


def _legend(
    figure: Any,
    names: Sequence[str],
    colors: Sequence[Any],
    styles: Mapping[Any, str],
    marks: Mapping[str, Mapping[str, Any]] = {},
) -> None:
    """names: of the lines with these colours. styles: of a line, and what it means. marks: what they mean, and how."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color) for color in colors]
    handles += [Line2D([], [], color="gray", linestyle=style) for style in styles]
    handles += [Line2D([], [], **how) for how in marks.values()]
    # A leading space, as matplotlib leaves out labels that begin with an underscore.
    labels = [*(f" {_cut(name, 60)}" for name in names), *styles.values(), *marks]
    columns = len(labels) if marks else min(len(labels), 6 if max(map(len, labels)) < 24 else 3)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def plot_confusion(counts: NDArray[Any], rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """A matrix of images (R, C), coloured by their share of the row; the first R columns are the classes of the rows.

    The diagonal is blue and mistakes are red, each with its own scale, so that even a few mistakes show; other columns,
    which sum up many classes, are gray. Of up to NUMBERED_CLASSES classes the cells hold their numbers of images.
    Raises: ResnetToolsError if the file cannot be written.
    """
    num_classes = len(rows)
    inches, points = next((inches, points) for most, inches, points in CELLS if num_classes <= most)
    width, height = len(columns) * inches, num_classes * inches
    shares = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
    numbered = num_classes <= NUMBERED_CLASSES
    # No layout is computed: the axes have the size of their cells, and the picture grows to hold the labels.
    with _figure(path, (width, height), layout="none") as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        colors, (right, wrong) = _draw_cells(axes, shares)
        _label_cells(axes, rows, columns, points)
        axes.set_xlabel(f"prediction{' (the numbers are images)' * numbered}", fontsize=points + 1)
        axes.set_ylabel("truth", fontsize=points + 1)
        # Above the matrix, in inches; a bar with its numbers and title is 0.65 high.
        beside = width >= 2 * BAR_INCHES + 0.4
        _color_bar(figure, wrong, "wrong", (BAR_INCHES + 0.4 if beside else 0, 0.15), (width, height), points)
        _color_bar(figure, right, "right", (0, 0.15 if beside else 0.8), (width, height), points)
        if numbered:
            _write_numbers(axes, counts, colors, points)


def _draw_cells(axes: Any, shares: NDArray[Any]) -> tuple[NDArray[Any], tuple[Any, Any]]:
    """The colours (R, C, 4) of the cells, and the scales of the diagonal and of mistakes."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    right: NDArray[Any] = np.eye(*shares.shape) > 0
    summed = np.arange(shares.shape[1]) >= len(shares)  # (C,): the columns that are no classes of the rows
    largest = max(LEAST_SCALE_PERCENT, float(shares[~right & ~summed].max(initial=0)))
    blue, red, gray = (
        ScalarMappable(Normalize(0, top), colormaps[name])
        for name, top in (("Blues", 100), ("Reds", largest), ("Greys", 100))
    )
    colors = np.where(right[..., None], blue.to_rgba(shares), red.to_rgba(shares))
    colors = np.where(summed[:, None], gray.to_rgba(shares), colors)
    colors[shares == 0] = 1
    axes.imshow((255 * colors).round().astype(np.uint8), interpolation="nearest")  # floats take 100 MB to scale
    return colors, (blue, red)


def _color_bar(
    figure: Any, scale: Any, name: str, place: tuple[float, float], inches: tuple[float, float], points: float
) -> None:
    """place: of its lower left corner, from the upper left one of the axes; inches: the size of the axes."""
    width, height = inches
    axes = figure.add_axes((place[0] / width, 1 + place[1] / height, BAR_INCHES / width, 0.14 / height))
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal", ticklocation="top")
    bar.set_label(f"{name}, % of the class's images", fontsize=points, loc="left")
    axes.tick_params(labelsize=points)
    axes.xaxis.get_major_locator().set_params(nbins=4)


def _label_cells(axes: Any, rows: Sequence[str], columns: Sequence[str], points: float) -> None:
    axes.set_xticks(range(len(columns)), [_cut(name) for name in columns], rotation=90, fontsize=points)
    axes.set_yticks(range(len(rows)), [_cut(name) for name in rows], fontsize=points)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _write_numbers(axes: Any, counts: NDArray[Any], colors: NDArray[Any], points: float) -> None:
    """colors: (R, C, 4), those of the cells."""
    for (row, column), count in np.ndenumerate(counts):
        if count:
            text = f"{count:.0f}"
            size = points * min(1, 4 / len(text))  # a cell has room for four digits
            color = readable_on(colors[row, column, :3])
            axes.text(column, row, text, ha="center", va="center", size=size, color=color)


def readable_on(color: NDArray[Any]) -> str:
    """Black or white, whichever contrasts more with the colour (3,); the contrast is 4.5 at least.

    Source: WCAG 2.1, relative luminance and contrast ratio.
    """
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


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
                figure.savefig(partial, metadata=DATES.get(path.suffix.lower()), bbox_inches="tight", pad_inches=0.15)
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
