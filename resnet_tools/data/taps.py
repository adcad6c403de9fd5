"""The outputs of a scaling along one side -> the source pixels that each is a sum of, and their weights.

`MODES` has those of Torch7's image.scale: (source, target, outputs) -> (outputs, k) indices and weights, where a side
of `source` pixels becomes one of `target`, and `outputs` are the ascending numbers of those that are wanted.

Source: torch/image 5aa1881, generic/image.c.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Taps = tuple[NDArray[np.int64], NDArray[np.float64]]  # indices and weights
Span = tuple[float, float]  # where the first and the last output lie along one side, in source pixels from 0

# Powers of the fraction x (rows: 1, x, x^2, x^3) -> weights of the neighbours at -1, 0, 1, 2 (columns)
_CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
_NEIGHBOURS = np.arange(-1, 3)


def _bicubic_taps(source: int, target: int, outputs: NDArray[np.int64]) -> Taps:
    """Catmull-Rom through four neighbours; outside the image p_-1 = 2 p_0 - p_1, folded into the inner weights."""
    if source == target:
        return _copied(outputs)
    if target == 1 or source == 1:  # to one pixel Torch7 takes the last; from one it leaves the last output unset
        return _copied(np.full_like(outputs, source - 1))
    return _catmull_rom(source, *_aligned(source, target, outputs))


def _catmull_rom(source: int, left: NDArray[np.int64], x: NDArray[np.float64]) -> Taps:
    """left: the source pixel left of each output; x: the fraction beyond it."""
    # x is a float32 as in Torch7, but the powers are not: the weights are rounded once, in `_taps`, and sum to 1.
    powers = np.empty((len(x), 4))
    powers[:, 0], powers[:, 1], powers[:, 2] = 1, x, x * x
    powers[:, 3] = powers[:, 2] * x
    weights, indices = powers @ _CATMULL_ROM, left[:, None] + _NEIGHBOURS
    # At an edge the neighbour outside is on the line through the two next to it, so its weight goes to these.
    for at_edge, outside, edge, inside in (
        (slice(0, int(np.searchsorted(left, 1))), 0, 1, 2),
        (slice(int(np.searchsorted(left, source - 2)), None), 3, 2, 1),
    ):
        beyond = weights[at_edge, outside].copy()
        weights[at_edge, outside] = 0
        weights[at_edge, edge] += 2 * beyond
        weights[at_edge, inside] -= beyond
        indices[at_edge, outside] = indices[at_edge, edge]
    return indices, weights


def _bilinear_taps(source: int, target: int, outputs: NDArray[np.int64]) -> Taps:
    """Enlarging: between two neighbours, corners on corners. Shrinking: the mean of what the output pixel covers."""
    if source == target:
        return _copied(outputs)
    if source == 1:
        return _copied(np.zeros_like(outputs))
    if source < target:
        left, x = _aligned(source, target, outputs)
        return left[:, None] + np.arange(2), np.stack([1 - x, x], axis=1)
    scale = np.float32(source) / np.float32(target)
    start, end = outputs.astype(np.float32) * scale, (outputs + 1).astype(np.float32) * scale
    first, last = start.astype(np.int64)[:, None], end.astype(np.int64)[:, None]
    pixel = first + np.arange((last - first).max() + 1)
    share = np.clip(np.minimum(pixel + 1, end[:, None]) - np.maximum(pixel, start[:, None]), 0, 1)
    share = np.where(pixel < source, share, 0)
    return pixel.clip(0, source - 1), share / share.sum(axis=1, keepdims=True)


def _simple_taps(source: int, target: int, outputs: NDArray[np.int64]) -> Taps:
    """The pixel at the same fraction of the side."""
    position = outputs.astype(np.float32) * (np.float32(source) / np.float32(target))
    return _copied(position.astype(np.int64).clip(0, source - 1))


MODES = {"bicubic": _bicubic_taps, "bilinear": _bilinear_taps, "simple": _simple_taps}


def _copied(indices: NDArray[np.int64]) -> Taps:
    return indices[:, None], np.ones((len(indices), 1))


def _aligned(source: int, target: int, outputs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The source pixel left of each output and the fraction beyond it; corners on corners, in Torch7's float32.

    `outputs` ascend, as does what is returned for them.
    """
    position = outputs.astype(np.float32) * (np.float32(source - 1) / np.float32(target - 1))
    left = np.minimum(position.astype(np.int64), source - 2)
    fraction = position - left
    if outputs[-1] == target - 1:  # a copy of the last pixel there, not a rounded position
        left[-1], fraction[-1] = source - 2, 1
    return left, fraction


def taps_between(source: int, target: int, outputs: NDArray[np.int64], span: Span) -> Taps:
    """Bicubic, with the outputs evenly within a span, no further out than the middle of the outermost pixels."""
    first, last = span
    position = (first + outputs * ((last - first) / max(1, target - 1))).clip(0, source - 1)
    left = np.minimum(position.astype(np.int64), source - 2)
    return _catmull_rom(source, left, position - left)
