"""A features file of any format -> its rows, a block at a time, so that memory does not grow with their number.

In: what `features.files` writes. Out: blocks (n, ...) of the N rows in their order, float32 or float16.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from resnet_tools.checkpoints.tensor_files import torch_load
from resnet_tools.errors import FeatureError
from resnet_tools.torch7.t7 import read_t7

Array = np.ndarray[Any, Any]
ROWS_AT_ONCE = 4096


def _slices(rows: Array) -> Iterator[Array]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def _read_pt(path: Path) -> Iterator[Array]:
    return _slices(torch_load(path, mapped=True)["features"].numpy())


def _read_npy(path: Path) -> Iterator[Array]:
    with path.open("rb") as file:
        yield from _npy_rows(file)


def _read_npz(path: Path) -> Iterator[Array]:
    with zipfile.ZipFile(path) as archive, archive.open("features.npy") as file:
        yield from _npy_rows(file)


def _npy_rows(file: IO[bytes]) -> Iterator[Array]:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    while content := file.read(ROWS_AT_ONCE * row_bytes):
        yield np.frombuffer(content, dtype).reshape(-1, *shape[1:])


def _read_safetensors(path: Path) -> Iterator[Array]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        rows = file.get_slice("features")
        for start in range(0, rows.get_shape()[0], ROWS_AT_ONCE):
            yield rows[start : min(start + ROWS_AT_ONCE, rows.get_shape()[0])]


def _read_parquet(path: Path) -> Iterator[Array]:
    _, parquet = pyarrow_packages()
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=["features"]):
            yield batch.column(0).flatten().to_numpy(zero_copy_only=False)


def _read_csv(path: Path) -> Iterator[Array]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        next(lines)
        while part := [line[1:] for line in islice(lines, ROWS_AT_ONCE)]:
            yield np.array(part, np.float64).astype(np.float32)


def _read_h5(path: Path) -> Iterator[Array]:
    with h5py_package().File(path) as file:
        rows = file["features"]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows[start : start + ROWS_AT_ONCE]


def _read_t7(path: Path) -> Iterator[Array]:
    table: Any = read_t7(path)
    return _slices(table["features"])


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
