"""Features, paths and provenance -> a file, in the format that its extension names.

Every writer gets `Features`, whose rows lie in a file and are streamed, so memory does not grow with their number; it
writes to a path beside the output. What was written is read back, and takes its place only if its rows have the sum
that they had when they were computed.

- `.pt`: {"features": (N, ...) tensor, "image_list": N paths, "errors": [[path, reason], ...], **provenance};
  `torch.load` reads it with its default, weights_only=True.
- `.npy`: the array; the paths, one per line, in `NAME.paths.txt` beside it, the rest in `NAME.provenance.json`.
- `.npz`: features, image_list (text) and provenance (JSON).
- `.safetensors`: the tensor `features`; paths, errors and provenance as JSON in the metadata.
- `.parquet`: columns path (text: bytes that are not UTF-8 as \\xHH) and features (lists of floats); the rest as
  JSON in the schema's metadata, with the `shape` of a row.
- `.csv`: a header and columns path, f0, f1, ...; paths as `text.csv_cell` writes them; the rest in
  `NAME.provenance.json`.
- `.h5`: the data sets features, image_list (text, as in .parquet) and provenance (JSON).
- `.t7`: the table {features = FloatTensor N x D, image_list = {paths}} of the original program; 16 bits: a HalfTensor.
"""

from __future__ import annotations

import csv
import json
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnet_tools.checkpoints.tensor_files import torch_write, write_safetensors
from resnet_tools.errors import FeatureError
from resnet_tools.features.readers import NEEDS, READERS, ROWS_AT_ONCE, h5py_package, pyarrow_packages
from resnet_tools.text import csv_cell
from resnet_tools.torch7.lua import LuaTable
from resnet_tools.torch7.t7_writer import write_t7
from resnet_tools.writing import check_target, written_whole

Array = np.ndarray[Any, Any]
PATHS, PROVENANCE = ".paths.txt", ".provenance.json"
BESIDE = {".npy": (PATHS, PROVENANCE), ".csv": (PROVENANCE,)}


@dataclass(frozen=True)
class Features:
    """`rows`: (N, ...) float32 or float16, row k of file `paths[k]`; `errors`: path and reason of what was left out.

    `crc`: the CRC-32 of the bytes of all rows as they were computed.
    """

    rows: Array
    paths: list[str]
    errors: list[tuple[str, str]]
    provenance: dict[str, Any]
    crc: int


def check_format(path: Path, names: Sequence[str]) -> None:
    """Raises: FeatureError if the extension is unknown, its package is not installed, it cannot hold a name, or a
    folder or a device has the name of a file that is written, or its folder cannot be written to."""
    ending = ending_of(path)
    if ending not in WRITERS:
        raise FeatureError(f"{path}: the extension {path.suffix!r} is unknown; expected one of {', '.join(WRITERS)}")
    NEEDS.get(ending, lambda: None)()
    try:
        for file in files_of(path):
            check_target(file)
    except OSError as error:
        raise FeatureError(f"{error.filename}: {error.strerror}") from error
    if not path.parent.is_dir():
        raise FeatureError(f"{path}: cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise FeatureError(f"{path}: cannot be written: permission denied to make files in {path.parent}")
    if ending == ".npy":
        for name in names:
            if "\n" in name:
                raise FeatureError(f"{name!r} holds a newline, which .paths.txt cannot hold; use .npz or .pt")


def ending_of(path: Path) -> str:
    """The extension that names the format, in lower case."""
    return path.suffix.lower()


def files_of(path: Path) -> list[Path]:
    """The files that `write_features` makes of a path, the path itself first."""
    return [path, *(path.with_suffix(ending) for ending in BESIDE.get(ending_of(path), ()))]


def stored_dtype(path: Path, asked: str) -> np.dtype[Any]:
    """The type in which rows are kept until they are written; .csv has no 16-bit floats and gets them as 32 bits."""
    return np.dtype("float32" if ending_of(path) == ".csv" else asked)


def write_features(features: Features, path: Path) -> None:
    """Write a whole file in place of an earlier one.

    Raises: FeatureError, or T7Error for .t7, if it cannot be written; the earlier file is untouched then.
    """
    try:
        with ExitStack() as files:
            for file in files_of(path)[1:]:
                files.enter_context(written_whole(file)).write_bytes(_beside(features, file))
            partial = files.enter_context(written_whole(path))
            WRITERS[ending_of(path)](features, partial)
            _check_written(partial, path, features.crc)
    except OSError as error:
        raise FeatureError(f"{path}: cannot be written: {error.strerror or error}") from error


def file_sums(path: Path) -> dict[str, int | None]:
    """The CRC-32 of each file that `write_features` makes of a path, by name; None for one that is not there."""
    return {file.name: _crc_of_file(file) if file.is_file() else None for file in files_of(path)}


def _beside(features: Features, file: Path) -> bytes:
    """What stands in the files beside the one with the rows."""
    if file.name.endswith(PATHS):
        return b"".join(os.fsencode(name) + b"\n" for name in features.paths)
    return (json.dumps(json.loads(_description(features)), indent=1) + "\n").encode()


def _crc_of_file(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _check_written(partial: Path, path: Path, expected: int) -> None:
    try:
        crc, reason = 0, "its rows differ"
        for rows in READERS[ending_of(path)](partial):
            crc = zlib.crc32(np.ascontiguousarray(rows).data.cast("B") if rows.size else b"", crc)
    except Exception as error:  # whatever a format's reader makes of a file that is not what its writer wrote
        crc, reason = -1, f"{type(error).__name__}: {error}"
    if crc != expected:
        raise FeatureError(
            f"{path}: what was written does not read back as it was computed ({reason}), so it is not kept. The disk "
            "or the memory of this machine may be faulty. Finished rows are kept; the same command continues"
        )


def _write_pt(features: Features, path: Path) -> None:
    content = {
        "features": torch.from_numpy(features.rows),
        "image_list": features.paths,
        "errors": [list(error) for error in features.errors],
        **features.provenance,
    }
    torch_write(content, path)


def _write_npy(features: Features, path: Path) -> None:
    header = np.lib.format.header_data_from_array_1_0(features.rows)
    with path.open("wb") as file:  # np.save reports success if the disk becomes full at the last bytes
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(features.rows), ROWS_AT_ONCE):
            file.write(features.rows[start : start + ROWS_AT_ONCE].tobytes())


def _write_npz(features: Features, path: Path) -> None:
    names = np.array(features.paths, np.str_)
    with path.open("wb") as file:
        np.savez(file, features=features.rows, image_list=names, provenance=np.array(_description(features)))


def _write_safetensors(features: Features, path: Path) -> None:
    metadata = {"image_list": json.dumps(features.paths), "resnet_tools": _description(features)}
    write_safetensors({"features": torch.from_numpy(features.rows)}, path, metadata)


def _write_parquet(features: Features, path: Path) -> None:
    arrow, parquet = pyarrow_packages()
    kind = arrow.float16() if features.rows.dtype == np.float16 else arrow.float32()
    width = int(np.prod(features.rows.shape[1:]))
    fields = [arrow.field("path", arrow.string()), arrow.field("features", arrow.list_(kind, width))]
    schema = arrow.schema(fields, metadata={"resnet_tools": _description(features)})
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(features.paths), ROWS_AT_ONCE):
            rows = features.rows[start : start + ROWS_AT_ONCE]
            values = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), width)
            paths = features.paths[start : start + ROWS_AT_ONCE]
            names = arrow.array([_as_text(path) for path in paths])
            writer.write_table(arrow.Table.from_arrays([names, values], schema=schema))


def _write_csv(features: Features, path: Path) -> None:
    width = int(np.prod(features.rows.shape[1:]))
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", *(f"f{column}" for column in range(width))])
        for name, row in zip(features.paths, features.rows, strict=True):
            rows.writerow([csv_cell(_as_text(name)), *map("{:.9g}".format, row.reshape(-1).tolist())])


def _write_h5(features: Features, path: Path) -> None:
    h5py = h5py_package()
    with path.open("w+b") as target, h5py.File(target, "w") as file:
        file.create_dataset("features", data=features.rows)
        names = [_as_text(name) for name in features.paths]
        file.create_dataset("image_list", (len(names),), h5py.string_dtype(), data=names or None)
        file.create_dataset("provenance", data=_description(features), dtype=h5py.string_dtype())


def _as_text(path: str) -> str:
    """A path as UTF-8 can hold it: other bytes as \\xHH."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _write_t7(features: Features, path: Path) -> None:
    names = LuaTable(enumerate((os.fsencode(name) for name in features.paths), 1))
    with path.open("wb", buffering=1 << 18) as file:  # save_t7's own partial file would be left behind by a kill
        write_t7(LuaTable([(b"features", features.rows), (b"image_list", names)]), file)


WRITERS: dict[str, Callable[[Features, Path], None]] = {
    ".pt": _write_pt,
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".h5": _write_h5,
    ".t7": _write_t7,
}


def _description(features: Features) -> str:
    return json.dumps(features.provenance | {"errors": features.errors, "shape": features.rows.shape[1:]})
