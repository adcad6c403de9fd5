"""Features and images -> the nearest rows of each image, or of each row; and groups of near-identical images.

Memory holds a part of the queries and a block of rows at a time, so it does not grow with the number of rows but by
their names; for each part of the queries the file is read once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from resnet_tools.compute.device import find_device
from resnet_tools.errors import FeatureError, ImageError
from resnet_tools.features.neighbours import Array, Groups, Report, nearest, nothing, unit_rows
from resnet_tools.features.opened import FeatureRows, open_features
from resnet_tools.features.query_net import QueryNet, prepare_products, query_net

QUERY_BYTES = 1 << 28  # of the queries that are compared in one reading of the file, with their neighbours
PAIR_BYTES = 40  # of a neighbour, until it is handed on
Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Neighbour:
    """A row of the features: its number, the path of its image, and the cosine of the angle to the query."""

    row: int
    path: str
    similarity: float


@dataclass(frozen=True)
class Similar:
    """A query and the most similar images, the nearest first.

    `path`: of the query, or `image k` for one that is no file. `row`: its number, if it is a row itself.
    """

    path: str
    neighbours: list[Neighbour]
    row: int | None = None


def similar(
    features: str | os.PathLike[str],
    images: Sequence[Any] | None = None,
    *,
    top_k: int = 5,
    model: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    device: str = "auto",
    progress: Callable[[int], None] = lambda _: None,
) -> list[Similar]:
    """The `top_k` rows of a features file that are most similar to each image, by cosine, the nearest first.

    features: a file of any format that `resnet extract-features` writes, or `NAME.index.json` for shards.
    images: paths of image files, or images in any form that `preprocess` takes; the net, layer, preprocessing and, if
    they are there, engine and device are those that the file records. None: each row of the file is compared with all
    others, and no net is needed.
    model: the file of the net, if it is no longer where it was; its SHA-256 must be the recorded one.
    weights: which net of that file, as for the features. device: `auto`, `cpu`, `cuda`, `cuda:1`.
    progress: called with the numbers of rows that were compared.

    Equal similarities are in the order of the rows. Rows of zeros or with NaN are nobody's neighbours, and have none.
    Raises: FeatureError (the features or the net cannot be used), ImageError (an image cannot be read).

    >>> from resnet_tools import extract_features, similar
    >>> found = extract_features("resnet_tools/assets/images", output="photos.pt")
    >>> [bag] = similar("photos.pt", ["resnet_tools/assets/images/bag.png"], top_k=1)
    >>> bag.neighbours[0].path, round(bag.neighbours[0].similarity, 3)
    ('resnet_tools/assets/images/bag.png', 1.0)
    """
    opened, found_device, report = open_features(features), find_device(device), _counted(progress)
    if images is None:
        return list(similar_rows(opened, found_device, top_k, report))
    net = query_net(
        opened, device, model=None if model is None else os.fsdecode(model), weights=weights, batch_size=None
    )
    found = []
    for result in similar_images(opened, images, net, found_device, top_k, report):
        if isinstance(result, ImageError):
            raise result
        found.append(result)
    return found


def duplicates(
    features: str | os.PathLike[str],
    threshold: float = 0.98,
    *,
    device: str = "auto",
    progress: Callable[[int], None] = lambda _: None,
) -> list[list[Neighbour]]:
    """Groups of two or more images whose features have a cosine of at least `threshold`, directly or through others.

    features, device, progress: as in `similar`. Each image has the similarity of the most similar other one of its
    group. Groups and images are in the order of the rows.
    Raises: FeatureError, also for a threshold that is not above 0 and at most 1.

    >>> from resnet_tools import duplicates, extract_features
    >>> image = "resnet_tools/assets/images/bag.png"
    >>> found = extract_features([image, "resnet_tools/assets/images/coat.png", image], output="photos.pt")
    >>> [[image.row for image in group] for group in duplicates("photos.pt")]
    [[0, 2]]
    """
    return duplicate_groups(open_features(features), find_device(device), threshold, _counted(progress))


def similar_images(
    features: FeatureRows,
    images: Sequence[Any],
    net: QueryNet,
    device: torch.device,
    top_k: int,
    report: Report = nothing,
    loaded: Callable[[int, list[str]], None] = lambda _, __: None,
) -> Iterator[Similar | ImageError]:
    """Each image with its neighbours, or why it has none, in the order of `images`.

    report: as `nearest` calls it; loaded: with the number of images whose features were computed,
    and messages on those that have none.
    """
    top_k = min(top_k, len(features))
    for part in _parts(net.rows(images), _queries_at_once(features, top_k)):
        for _, row in part:
            loaded(1, [str(row)] if isinstance(row, ImageError) else [])
        good = [row for _, row in part if isinstance(row, np.ndarray)]
        found: Iterator[list[Neighbour]] = iter(())
        if good:
            prepare_products(device)
            units, _ = unit_rows(np.stack(good), device)
            found = _neighbours(features, *nearest(units, features.blocks(), top_k, report=report))
        for path, row in part:
            yield row if isinstance(row, ImageError) else Similar(path, next(found))


def similar_rows(
    features: FeatureRows, device: torch.device, top_k: int, report: Report = nothing
) -> Iterator[Similar]:
    """Each row with its nearest other rows; one without a direction has none."""
    top_k = min(top_k, max(1, len(features) - 1))
    prepare_products(device)
    for first, rows in _query_parts(features, _queries_at_once(features, top_k)):
        units, usable = unit_rows(rows, device)
        found = nearest(units, features.blocks(), top_k, own_row=first, report=report)
        for number, neighbours in enumerate(_neighbours(features, *found), first):
            yield Similar(features.names[number], neighbours if usable[number - first] else [], number)


def duplicate_groups(
    features: FeatureRows, device: torch.device, threshold: float, report: Report = nothing
) -> list[list[Neighbour]]:
    """See `duplicates`."""
    if not 0 < threshold <= 1:
        raise FeatureError(f"the threshold is {threshold:g}; expected a cosine above 0 and at most 1, such as 0.98")
    prepare_products(device)
    groups = Groups(len(features))
    for first_query, queries in _query_parts(features, _queries_at_once(features, 1)):
        units, _ = unit_rows(queries, device)
        for first, rows in features.blocks():
            if first + len(rows) > first_query:
                report(first, groups.join(units, first_query, rows, first, threshold))
            else:
                report(first, np.ones(len(rows), bool))
    return [
        [Neighbour(row, features.names[row], float(groups.closest[row])) for row in rows.tolist()]
        for rows in groups.found()
    ]


def passes(features: FeatureRows, top_k: int, queries: int) -> int:
    """How often the file is read for so many queries."""
    return -(-queries // _queries_at_once(features, min(top_k, len(features))))


def _counted(progress: Callable[[int], None]) -> Report:
    return lambda _, usable: progress(len(usable))


def _queries_at_once(features: FeatureRows, top_k: int) -> int:
    return max(1, QUERY_BYTES // (4 * features.width + PAIR_BYTES * top_k))


def _query_parts(features: FeatureRows, size: int) -> Iterator[tuple[int, Array]]:
    """The rows, `size` at a time, with the number of the first."""
    first = 0
    waiting = np.empty((0, features.width), np.float32)
    for _, rows in features.blocks():
        waiting = np.concatenate([waiting, rows])
        while len(waiting) >= size:
            yield first, waiting[:size]
            waiting, first = waiting[size:].copy(), first + size
    if len(waiting):
        yield first, waiting


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _neighbours(features: FeatureRows, rows: Array, similarities: Array) -> Iterator[list[Neighbour]]:
    for numbers, values in zip(rows, similarities, strict=True):
        pairs = zip(numbers.tolist(), values.tolist(), strict=True)
        yield [Neighbour(row, features.names[row], similarity) for row, similarity in pairs if row >= 0]
