"""Rows of features -> two coordinates each, so that similar rows are close together: PCA, t-SNE or UMAP.

PCA reads the file in blocks: memory holds the covariance (D, D), or for long rows a few vectors, and the coordinates.
The other two begin with its first 50 components, as is usual, and hold these of all rows. Everything is deterministic.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from resnet_tools.errors import FeatureError
from resnet_tools.features.opened import FeatureRows, open_features
from resnet_tools.text import counted

Array = np.ndarray[Any, Any]
Method = Literal["pca", "tsne", "umap"]
METHODS: tuple[Method, ...] = ("pca", "tsne", "umap")
COMPONENTS = 50  # that t-SNE and UMAP begin with
LEAST_ROWS = 5  # of which these two make a picture
EXACT_WIDTH = 4096  # of longer rows the components are found by subspace iteration
EXTRA_VECTORS, ITERATIONS = 10, 12
NO_PACKAGE = "--method {} needs {}: pip install 'resnet_tools[map]'"


@dataclass(frozen=True)
class Projection:
    """Two coordinates (n, 2) float64 of the n rows that could be placed.

    `rows[k]`, `names[k]`: number and image of the row at `coordinates[k]`; `left_out`: rows with NaN or infinite
    numbers. `explained`: the parts of the variance that the two coordinates show (PCA only), each from 0 to 1.
    """

    coordinates: Array
    rows: list[int]
    names: list[str]
    left_out: list[int]
    method: Method
    explained: tuple[float, float] | None


def project(
    features: str | os.PathLike[str], *, method: Method = "pca", progress: Callable[[int], None] = lambda _: None
) -> Projection:
    """Two coordinates of each row of a features file, in which similar images are close together.

    features: a file of any format that `resnet extract-features` writes, or `NAME.index.json` for shards.
    method: `pca`, of any number of rows; `tsne` and `umap` need scikit-learn and umap-learn (`resnet_tools[map]`), and
    take minutes for 10,000 rows. The same file gives the same coordinates.
    progress: called with the numbers of rows that were read; each is read twice for PCA.
    Raises: FeatureError if the file cannot be used, too few of its rows are finite, or a package is not installed.

    >>> from resnet_tools import extract_features, project
    >>> found = extract_features("resnet_tools/assets/images", output="photos.pt")
    >>> project("photos.pt").coordinates.shape
    (10, 2)
    """
    return project_rows(open_features(features), method, progress)


def project_rows(features: FeatureRows, method: Method, report: Callable[[int], None] = lambda _: None) -> Projection:
    """See `project`."""
    check_method(method)
    wanted = 2 if method == "pca" else COMPONENTS
    components, mean, variances, total = _components(features, wanted, report)
    coordinates, left_out = _placed(features, components, mean, report)
    missing = set(left_out)
    rows = [row for row in range(len(features)) if row not in missing]
    parts = variances[:2] / total if total > 0 else np.zeros(2)
    explained = (float(parts[0]), float(parts[1])) if method == "pca" else None
    if method != "pca":
        coordinates = _by_neighbours(coordinates, method, features)
    names = features.names if not missing else [features.names[row] for row in rows]
    return Projection(coordinates[:, :2], rows, names, left_out, method, explained)


def check_method(method: Method) -> None:
    """Raises: FeatureError if there is no such method or its package is not installed."""
    if method not in METHODS:
        raise FeatureError(f"method {method!r} is unknown; expected one of {', '.join(METHODS)}")
    try:
        if method == "tsne":
            import sklearn.manifold  # noqa: F401
        if method == "umap":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about packages that umap could also use
                import umap  # noqa: F401
    except ImportError:
        package = {"tsne": "scikit-learn", "umap": "umap-learn"}[method]
        raise FeatureError(NO_PACKAGE.format(method, package)) from None


def _components(features: FeatureRows, wanted: int, report: Callable[[int], None]) -> tuple[Array, Array, Array, float]:
    """The first principal directions (D, wanted), the mean (D,), their variances, and that of all directions."""
    wanted_here = min(wanted, features.width)
    if features.width <= EXACT_WIDTH:
        covariance, mean = _covariance(features, report)
        variances, vectors = np.linalg.eigh(covariance)
        variances, vectors = variances[::-1][:wanted_here], vectors[:, ::-1][:, :wanted_here]
        total = float(np.trace(covariance))
    else:
        vectors, mean, variances, total = _by_iteration(features, wanted_here, report)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(wanted_here)])
    components = np.zeros((features.width, max(2, wanted_here)))
    components[:, :wanted_here] = vectors * np.where(signs == 0, 1, signs)
    return components, mean, np.pad(np.maximum(variances, 0), (0, components.shape[1] - wanted_here)), total


def _finite(rows: Array) -> tuple[Array, Array]:
    """The finite rows as float64, and which they are."""
    finite: Array = np.asarray(np.isfinite(rows).all(1))
    return rows[finite].astype(np.float64), finite


def _covariance(features: FeatureRows, report: Callable[[int], None]) -> tuple[Array, Array]:
    """(D, D) and the mean (D,). Rows are taken relative to the first one, so that a large mean costs no digits."""
    products, sums = np.zeros((features.width,) * 2), np.zeros(features.width)
    count, origin = 0, None
    for _, block in features.blocks():
        rows, _ = _finite(block)
        if len(rows):
            origin = rows[0].copy() if origin is None else origin
            rows -= origin
            products += rows.T @ rows
            sums += rows.sum(0)
            count += len(rows)
        report(len(block))
    if origin is None:
        raise _none_finite(features)
    mean = sums / count
    return products / count - np.outer(mean, mean), mean + origin


def _by_iteration(
    features: FeatureRows, wanted: int, report: Callable[[int], None]
) -> tuple[Array, Array, Array, float]:
    """The same by subspace iteration (Halko et al. 2011), without the covariance: one reading for each iteration."""
    sums, count = np.zeros(features.width), 0
    for _, block in features.blocks():
        rows, _ = _finite(block)
        sums, count = sums + rows.sum(0), count + len(rows)
    if count == 0:
        raise _none_finite(features)
    mean, total = sums / count, 0.0
    start = np.random.default_rng(0).standard_normal((features.width, min(features.width, wanted + EXTRA_VECTORS)))
    vectors, variances = np.linalg.qr(start)[0], np.zeros(wanted)
    for iteration in range(ITERATIONS):
        products, total = np.zeros_like(vectors), 0.0
        for _, block in features.blocks():
            rows, _ = _finite(block)
            rows -= mean
            products += rows.T @ (rows @ vectors)
            total += float(np.square(rows).sum())
            if iteration == ITERATIONS - 1:
                report(len(block))
        left, variances, _ = np.linalg.svd(products / count, full_matrices=False)
        vectors = left
    return vectors[:, :wanted], mean, variances[:wanted], total / count


def _placed(
    features: FeatureRows, components: Array, mean: Array, report: Callable[[int], None]
) -> tuple[Array, list[int]]:
    """The coordinates of the finite rows along the components, and the numbers of the other rows."""
    parts, left_out = [], []
    for first, block in features.blocks():
        rows, finite = _finite(block)
        parts.append((rows - mean) @ components)
        left_out += (first + np.flatnonzero(~finite)).tolist()
        report(len(block))
    return np.concatenate(parts), left_out


def _by_neighbours(start: Array, method: Method, features: FeatureRows) -> Array:
    """t-SNE or UMAP of rows (n, 50), which are their principal components."""
    count = len(start)
    if count < LEAST_ROWS:
        raise FeatureError(
            f"{features.path}: has {counted(count, 'usable row')}; {method} needs {LEAST_ROWS}, give --method pca"
        )
    spread = start[:, 0].std()
    if spread == 0:
        return start  # all rows are the same
    first = (1e-4 * start[:, :2] / spread).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what their later versions will do
        if method == "tsne":
            from sklearn.manifold import TSNE

            job: Any = TSNE(perplexity=min(30.0, (count - 1) / 3), init=first, random_state=0)
        else:
            from umap import UMAP

            neighbours = min(15, count - 1)
            job = UMAP(n_neighbors=neighbours, init=first * 1e5, random_state=0, n_jobs=1)
        found = np.asarray(job.fit_transform(start.astype(np.float32)), np.float64)
    if not np.isfinite(found).all():
        raise FeatureError(f"{features.path}: {method} gives no finite coordinates for it; give --method pca")
    return found


def _none_finite(features: FeatureRows) -> FeatureError:
    return FeatureError(f"{features.path}: every row holds NaN or infinite numbers; nothing can be placed")
