"""A confusion matrix -> its picture: all classes, or of many those that are confused most often."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from resnet_tools.evaluation.report.tables import Counts, shown_classes
from resnet_tools.history.plotting import plot_confusion

ALL_CLASSES, WORST_CLASSES = 100, 50  # up to so many classes are all drawn; of more, so many of the worst
OTHER = "(other)"


def draw_confusion(matrix: Counts, class_names: Sequence[str], path: Path) -> int:
    """Draw the images (K, K) by truth and prediction (`tables.confusion_matrix`), clustered by likeness.

    Returns: the number of classes that are drawn: those that have images or are predicted, or the WORST_CLASSES.
    Raises: ResnetToolsError without matplotlib, or if the file cannot be written.
    """
    most = ALL_CLASSES if np.count_nonzero(matrix.sum(0) + matrix.sum(1)) <= ALL_CLASSES else WORST_CLASSES
    shown = shown_classes(matrix, most)
    cells = matrix[np.ix_(shown, shown)]
    rows = columns = [class_names[k] for k in shown]
    if most == WORST_CLASSES:
        others = matrix[shown].sum(1, keepdims=True) - cells.sum(1, keepdims=True)
        cells, columns = np.hstack([cells, others]), [*rows, OTHER]
    plot_confusion(cells, rows, columns, path)
    return len(shown)
