"""Features, paths and where they come from -> a file, in the format that its ending names.

Every writer gets `Features`, whose rows lie in a file and are streamed, so memory does not grow with their number; it
writes to the path it is given, which is renamed into place only when it is whole.

- `.pt`: {"features": (N, ...) tensor, "image_list": N paths, "errors": [[path, reason], ...], **provenance};
  it is read with torch.load and weights_only=True.
- `.npy`: the array; the paths one a line in `NAME.paths.txt` beside it.
- `.npz`: features, image_list (bytes) and provenance (JSON).
- `.safetensors`: the tensor `features`; paths, errors and provenance as JSON in the metadata.
- `.parquet`: columns path and features (a list of floats a row); the rest as JSON in the schema's metadata.
- `.t7`: the table {features = FloatTensor N x D, image_list = {paths}} of the original program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnet_tools.errors import FeatureError
from resnet_tools.torch7.lua import LuaTable
from resnet_tools.torch7.t7_writer import save_t7
from resnet_tools.writing import written_whole

Array = np.ndarray[Any, Any]
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Features:
    """`rows`: (N, ...) float32 or float16, row k of file `paths[k]`; `errors`: path and reason of what was left out."""

    rows: Array
    paths: list[str]
    errors: list[tuple[str, str]]
    provenance: dict[str, Any]


def check_format(path: Path) -> None:
    """Raises: FeatureError if the ending names no format, or one whose package is not installed."""
    if path.suffix not in WRITERS:
        raise FeatureError(f"{path}: the ending {path.suffix!r} names no format; it is one of {', '.join(WRITERS)}")
    if path.suffix == ".parquet":
        _pyarrow()


def write_features(features: Features, path: Path) -> None:
    """Write a whole file in place of an earlier one.

    Raises: FeatureError if it cannot be written; the earlier file is untouched then.
    """
    try:
        if path.suffix == ".npy":
            _write_paths(features.paths, path.with_suffix(".paths.txt"))
        with written_whole(path) as partial:
            WRITERS[path.suffix](features, partial)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise FeatureError(f"{path}: cannot be written: {error}") from error


def _write_paths(names: list[str], path: Path) -> None:
    if any("\n" in name for name in names):
        raise FeatureError("a path holds a newline, which .paths.txt cannot hold; use .npz or .pt")
    with written_whole(path) as partial:
        partial.write_bytes(b"".join(os.fsencode(name) + b"\n" for name in names))


def _write_pt(features: Features, path: Path) -> None:
    content = {
        "features": torch.from_numpy(features.rows),
        "image_list": features.paths,
        "errors": [list(error) for error in features.errors],
        **features.provenance,
    }
    torch.save(content, path)


def _write_npy(features: Features, path: Path) -> None:
    np.save(path, features.rows)


def _write_npz(features: Features, path: Path) -> None:
    names = np.array([os.fsencode(name) for name in features.paths], np.bytes_)
    with path.open("wb") as file:
        np.savez(file, features=features.rows, image_list=names, provenance=np.array(_description(features)))


def _write_safetensors(features: Features, path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"image_list": json.dumps(features.paths), "resnet_tools": _description(features)}
    save_file({"features": torch.from_numpy(features.rows)}, path, metadata=metadata)


def _write_parquet(features: Features, path: Path) -> None:
    arrow, parquet = _pyarrow()
    kind = arrow.float16() if features.rows.dtype == np.float16 else arrow.float32()
    width = int(np.prod(features.rows.shape[1:]))
    fields = [arrow.field("path", arrow.string()), arrow.field("features", arrow.list_(kind, width))]
    schema = arrow.schema(fields, metadata={"resnet_tools": _description(features)})
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(features.paths), ROWS_AT_ONCE):
            rows = features.rows[start : start + ROWS_AT_ONCE]
            values = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), width)
            names = [name.encode(errors="surrogateescape").decode(errors="replace") for name in features.paths]
            writer.write_table(
                arrow.Table.from_arrays([arrow.array(names[start : start + len(rows)]), values], schema=schema)
            )


def _write_t7(features: Features, path: Path) -> None:
    names = LuaTable(enumerate((os.fsencode(name) for name in features.paths), 1))
    rows = features.rows if features.rows.dtype == np.float32 else features.rows.astype(np.float32)
    save_t7(LuaTable([(b"features", rows), (b"image_list", names)]), path)


WRITERS: dict[str, Callable[[Features, Path], None]] = {
    ".pt": _write_pt,
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
    ".t7": _write_t7,
}


def _description(features: Features) -> str:
    return json.dumps(features.provenance | {"errors": features.errors})


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise FeatureError(".parquet needs pyarrow: pip install 'resnet_tools[parquet]'") from None
    return pyarrow, pyarrow.parquet
