"""An evaluation -> figures of each class, confusions and mistakes.

Shapes: N images, K classes. Images that could not be read are in none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnet_tools.evaluation.evaluate import UNREAD, Evaluation
from resnet_tools.metrics import TOP_K

Counts = NDArray[np.int64]
SCORES = ("top1_error", "top5_error", "accuracy", "precision", "recall", "f1")


@dataclass(frozen=True)
class ClassErrors:
    """One class: its images; errors and scores in percent; the class it is most often mistaken for, and how often.

    Errors, accuracy and recall are shares of the class's own images, so accuracy and recall are the same number, and
    None without images. `precision` is the share of what was predicted to be of the class that is: None if the class
    has no images and was never predicted, 0 if it only was never predicted. `f1` is the harmonic mean of both.
    """

    name: str
    images: int
    top1_error: float | None
    top5_error: float | None
    confused_with: str
    confused_images: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class MeanScores:
    """Means over the classes that have images, in percent: `classes` of them with `images` in all."""

    classes: int
    images: int
    top1_error: float
    top5_error: float
    accuracy: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Mistake:
    """An image whose best class is not the true one: its place in the samples, both classes as positions in the net's
    output, and the probability of the prediction.
    """

    position: int
    path: str
    truth: int
    prediction: int
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
    matrix, ranks = confusion_matrix(evaluation), evaluation.ranks
    images, predicted = matrix.sum(1).tolist(), matrix.sum(0).tolist()
    right, not_in_top5 = (
        np.bincount(targets[chosen], minlength=len(names)).tolist()
        for chosen in (ranks == 0, ranks >= min(TOP_K, len(names)))
    )
    wrong = matrix - np.diag(np.diag(matrix))
    confused = wrong.argmax(1).tolist()
    return [
        ClassErrors(
            name,
            images[k],
            _percent(images[k] - right[k], images[k]),
            _percent(not_in_top5[k], images[k]),
            names[confused[k]] if wrong[k, confused[k]] else "",
            int(wrong[k, confused[k]]),
            accuracy=_percent(right[k], images[k]),
            precision=_percent(right[k], predicted[k] or images[k]),  # 0 of some images if it was never predicted
            recall=_percent(right[k], images[k]),
            f1=_percent(2 * right[k], images[k] + predicted[k]),
        )
        for k, name in enumerate(names)
    ]


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def macro_means(per_class: Sequence[ClassErrors]) -> MeanScores:
    """Every class counts the same, however many images it has."""
    return _means(per_class, lambda _: 1)


def weighted_means(per_class: Sequence[ClassErrors]) -> MeanScores:
    """Every class counts as often as it has images, so accuracy and errors are those of all images."""
    return _means(per_class, lambda scores: scores.images)


def _means(per_class: Sequence[ClassErrors], weight: Callable[[ClassErrors], int]) -> MeanScores:
    known = [scores for scores in per_class if scores.images]
    total = sum(map(weight, known))
    means = {name: math.fsum(getattr(scores, name) * weight(scores) for scores in known) / total for name in SCORES}
    return MeanScores(len(known), sum(scores.images for scores in known), **means)


def mistakes(evaluation: Evaluation) -> list[Mistake]:
    """The most confident first; equally confident ones in the order of the samples."""
    samples = evaluation.samples
    wrong = np.flatnonzero(evaluation.ranks >= 1)
    order = wrong[np.argsort(-evaluation.probabilities[wrong], kind="stable")]
    return [
        Mistake(
            k,
            samples.name(k),
            int(samples.targets[k]),
            int(evaluation.predictions[k]),
            float(evaluation.probabilities[k]),
        )
        for k in order.tolist()
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
