"""A features file of any format -> its rows, a block at a time, so that memory does not grow with their number.

In: what `features.files` writes. Out: blocks (n, ...) of the N rows in their order, float32 or float16. What is no such
file leads to whatever error its format's library raises; `features.opened` turns these into ours.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from resnet_tools.checkpoints.tensor_files import torch_load
from resnet_tools.errors import FeatureError
from resnet_tools.torch7.t7 import read_t7

Array = np.ndarray[Any, Any]
ROWS_AT_ONCE = 4096
BLOCK_BYTES = 1 << 25  # of a block of longer rows, such as maps of features: fewer rows
MAX_ROW_BYTES = 1 << 28
MOST_SMALLER = 1032  # deflate makes nothing smaller by more than that
MAX_LINE = 1 << 26  # characters of a row as text


def rows_at_once(row_bytes: int) -> int:
    """How many rows of that length a block has. Raises: FeatureError if not even one fits into memory."""
    if not 0 <= row_bytes <= MAX_ROW_BYTES:
        raise FeatureError(f"a row has {row_bytes} bytes; expected at most {MAX_ROW_BYTES}")
    return max(1, min(ROWS_AT_ONCE, BLOCK_BYTES // max(1, row_bytes)))


def _slices(rows: Any, shape: Sequence[int], itemsize: int) -> Iterator[Array]:
    step = rows_at_once(prod(shape[1:]) * itemsize)
    for start in range(0, shape[0], step):
        yield rows[start : min(start + step, shape[0])]


def _read_pt(path: Path) -> Iterator[Array]:
    rows = torch_load(path, mapped=True)["features"].numpy()
    return _slices(rows, rows.shape, rows.itemsize)


def _read_npy(path: Path) -> Iterator[Array]:
    with path.open("rb") as file:
        yield from npy_rows(file)


def _read_npz(path: Path) -> Iterator[Array]:
    with zipfile.ZipFile(path) as archive, archive.open("features.npy") as file:
        yield from npy_rows(file)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array whose bytes follow. Raises: ValueError, FeatureError if these are no rows."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if not shape or min(shape) < 0 or (by_columns and len(shape) > 1) or dtype.hasobject:
        raise FeatureError(f"holds {dtype} {shape}{', by columns' * by_columns}; expected numbers (N, ...), row by row")
    return shape, dtype


def npy_rows(file: IO[bytes]) -> Iterator[Array]:
    """The blocks of an array in a .npy file, or in the part of an .npz."""
    shape, dtype = npy_header(file)
    row_bytes = prod(shape[1:]) * dtype.itemsize
    while content := file.read(rows_at_once(row_bytes) * row_bytes):
        yield np.frombuffer(content, dtype).reshape(-1, *shape[1:])


def _read_safetensors(path: Path) -> Iterator[Array]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        rows = file.get_slice("features")
        yield from _slices(rows, rows.get_shape(), 4)


def _read_parquet(path: Path) -> Iterator[Array]:
    _, parquet = pyarrow_packages()
    with parquet.ParquetFile(path) as file:
        width = file.schema_arrow.field("features").type.list_size
        for batch in file.iter_batches(rows_at_once(width * 4), columns=["features"]):
            yield batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def _read_csv(path: Path) -> Iterator[Array]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(text_lines(file))
        width = len(next(lines)) - 1
        while part := [np.array(line[1:], np.float64) for line in islice(lines, rows_at_once(width * 8))]:
            yield np.stack(part).astype(np.float32)


def text_lines(file: IO[str]) -> Iterator[str]:
    """The lines of a text. Raises: FeatureError for one that is no row."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise FeatureError(f"has a line of {MAX_LINE} characters or more; no row is that long")
        yield line


def _read_h5(path: Path) -> Iterator[Array]:
    with h5py_package().File(path) as file:
        rows = own_dataset(file, "features")
        yield from _slices(rows, rows.shape, rows.dtype.itemsize)


def own_dataset(file: Any, name: str) -> Any:
    """A data set that lies in the file itself: HDF5 can also point into other files, which nobody named.

    Raises: FeatureError.
    """
    h5py = h5py_package()
    found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise FeatureError(f"has no data set {name!r} of its own; expected what `resnet extract-features` writes")
    if prod(found.chunks or (1,)) * found.dtype.itemsize > MAX_ROW_BYTES:
        raise FeatureError(f"its data set {name!r} has chunks of more than {MAX_ROW_BYTES} bytes")
    if found.nbytes > file.id.get_filesize() * (1 if found.chunks is None else MOST_SMALLER):
        raise FeatureError(f"its data set {name!r} has {found.shape} entries, for which the file is too small")
    return found


def _read_t7(path: Path) -> Iterator[Array]:
    table: Any = read_t7(path)
    rows = table["features"]
    return _slices(rows, rows.shape, rows.itemsize)


READERS: dict[str, Callable[[Path], Iterator[Array]]] = {
    ".pt": _read_pt,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".h5": _read_h5,
    ".t7": _read_t7,
}


def h5py_package() -> Any:
    """The module h5py. Raises: FeatureError if it is not installed."""
    try:
        import h5py
    except ImportError:
        raise FeatureError(".h5 needs h5py: pip install 'resnet_tools[h5]'") from None
    return h5py


def pyarrow_packages() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises: FeatureError if they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise FeatureError(".parquet needs pyarrow: pip install 'resnet_tools[parquet]'") from None
    return pyarrow, pyarrow.parquet


NEEDS: dict[str, Callable[[], object]] = {".parquet": pyarrow_packages, ".h5": h5py_package}
