"""An evaluation -> figures of each class, confusions and mistakes.

Shapes: N images, K classes. Images that could not be read are in none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.evaluation.evaluate import UNREAD, Evaluation
from resnet_tools.metrics import TOP_K

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassErrors:
    """One class: errors in percent, None without images; the class it is most often mistaken for, and how often."""

    name: str
    images: int
    top1_error: float | None
    top5_error: float | None
    confused_with: str
    confused_images: int


@dataclass(frozen=True)
class Mistake:
    """An image whose best class is not the true one; `probability` is that of the prediction."""

    path: str
    truth: str
    prediction: str
    probability: float


def confusion_matrix(evaluation: Evaluation) -> Counts:
    """(K, K): how many images of the row's class were predicted to be of the column's class."""
    num_classes, read = len(evaluation.samples.class_names), evaluation.ranks != UNREAD
    truths = np.asarray(evaluation.samples.targets, np.int64)[read]
    cells = np.bincount(truths * num_classes + evaluation.predictions[read], minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_errors(evaluation: Evaluation) -> list[ClassErrors]:
    """Every class, in the order of the net's outputs."""
    names, targets = evaluation.samples.class_names, np.asarray(evaluation.samples.targets, np.int64)
    images, top1_wrong, top5_wrong = (
        np.bincount(targets[evaluation.ranks >= rank], minlength=len(names))
        for rank in (UNREAD + 1, 1, min(TOP_K, len(names)))  # images that were read, top-1 and top-5 errors
    )
    wrong = confusion_matrix(evaluation)
    np.fill_diagonal(wrong, 0)
    confused = wrong.argmax(1)
    return [
        ClassErrors(
            name,
            int(images[k]),
            _percent(top1_wrong[k], images[k]),
            _percent(top5_wrong[k], images[k]),
            names[confused[k]] if wrong[k, confused[k]] else "",
            int(wrong[k, confused[k]]),
        )
        for k, name in enumerate(names)
    ]


def _percent(part: Any, whole: Any) -> float | None:
    return 100 * int(part) / int(whole) if whole else None


def mistakes(evaluation: Evaluation) -> list[Mistake]:
    """The most confident first; equally confident ones in the order of the samples."""
    samples = evaluation.samples
    wrong = np.flatnonzero(evaluation.ranks >= 1)
    order = wrong[np.argsort(-evaluation.probabilities[wrong], kind="stable")]
    return [
        Mistake(
            samples.name(int(k)),
            samples.class_names[samples.targets[k]],
            samples.class_names[evaluation.predictions[k]],
            float(evaluation.probabilities[k]),
        )
        for k in order
    ]


def frequent_confusions(matrix: Counts) -> list[tuple[int, int, int]]:
    """(truth, prediction, images) of every pair that occurs, the most frequent first."""
    truths, predictions = np.nonzero(matrix - np.diag(np.diag(matrix)))
    images = matrix[truths, predictions]
    order = np.argsort(-images, kind="stable")
    return [(int(truths[k]), int(predictions[k]), int(images[k])) for k in order]


def shown_classes(matrix: Counts, most: int) -> list[int]:
    """At most `most` of the classes that have images or are predicted: those in the most frequent confusions, clustered
    so that classes that are confused with each other are neighbours.
    """
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1)).tolist()
    if len(present) > most:
        chosen: dict[int, None] = {}
        for truth, prediction, _ in frequent_confusions(matrix):
            if len(chosen.keys() | {truth, prediction}) <= most:
                chosen |= {truth: None, prediction: None}
        present = sorted(chosen) or present[:most]
    return [present[k] for k in _clustered(matrix[np.ix_(present, present)])]


def _clustered(matrix: Counts) -> Sequence[int]:
    """An order of the classes, from repeatedly merging the two groups with the highest mean confusion."""
    # Shares instead of counts, in both directions: large classes are not closer than small ones.
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    likeness = shares + shares.T
    np.fill_diagonal(likeness, -1)
    groups = [[k] for k in range(len(matrix))]
    while len(groups) > 1:
        a, b = sorted(np.unravel_index(int(likeness.argmax()), likeness.shape))
        sizes = len(groups[a]), len(groups[b])
        # The row of the merged group is the mean over its members (average linkage).
        merged = (sizes[0] * likeness[a] + sizes[1] * likeness[b]) / sum(sizes)
        likeness[a], likeness[:, a] = merged, merged
        likeness[a, a] = -1
        likeness = np.delete(np.delete(likeness, b, 0), b, 1)
        groups[a] += groups.pop(b)
    return [k for group in groups for k in group]
