"""Rows, paths and provenance in every format, in pieces and in 16 bits."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from resnet_tools import read_t7
from resnet_tools.errors import FeatureError, ResnetToolsError
from resnet_tools.features import files as feature_files
from resnet_tools.features.extract import _halved
from resnet_tools.features.files import Features, check_format, stored_dtype, write_features

PATHS = [f"photo {number}.jpg" for number in range(7)]


def features(dtype: str, *shape: int) -> Features:
    rows = np.arange(7 * np.prod(shape), dtype=dtype).reshape(7, *shape)
    return Features(rows, PATHS, [("bad.jpg", "empty file")], {"layer": "flatten"}, crc32(rows.tobytes()))


def without_provenance(rows: np.ndarray, paths: list[str]) -> Features:
    return Features(rows, paths, [], {}, crc32(rows.tobytes()))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_is_written_in_pieces_with_the_shape_of_a_row(tmp_path, monkeypatch, dtype):
    import pyarrow.parquet

    monkeypatch.setattr(feature_files, "ROWS_AT_ONCE", 3)
    written = features(dtype, 2, 3)
    write_features(written, tmp_path / "features.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "features.parquet")
    np.testing.assert_array_equal(np.array(table["features"].to_pylist()), written.rows.reshape(7, 6))
    assert table["path"].to_pylist() == PATHS
    description = json.loads(table.schema.metadata[b"resnet_tools"])
    assert description == {"layer": "flatten", "errors": [["bad.jpg", "empty file"]], "shape": [2, 3]}


def test_names_that_are_no_text_stay_different_in_parquet(tmp_path):
    import pyarrow.parquet

    rows = np.zeros((2, 1), np.float32)
    write_features(without_provenance(rows, ["\udce9.png", "\udcea.png"]), tmp_path / "features.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "features.parquet")
    assert table["path"].to_pylist() == ["\\xe9.png", "\\xea.png"]


def test_torch7_gets_16_bit_features_as_a_half_tensor(tmp_path):
    assert stored_dtype(Path("features.t7"), "float16") == np.float16
    assert stored_dtype(Path("features.csv"), "float16") == np.float32  # text has one kind of number
    written = features("float16", 5)
    write_features(written, tmp_path / "features.t7")
    found = read_t7(tmp_path / "features.t7")["features"]
    assert (found.torch_type, found.dtype) == ("torch.HalfTensor", np.float16)
    np.testing.assert_array_equal(found, written.rows)


def test_a_feature_that_16_bits_cannot_hold_is_an_error_and_never_infinite():
    assert _halved(np.array([[65504, -1]], np.float32)).tolist() == [[65504, -1]]
    with pytest.raises(FeatureError, match="a feature of size 70000 does not fit into --dtype float16"):
        _halved(np.array([[1, -70000]], np.float32))
    assert _halved(np.empty((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("ending", feature_files.WRITERS)
@pytest.mark.parametrize("short_bytes", [1, 100])
def test_a_disk_that_is_full_is_an_error_and_the_earlier_files_stay(tmp_path, ending, short_bytes):
    path = tmp_path / f"features{ending}"
    many = without_provenance(np.random.default_rng(0).random((999, 7), np.float32), [str(n) for n in range(999)])
    write_features(many, path)
    size = path.stat().st_size
    write_features(features("float32", 3), path)
    earlier = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - short_bytes, unlimited[1]))
    try:
        with pytest.raises(ResnetToolsError, match="cannot be written"):
            write_features(many, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == earlier


@pytest.mark.parametrize("ending", feature_files.WRITERS)
@pytest.mark.parametrize("fault", ["cut", "another value"])
def test_a_file_that_does_not_read_back_as_computed_never_takes_its_place(tmp_path, monkeypatch, ending, fault):
    write = feature_files.WRITERS[ending]

    def faulty(features: Features, path: Path) -> None:
        if fault == "another value":
            features.rows[3, 1] += 1
        write(features, path)
        if fault == "cut":
            path.write_bytes(path.read_bytes()[:-30])

    monkeypatch.setitem(feature_files.WRITERS, ending, faulty)
    with pytest.raises(FeatureError, match="does not read back as it was computed"):
        write_features(features("float32", 3), tmp_path / f"features{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(7, 3), (7, 2, 3), (0,), (0, 3)])
def test_an_array_is_what_numpy_reads(tmp_path, shape):
    rows = np.arange(np.prod(shape), dtype=np.float16).reshape(shape)
    write_features(without_provenance(rows, PATHS[: len(rows)]), tmp_path / "features.npy")
    found = np.load(tmp_path / "features.npy")
    np.testing.assert_array_equal(found, rows)
    assert (found.dtype, found.shape) == (rows.dtype, shape)


def test_only_an_array_with_paths_beside_it_refuses_a_newline():
    for ending in feature_files.WRITERS:
        check_format(Path(f"features{ending}"), PATHS)
        if ending != ".npy":
            check_format(Path(f"features{ending}"), ["new\nline"])
    with pytest.raises(FeatureError, match="holds a newline"):
        check_format(Path("features.npy"), [*PATHS, "new\nline"])
