"""A features file of any format, or the index of its shards -> its rows in blocks, their names and how they were made.

Everything in these files is checked: a file that is not what `features.files` writes, or was cut or changed, is an
error that names it. Rows are (N, D) here: features of C channels at h x w positions are C h w numbers.
"""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tools.checkpoints.tensor_files import torch_load
from resnet_tools.errors import FeatureError, ResnetToolsError
from resnet_tools.features.readers import (
    NEEDS,
    READERS,
    npy_header,
    npy_rows,
    own_dataset,
    pyarrow_packages,
    text_lines,
)
from resnet_tools.features.readers import h5py_package as h5
from resnet_tools.reading import read_bounded
from resnet_tools.text import FORMULA_SIGNS, counted
from resnet_tools.torch7.t7 import read_t7

Array = np.ndarray[Any, Any]
Described = tuple[list[str], Mapping[str, Any]]  # the names of the rows, and the provenance
INDEX = ".index.json"
MAX_JSON_BYTES, MAX_NAMES_BYTES = 1 << 26, 1 << 31
MAX_NAME = 1 << 16  # characters
NOT_PROVENANCE = {"features", "image_list", "errors", "shape", "shards"}


@dataclass(frozen=True)
class FeatureRows:
    """N rows of `width` numbers that lie in `files`, read anew by each call of `blocks`.

    `names[k]`: the image of row k; `provenance`: how the rows were made, or empty if the file does not say it.
    """

    path: Path
    files: list[Path]
    names: list[str]
    provenance: dict[str, Any]
    width: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """The number of the first row of each block, and the block, (n, width) float32; its memory is its own.

        Raises: FeatureError if the rows are no numbers, of several lengths, or not as many as the names.
        """
        first = 0
        for file in self.files:
            for rows in _rows_of(file):
                if rows.shape[1] != (self.width or rows.shape[1]):
                    raise FeatureError(f"{file}: has rows of {rows.shape[1]} numbers; expected {self.width}")
                if first + len(rows) > len(self):
                    break
                yield first, rows
                first += len(rows)
            else:
                continue
            raise FeatureError(f"{file}: has more rows than names; {self.path} has {len(self)} names in all")
        if first != len(self):
            raise FeatureError(
                f"{self.path}: has {counted(first, 'row')} for {counted(len(self), 'name')}; "
                "it is incomplete, make it again"
            )


def open_features(path: str | os.PathLike[str]) -> FeatureRows:
    """The features in a file, or in the shards that an index (`NAME.index.json`) names.

    Raises: FeatureError if they cannot be read, are not what `resnet extract-features` writes, or there are none.
    """
    path = Path(path)
    opened = _opened_index(path) if path.name.endswith(INDEX) else _opened_file(path)
    found = next(opened.blocks(), None)
    if found is None or found[1].shape[1] == 0:
        raise FeatureError(f"{path}: holds no rows; give the features of at least one image")
    return replace(opened, width=found[1].shape[1])


def _opened_file(path: Path) -> FeatureRows:
    ending = path.suffix.lower()
    if ending not in DESCRIBERS:
        formats = f"{', '.join(DESCRIBERS)}, or NAME{INDEX} for shards"
        raise FeatureError(f"{path}: the extension {path.suffix!r} is unknown; expected one of {formats}")
    if not path.is_file():
        raise FeatureError(f"{path}: there is no such file; expected features that `resnet extract-features` wrote")
    NEEDS.get(ending, lambda: None)()
    names, provenance = _guarded(path, lambda: DESCRIBERS[ending](path))
    if not isinstance(names, list) or not all(isinstance(name, str) and len(name) <= MAX_NAME for name in names):
        raise FeatureError(
            f"{path}: its image_list is not a list of names; expected what `resnet extract-features` writes"
        )
    if not isinstance(provenance, Mapping):
        raise FeatureError(f"{path}: its provenance is not a table; expected what `resnet extract-features` writes")
    kept = {str(key): value for key, value in provenance.items() if key not in NOT_PROVENANCE}
    return FeatureRows(path, [path], names, kept)


def _opened_index(path: Path) -> FeatureRows:
    content = _json(read_bounded(path, MAX_JSON_BYTES, "index of shards"), path)
    shards = content.get("shards")
    if not isinstance(shards, list) or not all(isinstance(s, dict) and isinstance(s.get("file"), str) for s in shards):
        raise FeatureError(f"{path}: lists no shards; expected an index that `resnet extract-features` wrote")
    files, names = [], []
    for shard in shards:
        name = shard["file"]
        if os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name or "\\" in name:
            raise FeatureError(f"{path}: names the shard {name!r:.100}; expected a file beside the index")
        opened = _opened_file(path.with_name(name))
        files.append(opened.path)
        names += opened.names
    return FeatureRows(path, files, names, {key: value for key, value in content.items() if key not in NOT_PROVENANCE})


def _rows_of(file: Path) -> Iterator[Array]:
    """The blocks of one file, (n, D) float32."""
    blocks = _guarded(file, lambda: iter(READERS[file.suffix.lower()](file)))
    while (rows := _guarded(file, lambda: next(blocks, None))) is not None:
        if not isinstance(rows, np.ndarray) or rows.dtype.kind != "f" or rows.ndim < 1:
            kind = rows.dtype if isinstance(rows, np.ndarray) else type(rows).__name__
            raise FeatureError(f"{file}: holds {kind}; expected floating-point numbers")
        if len(rows):
            with np.errstate(over="ignore"):  # of 64-bit numbers: infinite then, and told as such
                yield np.array(rows.reshape(len(rows), -1), np.float32)


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` gives; every error that a damaged or strange file leads to becomes a FeatureError."""
    try:
        return read()
    except ResnetToolsError as error:
        text = str(error)
        raise FeatureError(text if text.startswith(f"{path}:") else f"{path}: {text}") from error
    except Exception as error:  # whatever a format's library makes of a file that its writer did not write
        is_empty = path.is_file() and not path.stat().st_size
        reason = "the file is empty" if is_empty else f"{type(error).__name__}: {error}"
        raise FeatureError(
            f"{path}: cannot be read as features ({reason:.200}); expected what `resnet extract-features` writes"
        ) from error


def _json(content: str | bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FeatureError(f"{path}: is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FeatureError(f"{path}: is not a JSON object")
    return found


def _describe_pt(path: Path) -> Described:
    content = torch_load(path, mapped=True)
    return content["image_list"], content


def _describe_npy(path: Path) -> Described:
    """Without a list of names beside it, as another program writes it, rows are called by their numbers."""
    with path.open("rb") as file:
        shape, dtype = npy_header(file)
    if shape[0] * dtype.itemsize > path.stat().st_size:
        raise FeatureError(f"holds fewer than its {counted(shape[0], 'row')}; it is incomplete")
    beside = path.with_suffix(".paths.txt")
    if not beside.exists():
        return [f"row {k}" for k in range(shape[0])], _beside(path)
    content = read_bounded(beside, MAX_NAMES_BYTES, "list of names")
    return [os.fsdecode(line) for line in content.split(b"\n")[: content.count(b"\n")]], _beside(path)


def _beside(path: Path) -> dict[str, Any]:
    provenance = path.with_suffix(".provenance.json")
    if not provenance.exists():
        return {}
    return _json(read_bounded(provenance, MAX_NAMES_BYTES, "provenance"), provenance)


def _describe_npz(path: Path) -> Described:
    with zipfile.ZipFile(path) as archive:
        with archive.open("image_list.npy") as file:
            names = [name for block in npy_rows(file) for name in block.tolist()]
        with archive.open("provenance.npy") as file:
            content = file.read(MAX_JSON_BYTES * 4)
    version = content[6:8]
    length = int.from_bytes(content[8:10], "little") + 10
    if version != b"\1\0" or len(content) == MAX_JSON_BYTES * 4:
        raise FeatureError("its provenance is not what `resnet extract-features` writes")
    return names, _json(content[length:].decode("utf-32-le").rstrip("\0"), path)


def _describe_safetensors(path: Path) -> Described:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
    names = json.loads(metadata["image_list"])
    return names, _json(metadata["resnet_tools"], path)


def _describe_parquet(path: Path) -> Described:
    _, parquet = pyarrow_packages()
    with parquet.ParquetFile(path) as file:
        names = [name for batch in file.iter_batches(columns=["path"]) for name in batch.column(0).to_pylist()]
        provenance = (file.schema_arrow.metadata or {}).get(b"resnet_tools")
    return names, {} if provenance is None else _json(provenance, path)


def _describe_csv(path: Path) -> Described:
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(text_lines(file))
        if next(lines)[:1] != ["path"]:
            raise FeatureError("its first line does not begin with `path`")
        return [_uncelled(line[0]) for line in lines], _beside(path)


def _uncelled(cell: str) -> str:
    """The name that `text.csv_cell` wrote."""
    return cell[1:] if cell.startswith("'") and cell[1:].lstrip(" ").startswith(FORMULA_SIGNS) else cell


def _describe_h5(path: Path) -> Described:
    with h5().File(path) as file:
        names = own_dataset(file, "image_list").asstr(errors="surrogateescape")[:].tolist()
        return names, _json(own_dataset(file, "provenance").asstr()[()], path)


def _describe_t7(path: Path) -> Described:
    table: Any = read_t7(path)
    return [os.fsdecode(name) for name in table["image_list"].to_list()], {}


DESCRIBERS: dict[str, Callable[[Path], Described]] = {
    ".pt": _describe_pt,
    ".npy": _describe_npy,
    ".npz": _describe_npz,
    ".safetensors": _describe_safetensors,
    ".parquet": _describe_parquet,
    ".csv": _describe_csv,
    ".h5": _describe_h5,
    ".t7": _describe_t7,
}


def listed_rows(rows: Sequence[int]) -> str:
    """The first of many rows, for a message: `rows 3, 17, 20 and 5 more`."""
    shown = ", ".join(map(str, rows[:3]))
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}" + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
