"""`resnet similar`: the blocks find what brute force finds, from every format, and what cannot be used is named."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet_tools import duplicates, similar
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.checkpoints.runnable import engine_of
from resnet_tools.errors import FeatureError, ImageError, Note
from resnet_tools.features import neighbours
from resnet_tools.features import similar as similar_module
from resnet_tools.features.files import WRITERS, Features, write_features
from resnet_tools.features.neighbours import Groups, nearest, unit_rows
from resnet_tools.features.opened import open_features
from resnet_tools.features.query_net import query_net
from resnet_tools.features.readers import READERS

IMAGES = DEMO_PATH.parent / "images"
CPU = torch.device("cpu")


def write(path: Path, rows: np.ndarray, names: list[str] | None = None, **provenance: object) -> Path:
    import zlib

    names = [f"{k}.png" for k in range(len(rows))] if names is None else names
    write_features(Features(rows, names, [], provenance, zlib.crc32(np.ascontiguousarray(rows).tobytes())), path)
    return path


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.astype(np.float64) for x in (a, b))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def blocks_of(rows: np.ndarray, size: int) -> list[tuple[int, np.ndarray]]:
    return [(first, rows[first : first + size].copy()) for first in range(0, len(rows), size)]


def rows_of(count: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


@given(
    count=st.integers(1, 40),
    width=st.integers(1, 9),
    queries=st.integers(1, 7),
    top_k=st.integers(1, 50),
    block=st.integers(1, 17),
    tile=st.integers(1, 200),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_blocks_find_what_brute_force_finds(count, width, queries, top_k, block, tile, seed):
    rows, asked = rows_of(count, width, seed), rows_of(queries, width, seed + 1000)
    expected = cosines(asked, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "TILE", tile)
        found, values = nearest(unit_rows(asked, CPU)[0], blocks_of(rows, block), top_k)
    least = min(top_k, count)
    assert (found[:, least:] == -1).all()
    for q in range(queries):
        chosen = found[q, :least]
        assert len(set(chosen.tolist())) == least
        np.testing.assert_allclose(values[q, :least], expected[q, chosen], atol=2e-6)
        np.testing.assert_allclose(values[q, :least], np.sort(expected[q])[::-1][:least], atol=2e-6)


@pytest.mark.parametrize("block", [3, 64, 1000])
@pytest.mark.parametrize("queries", [1, 5])
def test_equal_similarities_are_in_the_order_of_the_rows_whatever_the_blocks(block, queries):
    rows = rows_of(300, 65, 0)
    same = np.random.default_rng(1).choice(300, 40, replace=False)
    rows[same] = rows[same[0]]
    asked = rows_of(queries, 65, 2) * 0.3 + rows[same[0]]
    found, _ = nearest(unit_rows(asked, CPU)[0], blocks_of(rows, block), 40)
    assert found.tolist() == [sorted(same.tolist())] * queries


def test_rows_without_a_direction_are_nobodys_neighbours_and_large_or_small_ones_do_not_overflow():
    rows = np.array([[0, 0], [1e30, 1e30], [np.nan, 1], [1e-42, 0], [np.inf, 1], [2, 0]], np.float32)
    units, usable = unit_rows(rows, CPU)
    assert usable.tolist() == [False, True, False, True, False, True]
    found, values = nearest(units[[5]], [(0, rows)], 6)
    assert found[0].tolist() == [3, 5, 1, -1, -1, -1]
    np.testing.assert_allclose(values[0, :3], [1, 1, 2**-0.5], atol=1e-6)


@given(st.integers(2, 30), st.integers(1, 9), st.integers(1, 11), st.integers(1, 60), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_groups_are_the_connected_parts_of_brute_force(count, step, block, tile, seed):
    rows = rows_of(count, 3, seed)
    expected = cosines(rows, rows) >= 0.9
    reachable = np.linalg.matrix_power(expected.astype(float), count) > 0
    parts = {tuple(np.flatnonzero(row).tolist()) for row in reachable}
    groups = Groups(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "TILE", tile)
        for first_query, queries in blocks_of(rows, step):
            for first, part in blocks_of(rows, block):
                groups.join(unit_rows(queries, CPU)[0], first_query, part, first, 0.9)
    assert [tuple(group.tolist()) for group in groups.found()] == sorted(p for p in parts if len(p) > 1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("ending", list(WRITERS))
def test_every_format_gives_the_same_rows_names_and_provenance(ending, dtype, tmp_path):
    names = ["a.png", "=1+1.png", "a b,ü\u6f22.png", "'x.png", "x" * 300]
    rows = rows_of(5, 7, 0).astype(np.float32 if ending == ".csv" else dtype)
    opened = open_features(write(tmp_path / f"f{ending}", rows, names, layer="flatten", model="demo"))
    assert opened.names == names
    assert opened.provenance == ({} if ending == ".t7" else {"layer": "flatten", "model": "demo"})
    [(first, found)] = opened.blocks()
    assert first == 0
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows.astype(np.float32))
    assert [s.neighbours[0].row for s in similar(tmp_path / f"f{ending}", device="cpu", top_k=9)] == [
        int(np.argsort(-row)[0]) for row in cosines(rows, rows) - 9 * np.eye(5)
    ]


def test_maps_of_features_are_compared_as_long_rows(tmp_path):
    rows = rows_of(6, 24, 0)
    flat = similar(write(tmp_path / "a.npy", rows))
    assert similar(write(tmp_path / "b.npz", rows.reshape(6, 2, 3, 4))) == flat
    assert similar(write(tmp_path / "c.parquet", rows.reshape(6, 2, 3, 4))) == flat


def test_shards_are_one_file_and_stay_in_their_folder(tmp_path):
    rows = rows_of(10, 8, 0)
    whole = write(tmp_path / "whole.npy", rows)
    for number, part in enumerate((rows[:4], rows[4:4], rows[4:])):
        names = [f"{k}.png" for k in ((0, 1, 2, 3), (), (4, 5, 6, 7, 8, 9))[number]]
        write(tmp_path / f"part-{number:05}.npy", part.reshape(len(part), 8), names)
    index = tmp_path / "part.index.json"
    index.write_text(
        json.dumps({"shards": [{"file": f"part-{n:05}.npy", "files": 4} for n in range(3)], "layer": "fc"})
    )
    assert similar(index) == similar(whole)
    assert open_features(index).provenance == {"layer": "fc"}
    for name in ("../part-00000.npy", "/etc/passwd", "..", "", "a\\b.npy"):
        index.write_text(json.dumps({"shards": [{"file": name, "files": 4}]}))
        with pytest.raises(FeatureError, match="expected a file beside the index"):
            open_features(index)


def test_queries_in_parts_give_the_same_as_all_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "f.npy", rows_of(50, 8, 0))
    expected, groups = similar(path, top_k=3), duplicates(path, 0.7)
    assert len(groups) > 1
    monkeypatch.setattr(similar_module, "QUERY_BYTES", 1000)
    assert similar(path, top_k=3) == expected
    assert duplicates(path, 0.7) == groups


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    peaks = []
    for count in (20_000, 100_000):
        path = tmp_path / f"{count}.npy"
        np.lib.format.open_memmap(path, "w+", np.float32, (count, 128))[::1000] = 1
        opened = open_features(path)
        tracemalloc.start()
        nearest(torch.ones(1, 128), opened.blocks(), 5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] < 100e6


@pytest.mark.parametrize("ending", ["csv", "npy", "npz", "safetensors", "parquet", "h5"])
def test_a_file_without_a_byte_is_called_empty(tmp_path, ending):
    (tmp_path / f"features.{ending}").touch()
    with pytest.raises(FeatureError, match=r"cannot be read as features \(the file is empty\)"):
        list(open_features(tmp_path / f"features.{ending}").blocks())


BAD = {
    "empty.npy": lambda p: write(p, np.zeros((0, 4), np.float32)),
    "no-width.npy": lambda p: np.save(p, np.zeros((3, 0), np.float32)),
    "whole-numbers.npy": lambda p: np.save(p, np.zeros((3, 4), np.int64)),
    "objects.npy": lambda p: np.save(p, np.array([{}]), allow_pickle=True),
    "by-columns.npy": lambda p: np.save(p, np.asfortranarray(rows_of(3, 4, 0))),
    "cut.npy": lambda p: (write(p, rows_of(9, 4, 0)), p.write_bytes(p.read_bytes()[:-8])),
    "names.npy": lambda p: (write(p, rows_of(9, 4, 0)), p.with_suffix(".paths.txt").write_text("a\nb\n")),
    "claims.npy": lambda p: p.write_bytes(header((1 << 60, 4))),
    "long-rows.npy": lambda p: p.write_bytes(header((1, 1 << 60))),
    "text.pt": lambda p: p.write_text("no features"),
    "list.pt": lambda p: torch.save([1, 2], p),
    "names.pt": lambda p: torch.save({"features": torch.ones(2, 3), "image_list": [1, 2]}, p),
    "text.npz": lambda p: p.write_text("no features"),
    "other.npz": lambda p: np.savez(p, x=np.ones(3)),
    "other.h5": lambda p: linked_h5(p),
    "claims.h5": lambda p: claiming_h5(p),
    "text.parquet": lambda p: p.write_text("no features"),
    "other.csv": lambda p: p.write_text("a,b\n1,2\n"),
    "ragged.csv": lambda p: p.write_text("path,f0,f1\na,1,2\nb,1\n"),
    "text.t7": lambda p: p.write_text("no features"),
    "text.safetensors": lambda p: p.write_text("no features"),
    "text.index.json": lambda p: p.write_text("[" * 100_000),
    "photo.jpg": lambda p: p.write_text("no features"),
}


def header(shape: tuple[int, ...]) -> bytes:
    import io

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def linked_h5(path: Path) -> None:
    """Its features lie in another file, which nobody named."""
    import h5py

    write(path.with_name("elsewhere.h5"), rows_of(3, 4, 0))
    shutil.copy(path.with_name("elsewhere.h5"), path)
    with h5py.File(path, "r+") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("elsewhere.h5", "features")


def claiming_h5(path: Path) -> None:
    """Its list of names has a million entries of which the file holds nothing."""
    import h5py

    write(path, rows_of(3, 4, 0))
    with h5py.File(path, "r+") as file:
        del file["image_list"]
        file.create_dataset("image_list", (1_000_000,), h5py.string_dtype())


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_no_features_file_is_named(name, tmp_path, capsys):
    BAD[name](tmp_path / name)
    with pytest.raises(FeatureError, match=name):
        similar(tmp_path / name)
    assert run(["similar", str(tmp_path / name), "--all"]) == 1
    assert capsys.readouterr().err.startswith("Error: ")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the ten images of the package."""
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    assert run(["extract-features", "demo", str(IMAGES), "--output", str(path), "--quiet"]) == 0
    return path


@pytest.mark.parametrize("layer", ["flatten", "layer2"])
@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_an_image_is_computed_by_the_engine_that_made_the_rows(engine, layer, tmp_path):
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    path = tmp_path / "photos.npz"
    command = ["extract-features", "demo", str(IMAGES), "--output", str(path), "--quiet", "--layer", layer]
    assert run([*command, "--engine", engine]) == 0
    net = query_net(open_features(path), "auto", model=None, weights=None, batch_size=1)
    assert engine_of(net.model) == engine
    [(_, row)] = net.rows([IMAGES / "bag.png"])
    position = open_features(path).names.index(str(IMAGES / "bag.png"))
    np.testing.assert_allclose(row, np.load(path)["features"][position], rtol=0, atol=1e-6 * np.abs(row).max())


def test_another_engine_or_device_than_that_of_the_rows_is_told_in_a_line(photos, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert run(["similar", str(photos), str(IMAGES / "bag.png"), "--quiet", "--top-k", "1"]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Note: {photos}: was made with onnxruntime; torch computes the images: ")
    assert "pip install 'resnet_tools[fast]'" in line
    opened = open_features(photos)
    other = replace(opened, provenance={**opened.provenance, "device": "mps", "engine": "torch"})
    with pytest.warns(Note, match="was made on mps; the images are computed on cpu"):
        query_net(other, "cpu", model=None, weights=None, batch_size=None)


@pytest.mark.parametrize("engine", [None, ["onnxruntime"], "caffe"])
def test_rows_of_an_unknown_engine_are_compared_by_torch(engine, photos):
    opened = open_features(photos)
    other = replace(opened, provenance={**opened.provenance, "engine": engine})
    net = query_net(other, "cpu", model=None, weights=None, batch_size=None)
    assert engine_of(net.model) == "torch"


def test_an_image_is_compared_as_the_rows_were_made(photos, tmp_path, capsys):
    [found] = similar(photos, [IMAGES / "bag.png"], top_k=20)
    assert len(found.neighbours) == 10
    assert (found.neighbours[0].path, found.row) == (str(IMAGES / "bag.png"), None)
    assert found.neighbours[0].similarity == pytest.approx(1, abs=2e-6)
    with Image.open(IMAGES / "bag.png") as picture:
        given = similar(photos, [np.asarray(picture.convert("RGB")), picture], top_k=20)
    assert [one.path for one in given] == ["image 0", "image 1"]
    assert given[1].neighbours[0].path == found.neighbours[0].path
    wide = tmp_path / "wide.pt"
    options = ["--layer", "layer2", "--pool", "none", "--crop-size", "64", "--resize-size", "80", "--ten-crop"]
    assert run(["extract-features", "demo", str(IMAGES), "--output", str(wide), "--quiet", *options]) == 0
    [found] = similar(wide, [IMAGES / "coat.png"], top_k=1)
    assert found.neighbours[0].path == str(IMAGES / "coat.png")
    assert found.neighbours[0].similarity == pytest.approx(1, abs=2e-6)


def test_text_json_csv_and_sheet_say_the_same(photos, tmp_path, capsys):
    capsys.readouterr()
    bag, sheet = str(IMAGES / "bag.png"), tmp_path / "sheet.png"
    assert run(["similar", str(photos), bag, "--top-k", "3", "--sheet", str(sheet)]) == 0
    first, *lines = capsys.readouterr().out.strip().split("\n")
    assert first == f"Similar to\t{bag}"
    text = [line.split("\t") for line in lines]
    assert run(["similar", str(photos), bag, "--top-k", "3", "--json"]) == 0
    [result] = map(json.loads, capsys.readouterr().out.splitlines())
    assert [[f"{n['similarity']:.6f}", n["path"]] for n in result["similar"]] == text
    assert run(["similar", str(photos), bag, "--top-k", "3", "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [[row["similarity"], row["similar"]] for row in rows] == text
    with Image.open(sheet) as picture:
        assert picture.size == (4 * 172 + 12 + 28, 160 + 36 + 24 + 12)  # the query and three neighbours, and the gap


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_compared(photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    capsys.readouterr()
    assert run(["similar", str(photos), str(tmp_path / "broken.png"), str(IMAGES / "bag.png")]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"Similar to\t{IMAGES / 'bag.png'}")
    assert f"Error: {tmp_path / 'broken.png'}: " in shown.err
    with pytest.raises(ImageError, match=r"broken\.png"):
        similar(photos, [tmp_path / "broken.png"])
    assert run(["similar", str(photos), str(tmp_path / "none.png")]) == 2


def test_features_that_do_not_say_how_they_were_made_need_no_net_for_their_own_rows(photos, tmp_path, capsys):
    plain = write(tmp_path / "plain.npy", rows_of(4, 8, 0))
    with pytest.raises(FeatureError, match=r"model_sha256.*NAME\.provenance\.json"):
        similar(plain, [IMAGES / "bag.png"])
    (tmp_path / "plain.paths.txt").unlink()
    assert [found.path for found in similar(plain)] == ["row 0", "row 1", "row 2", "row 3"]


def changed(photos: Path, path: Path, **changes: object) -> Path:
    opened = open_features(photos)
    [(_, rows)] = opened.blocks()
    return write(path, rows, opened.names, **{**opened.provenance, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_sha256": "0" * 64}, "another file now. Give --model FILE"),
        ({"model": "gone.t7", "model_sha256": "0" * 64}, "was made with gone.t7, which is not there"),
        ({"model": "a\0b", "model_sha256": "0" * 64}, "which is not there"),
        ({"model": 5}, "model is 5; expected a text"),
        ({"layer": "layer9"}, "no such layer"),
        ({"layer": "layer1"}, "8 numbers there"),
        ({"pool": "max"}, "pool is 'max'"),
        ({"precision": "double"}, "precision is 'double'"),
        ({"ten_crop": 1}, "ten_crop is 1"),
        ({"preprocessing": {"resize_px": 5}}, "its preprocessing cannot be used"),
        ({"preprocessing": 3}, "its preprocessing cannot be used"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_features_of_another_net_are_refused(changes, message, photos, tmp_path):
    path = changed(photos, tmp_path / "changed.npz", **changes)
    with pytest.raises(FeatureError, match=message):
        similar(path, [IMAGES / "bag.png"])


def test_the_net_is_found_beside_the_features_or_given_and_its_sum_counts(photos, tmp_path):
    path = changed(photos, tmp_path / "moved.npz", model="/nowhere/net.t7")
    shutil.copy(DEMO_PATH, tmp_path / "net.t7")
    expected = similar(photos, [IMAGES / "bag.png"])
    assert similar(path, [IMAGES / "bag.png"]) == expected
    assert similar(path, [IMAGES / "bag.png"], model=tmp_path / "net.t7") == expected
    (tmp_path / "other.t7").write_bytes(DEMO_PATH.read_bytes() + b"x")
    with pytest.raises(FeatureError, match=r"other\.t7: is not the net of"):
        similar(path, [IMAGES / "bag.png"], model=tmp_path / "other.t7")


def test_duplicates_are_groups_and_rows_left_out_are_told(tmp_path, capsys):
    rows = rows_of(8, 16, 0)
    rows[5], rows[2], rows[3], rows[4] = rows[1] * 2, rows[0] * 0.5, 0, np.nan
    path = write(tmp_path / "f.npy", rows)
    assert [[image.row for image in group] for group in duplicates(path)] == [[0, 2], [1, 5]]
    assert run(["similar", str(path), "--duplicates", "0.98", "--sheet", str(tmp_path / "s.png")]) == 0
    shown = capsys.readouterr()
    assert (
        shown.out == "Group of 2\n1.000000\t0.png\n1.000000\t2.png\n\nGroup of 2\n1.000000\t1.png\n1.000000\t5.png\n\n"
    )
    assert "4 of 8 images are in 2 groups" in shown.err
    assert "rows 3, 4 of" in shown.err
    assert (tmp_path / "s.png").exists()
    assert run(["similar", str(path), "--duplicates", "0.98", "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "1,0,0.png,1.000000"
    assert [len(found.neighbours) for found in similar(path, top_k=9)] == [5, 5, 5, 0, 0, 5, 5, 5]
    with pytest.raises(FeatureError, match="threshold is nan"):
        duplicates(path, float("nan"))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--all", "--duplicates", "0.9"],
        ["--all", "--json", "--csv"],
        ["--duplicates", "nan"],
        ["--duplicates", "2"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_says_too_much_or_too_little_is_refused(words, tmp_path):
    assert run(["similar", str(write(tmp_path / "f.npy", rows_of(3, 4, 0))), *words]) == 2


def test_a_sheet_is_a_png_and_never_an_input(photos, tmp_path, capsys):
    shutil.copy(IMAGES / "bag.png", tmp_path / "bag.png")
    assert run(["similar", str(photos), str(tmp_path / "bag.png"), "--sheet", str(tmp_path / "bag.png")]) == 2
    assert run(["similar", str(photos), "--all", "--sheet", str(tmp_path / "s.gif")]) == 2
    assert run(["similar", str(photos), "--all", "--sheet", str(tmp_path / "none" / "s.png")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_reader_and_a_describer_for_every_format():
    assert set(READERS) == set(WRITERS)
