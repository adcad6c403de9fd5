"""Rows of features -> their nearest by cosine, and groups of near-identical ones, in blocks of bounded memory.

Shapes: Q queries and N rows of D numbers; k neighbours. A similarity is kept as a multiple of 2^-20 (1e-6): below that
float32 products differ by the order of their sums. Equal ones are in the order of the rows.

A pair of similarity and row is one integer, similarity x 2^20 x 2^40 - row, so that a larger one is a better one and no
two are equal: the best k are then the same whatever the blocks are, also among thousands of identical images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Blocks = Iterable[tuple[int, Array]]  # the number of the first row, and the rows (n, D) float32
# Called for each block of rows with the number of the first, and which of them have a direction, (n,) bool.
Report = Callable[[int, Array], None]
STEPS, ROW_BITS = 1 << 20, 40
NONE = -(1 << 62)  # what is behind every pair
TILE = 1 << 22  # similarities that are held at once on a CPU: 16 MiB, and some integers for each
GPU_TILE = 1 << 24


def nothing(_: int, __: Array) -> None:
    """The Report of those who want none."""


def unit_rows(rows: Array, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows scaled to length 1 on `device`, (n, D) float32, and which of them have a direction, (n,).

    Rows of zeros, and with NaN or infinite numbers, have none; they are zero here. Neither very large nor very small
    numbers overflow.
    """
    found = torch.from_numpy(rows).to(device)
    lowest, highest = torch.aminmax(found, dim=1)
    largest = torch.maximum(highest, -lowest)
    usable = largest.isfinite() & (largest > 0)
    units = found / torch.where(usable, largest, 1)[:, None]  # the only copy: allocating takes longer than computing
    units[~usable] = 0
    return units.div_(torch.linalg.vector_norm(units, dim=1, keepdim=True).clamp_min_(1)), usable


def nearest(
    queries: Tensor, blocks: Blocks, top_k: int, *, own_row: int | None = None, report: Report = nothing
) -> tuple[Array, Array]:
    """The rows (Q, k) int64 of the k nearest of each query, the nearest first, and their similarities (Q, k) float64.

    queries: (Q, D), of length 1. own_row: query q is row `own_row + q` itself, which is then not its neighbour. Where
    there are fewer than k, the rest is -1 and NaN.
    """
    best = torch.full((len(queries), top_k), NONE, dtype=torch.int64, device=queries.device)
    for first, rows in blocks:
        units, usable = unit_rows(rows, queries.device)
        for start, tile in _tiles(queries, len(units)):
            keys = _keys(tile @ units.T, first)
            keys[:, ~usable] = NONE
            if own_row is not None:
                _leave_out_own(keys, own_row + start - first)
            found = torch.cat([best[start : start + len(tile)], _best(keys, top_k)], 1)
            best[start : start + len(tile)] = _best(found, top_k)
        report(first, usable.cpu().numpy())
    return _decoded(best)


def _tiles(queries: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    most = (GPU_TILE if queries.device.type == "cuda" else TILE) // rows
    step = max(1, most)
    for start in range(0, len(queries), step):
        yield start, queries[start : start + step]


def _keys(similarities: Tensor, first: int) -> Tensor:
    steps = (similarities * STEPS).round_().clamp_(-STEPS, STEPS).to(torch.int64)
    rows = torch.arange(first, first + steps.shape[1], device=steps.device)
    return (steps << ROW_BITS).sub_(rows)


def _best(keys: Tensor, top_k: int) -> Tensor:
    return keys.topk(min(top_k, keys.shape[1]), dim=1).values


def _leave_out_own(keys: Tensor, own_column: int) -> None:
    """Query q is column `own_column + q`, if there is one."""
    queries = torch.arange(len(keys), device=keys.device)
    columns = queries + own_column
    inside = (columns >= 0) & (columns < keys.shape[1])
    keys[queries[inside], columns[inside]] = NONE


def _decoded(keys: Tensor) -> tuple[Array, Array]:
    found = keys.cpu().numpy()
    steps = -((-found) >> ROW_BITS)
    there = found != NONE
    return np.where(there, (steps << ROW_BITS) - found, -1), np.where(there, steps / STEPS, np.nan)


class Groups:
    """N rows, which `join` puts into one group if they are alike, directly or through others.

    `closest[k]`: the similarity of row k to the most similar other row that was joined with it, or -inf.
    """

    def __init__(self, count: int) -> None:
        self.parent = np.arange(count)
        self.closest = np.full(count, -np.inf)

    def join(self, queries: Tensor, first_query: int, rows: Array, first: int, threshold: float) -> Array:
        """Join each query, row `first_query + q`, with the rows after it that are at least so similar.

        Returns: which of the rows have a direction, (n,) bool.
        """
        units, usable = unit_rows(rows, queries.device)
        columns = torch.arange(first, first + len(units), device=queries.device)
        for start, tile in _tiles(queries, len(units)):
            similarities = ((tile @ units.T) * STEPS).round_() / STEPS
            own = torch.arange(first_query + start, first_query + start + len(tile), device=tile.device)
            alike = (similarities >= threshold) & usable & (columns > own[:, None])
            places = alike.nonzero()
            if len(places):
                values = similarities[alike].double().cpu().numpy()
                one, other = places.cpu().numpy().T + np.array([[first_query + start], [first]])
                np.maximum.at(self.closest, one, values)
                np.maximum.at(self.closest, other, values)
                self._merge(one, other)
        found: Array = usable.cpu().numpy()
        return found

    def _merge(self, one: Array, other: Array) -> None:
        """Every row's parent becomes the first row of its group."""
        while True:
            a, b = self.parent[one], self.parent[other]
            if (a == b).all():
                return
            np.minimum.at(self.parent, np.maximum(a, b), np.minimum(a, b))
            while ((above := self.parent[self.parent]) != self.parent).any():
                self.parent = above

    def found(self) -> list[Array]:
        """The rows of each group of two or more, in order."""
        order = np.argsort(self.parent, kind="stable")
        starts = np.flatnonzero(np.diff(self.parent[order])) + 1
        return [rows for rows in np.split(order, starts) if len(rows) > 1]
