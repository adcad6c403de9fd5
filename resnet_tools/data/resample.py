"""Scaling as Torch7's image.scale does it, to any part of the result.

In: (H, W, C) pixels. Out: (C, h, w) floats, within 1e-6 of the original's. Torch7 scales without anti-aliasing,
with corners on corners, by a Catmull-Rom kernel (a = -0.5) that extrapolates at the edges; no resize of torch,
torchvision or Pillow does the same.

Each output is a weighted sum of a few source pixels, first down the rows, then along the columns. The tables of taps
say which pixels and how much. torch's `embedding_bag` computes such sums of whole rows at the speed of memory; NumPy
takes twice as long, but need not be imported for seconds (`resample_array`). Only the outputs asked for and the source
pixels under them are touched.

Source: torch/image 5aa1881, generic/image.c and init.lua.
Shapes: H, W source, h, w output, C channels; k taps per output.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnet_tools.data.taps import MODES, Span, taps_between

if TYPE_CHECKING:
    from torch import Tensor

FLOAT32 = np.dtype(np.float32)

_BYTE_ROW_END = np.array([1, 0], np.float32).view(np.uint8)


def resize(image: NDArray[Any], height: float, width: float, mode: str = "bicubic") -> NDArray[Any]:
    """The original's `image.scale(image, width, height, mode)`: (C, H, W) or (H, W) to (C, h, w) or (h, w).

    Fractional sizes are cut off, at least to 1. Modes: bicubic, bilinear, simple. float32, float64 and uint8 stay
    what they are; uint8 is rounded after each direction, columns first.
    """
    h, w = max(1, int(height)), max(1, int(width))
    pixels = image[:, :, None] if image.ndim == 2 else np.moveaxis(image, 0, 2)
    if image.dtype == np.uint8:
        wide = _to_bytes(resample(pixels, (len(pixels), w), mode=mode))
        scaled = _to_bytes(resample(np.moveaxis(wide, 0, 2), (h, w), mode=mode))
    else:
        scaled = resample(pixels, (h, w), mode=mode, dtype=image.dtype).numpy()
    return scaled[0] if image.ndim == 2 else scaled


def _to_bytes(values: Tensor) -> NDArray[Any]:
    return (values.numpy() + 0.5).clip(0, 255).astype(np.uint8)


def resample(
    pixels: NDArray[Any],
    size: tuple[int, int],
    rows: Sequence[range] | None = None,
    columns: Sequence[range] | None = None,
    *,
    scale: tuple[float, ...] = (),
    shift: tuple[float, ...] = (),
    mirrored: bool = False,
    mode: str = "bicubic",
    dtype: np.dtype[Any] = FLOAT32,
    spans: tuple[Span, Span] | None = None,
) -> Tensor:
    """Scale (H, W, C) pixels, or a box sliced out of them, to `size` = (h, w); return (C, h, w), not clamped.

    With `rows` and `columns` only the output rows and columns in those ranges are computed and returned, ascending and
    each once. Channel c comes out as scale[c] * value + shift[c]. `mirrored`: the last column first. `spans`: the part
    of the rows and of the columns that is scaled, whose ends may lie between pixels; all of them if None.
    """
    (height, width, channels), (h, w) = pixels.shape, size
    (of_rows, of_columns) = spans or (None, None)
    # A span hardly ever comes again; its tables would push those out of the caches that do.
    taps, channel_taps = (_taps.__wrapped__, _channel_taps.__wrapped__) if spans else (_taps, _channel_taps)
    down = taps(height, h, tuple(rows or [range(h)]), mode, dtype, False, of_rows)
    along = taps(width, w, tuple(columns or [range(w)]), mode, dtype, mirrored, of_columns)
    box, ones = pixels[down.touched][:, along.touched], 0
    # Scale and shift of a channel are part of the second pass: the shift is the weight of a source that is always 1.
    if scale or shift:
        along, ones = channel_taps(along, scale or (1.0,) * channels, shift or (0.0,) * channels), channels
    # Two passes of weighted sums of whole rows: first down the rows of pixels; then, transposed, along the columns.
    sums = _transposed(down.sums(_table(box, dtype, ones)))  # ((W + 1) C, h), or without ones (W C, h)
    if not ones:
        sums = sums.view(-1, channels * sums.shape[1])  # (W, C h)
    sums = along.sums(sums).view(-1, channels * len(down.indices))  # (w, C h)
    return _transposed(sums).view(channels, len(down.indices), -1)


def resample_array(
    pixels: NDArray[Any],
    size: tuple[int, int],
    rows: Sequence[range],
    columns: Sequence[range],
    *,
    scale: tuple[float, ...],
    shift: tuple[float, ...],
) -> NDArray[Any]:
    """What `resample` gives, bicubic and as float32, within 1e-6 and without torch."""
    height, width, channels = pixels.shape
    down = _taps(height, size[0], tuple(rows), "bicubic", FLOAT32)
    along = _taps(width, size[1], tuple(columns), "bicubic", FLOAT32)
    box = pixels[down.touched][:, along.touched]
    sums = down.array_sums(box.reshape(len(box), -1)).reshape(-1, along.count, channels)  # (h, W, C)
    sums = along.array_sums(sums.transpose(1, 2, 0).reshape(along.count, -1))  # (w, C h)
    scaled = np.ascontiguousarray(sums.reshape(len(sums), channels, -1).transpose(1, 2, 0))  # (C, h, w)
    scaled *= np.array(scale, np.float32)[:, None, None]
    scaled += np.array(shift, np.float32)[:, None, None]
    return scaled


@functools.cache
def _sums_of_bytes() -> Any:
    """embedding_bag for rows of bytes, each followed by a scale and a bias in float32, if torch has it: spares the
    conversion to floats."""
    import torch

    return getattr(torch.ops.quantized, "embedding_bag_byte_rowwise_offsets", None)


def _table(pixels: NDArray[Any], dtype: np.dtype[Any], ones: int) -> Tensor:
    """(H, W, C) -> (H, W C + ones): the pixels, and ones that carry the shift. Bytes stay bytes."""
    import torch

    height, used = len(pixels), pixels[0].size
    as_bytes = pixels.dtype == np.uint8 and dtype == FLOAT32 and _sums_of_bytes() is not None
    end = _BYTE_ROW_END if as_bytes else _BYTE_ROW_END[:0]
    table = np.empty((height, used + ones + len(end)), np.uint8 if as_bytes else dtype)
    table[:, :used] = pixels.reshape(height, used)
    table[:, used : used + ones] = 1
    table[:, used + ones :] = end
    return torch.from_numpy(table)


def _transposed(matrix: Tensor) -> Tensor:
    """(m, n) -> (n, m), contiguous. A channel shuffle is a transposition, 2.5 times as fast as `.t().contiguous()`."""
    from torch.nn.functional import channel_shuffle

    m, n = matrix.shape
    channels = matrix.as_strided((1, m * n, 1, 1), (m * n, 1, m * n, m * n))  # channels_last has the fast code
    return channel_shuffle(channels, m).reshape(n, m)


@dataclass(frozen=True, eq=False)  # a key of a cache by its identity
class _Taps:
    """Output i along one side is the sum of weights[i, j] * source[touched][indices[i, j]] over j < k."""

    touched: slice | NDArray[np.int64]
    count: int  # of the touched
    indices: NDArray[np.int64]  # (outputs, [C,] k), into the touched
    weights: NDArray[Any]  # the same shape

    @functools.cached_property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices, weights and where those of each output start: 0, k, 2 k, ..."""
        import torch

        starts = np.arange(0, self.indices.size, self.indices.shape[-1], dtype=np.int64)
        flat = self.indices.reshape(-1), self.weights.reshape(-1), starts
        return torch.from_numpy(flat[0]), torch.from_numpy(flat[1]), torch.from_numpy(flat[2])

    def sums(self, table: Tensor) -> Tensor:
        """(touched, D) -> (outputs, D)"""
        import torch

        indices, weights, starts = self.tensors
        if table.dtype == torch.uint8:
            sums: Tensor = _sums_of_bytes()(table, indices, starts, False, 0, False, weights)
            return sums
        return torch.nn.functional.embedding_bag(indices, table, starts, mode="sum", per_sample_weights=weights)

    def array_sums(self, table: NDArray[Any]) -> NDArray[Any]:
        """The same for an array, with one index a tap."""
        sums: NDArray[Any] = np.multiply(table[self.indices[:, 0]], self.weights[:, :1])
        for tap in range(1, self.indices.shape[1]):
            sums += np.multiply(table[self.indices[:, tap]], self.weights[:, tap : tap + 1])
        return sums


@functools.lru_cache(maxsize=1024)  # random crops have as many sizes as a photograph has columns
def _taps(
    source: int,
    target: int,
    ranges: tuple[range, ...],
    mode: str,
    dtype: np.dtype[Any],
    mirrored: bool = False,
    span: Span | None = None,
) -> _Taps:
    """The taps of the outputs in `ranges`, of `target` pixels made from `source` pixels, or from a span of them."""
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; expected one of {', '.join(MODES)}")
    outputs = merged(ranges)
    if span is None:
        indices, weights = MODES[mode](source, target, outputs)
    else:
        indices, weights = taps_between(source, target, outputs, span)
    if mirrored:
        indices, weights = np.flipud(indices).copy(), np.flipud(weights).copy()
    tap_weights = weights.astype(dtype)
    first, last = int(indices.min()), int(indices.max())
    # Copy only source pixels that are used: a slice if most of its pixels are, otherwise one by one.
    if last - first < indices.size:
        touched = slice(first, last + 1)
        return _Taps(touched, last + 1 - first, indices - first, tap_weights)
    used = np.unique(indices)
    return _Taps(used, len(used), np.searchsorted(used, indices), tap_weights)


@functools.lru_cache(maxsize=1024)
def _channel_taps(taps: _Taps, scale: tuple[float, ...], shift: tuple[float, ...]) -> _Taps:
    """The same for a table of (touched + 1) C rows, a row per channel, the last C of them ones: (outputs C, k + 1)."""
    channels, (outputs, k) = len(scale), taps.indices.shape
    channel = np.arange(channels)[:, None]
    indices = np.empty((outputs, channels, k + 1), np.int64)
    indices[:, :, :k] = taps.indices[:, None] * channels + channel
    indices[:, :, k:] = taps.count * channels + channel
    weights = np.empty(indices.shape, taps.weights.dtype)
    weights[:, :, :k] = taps.weights[:, None] * np.array(scale, weights.dtype)[:, None]
    weights[:, :, k] = np.array(shift)
    return _Taps(taps.touched, taps.count, indices, weights)


def merged(ranges: Sequence[range]) -> NDArray[np.int64]:
    """The numbers in the ranges, ascending and each once."""
    if len(ranges) == 1:
        return np.arange(ranges[0].start, ranges[0].stop, dtype=np.int64)
    return np.unique(np.concatenate([np.arange(r.start, r.stop, dtype=np.int64) for r in ranges]))
