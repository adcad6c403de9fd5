"""Images -> the classes they show, by a net that takes and gives arrays: no torch is imported.

`compute.inference` does the same with tensors. Shapes: N images, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.loading import MAX_THREADS, load_ahead
from resnet_tools.data.transforms import Preprocessing, preprocess_array, ten_crops_array
from resnet_tools.errors import ImageError, NotFiniteError

if TYPE_CHECKING:
    from resnet_tools.compute.loader_processes import LoaderProcesses

Array = NDArray[Any]
ArrayNet = Callable[[Array], Array]  # (N, C, H, W) -> (N, K) logits, float32
LOADED_AHEAD_BATCHES = 2  # by threads
WHY_NOT_FINITE = "a weight may be NaN, or numbers in the net too large, as they soonest are with --precision half"
NOT_FINITE = f"the net gives NaN or infinite outputs for it; {WHY_NOT_FINITE}"


@dataclass(frozen=True)
class Prediction:
    """The best classes of one image, the best first: positions in the net's output (from 0) and probabilities."""

    path: str
    indices: list[int]
    probabilities: list[float]


@dataclass(frozen=True)
class Loading:
    """How files are loaded into batches.

    workers: threads that load, or, if more than MAX_THREADS, processes; `processes` are used if there are some already.
    """

    preprocessing: Preprocessing
    batch_size: int = 8
    ten_crop: bool = False
    workers: int = 2
    processes: LoaderProcesses | None = field(default=None, compare=False, repr=False)


def classify_arrays(
    paths: Sequence[str], net: ArrayNet, loading: Loading, *, top_k: int = 5
) -> Iterator[Prediction | tuple[str, ImageError]]:
    """What `inference.classify` gives."""
    load = partial(ten_crops_array if loading.ten_crop else preprocess_array, preprocessing=loading.preprocessing)
    ahead = LOADED_AHEAD_BATCHES * loading.batch_size
    items = load_ahead(paths, load, workers=min(loading.workers, MAX_THREADS), ahead=ahead)
    while chunk := list(islice(items, loading.batch_size)):
        images = [item for _, item in chunk if not isinstance(item, ImageError)]
        best = iter(_best(_logits(net, np.stack(images)), top_k) if images else ())
        for path, item in chunk:
            if isinstance(item, ImageError):
                yield path, item
                continue
            classes = next(best)
            yield Prediction(path, *classes) if classes else (path, NotFiniteError(f"{path}: {NOT_FINITE}"))


def _logits(net: ArrayNet, images: Array) -> Array:
    """(N, [10,] C, H, W) -> (N, K); of ten crops their mean, as in the original."""
    logits = net(images.reshape(-1, *images.shape[-3:]))
    return logits if images.ndim == 4 else logits.reshape(len(images), -1, logits.shape[1]).mean(1)


def _best(logits: Array, top_k: int) -> Iterator[tuple[list[int], list[float]] | None]:
    """Per row the best classes and their probabilities, equal ones in the order of the outputs; None if not finite."""
    for row in logits:
        if not np.isfinite(row).all():
            yield None
            continue
        powers = np.exp(row - row.max())
        probabilities = powers / powers.sum()
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        yield best.tolist(), probabilities[best].tolist()
