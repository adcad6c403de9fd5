"""Unfinished rows: what a stop or a power failure leaves is found again, and never taken for more than it is."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.errors import FeatureError
from resnet_tools.features.store import FeatureStore

FLOAT = np.dtype(np.float32)
JOB = {"layer": "flatten", "files": 12}


def batch_rows(number: int) -> np.ndarray:
    return np.full((3, 5), number + 1, FLOAT)  # 60 bytes a batch


def filled(output: Path, batches: int) -> None:
    with FeatureStore(output, FLOAT) as store:
        store.begin(JOB, resume=True)
        store.open()
        for number in range(batches):
            store.add(number, batch_rows(number), {1: "bad"})


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda folder: None, 4),
        (edit("rows-0", lambda rows: rows + b"half a batch"), 4),
        (edit("rows-0", lambda rows: rows[:130]), 2),
        (edit("rows-0", lambda rows: rows[:60] + bytes(180)), 1),
        (edit("rows-0", lambda rows: b""), 0),
        (lambda folder: (folder / "rows-0").unlink(), 0),
        (edit("log-0", lambda log: log[:-1]), 3),
        (edit("log-0", lambda log: log[:-20]), 3),
        (edit("log-0", lambda log: log + bytes(50)), 4),
        (edit("log-0", lambda log: log + b'{"batch": 9}\n'), 4),
        (edit("log-0", lambda log: log + b"[1]\n\xff\n"), 4),
        (edit("log-0", lambda log: b""), 0),
    ],
)
def test_only_whole_batches_are_found_again_and_the_rest_is_cut_off(tmp_path, damage, left):
    output = tmp_path / "features.pt"
    filled(output, 4)
    damage(tmp_path / ".features.pt.unfinished")
    with FeatureStore(output, FLOAT) as store:
        store.begin(JOB, resume=True)
        done = store.open()
        assert sorted(done) == list(range(left))
        for number in range(left, 6):
            store.add(number, batch_rows(number), {1: "bad"})
        done = store.done()
        rows, crc = store.collect(done)
        np.testing.assert_array_equal(rows, np.concatenate([batch_rows(n) for n in range(6)]))
        assert crc == zlib.crc32(rows.tobytes())
        assert all(batch.errors == {1: "bad"} for batch in done.values())


@pytest.mark.parametrize("process", [0, 1])
def test_rows_without_a_log_are_never_taken_for_rows_of_what_comes_next(tmp_path, process):
    output = tmp_path / "features.pt"
    with FeatureStore(output, FLOAT) as store:
        store.begin(JOB, resume=True)
    (tmp_path / ".features.pt.unfinished" / f"rows-{process}").write_bytes(b"stopped inside the first batch")
    with FeatureStore(output, FLOAT) as first, FeatureStore(output, FLOAT, process) as store:
        first.begin(JOB, resume=True)
        assert store.open() == {}
        store.add(0, batch_rows(0), {})
        np.testing.assert_array_equal(store.collect(store.done())[0], batch_rows(0))


def test_rows_that_came_after_the_beginning_are_cut_off_before_the_first_batch(tmp_path):
    output = tmp_path / "features.pt"
    with FeatureStore(output, FLOAT) as store:
        store.begin(JOB, resume=True)
        store.open()
        (tmp_path / ".features.pt.unfinished" / "rows-0").write_bytes(b"of a process that ended late")
        store.add(0, batch_rows(0), {})
        np.testing.assert_array_equal(store.collect(store.done())[0], batch_rows(0))


@pytest.mark.parametrize("damage", [lambda rows: bytes(60) + rows[60:], lambda rows: rows[:-1]])
@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])  # collected from where they are, and put in order
def test_rows_that_changed_since_they_were_logged_are_not_collected(tmp_path, damage, numbers):
    with FeatureStore(tmp_path / "features.pt", FLOAT) as store:
        store.begin(JOB, resume=True)
        store.open()
        for number in numbers:
            store.add(number, batch_rows(number), {})
        edit("rows-0", damage)(tmp_path / ".features.pt.unfinished")
        with pytest.raises(FeatureError, match="are not the computed ones"):
            store.collect(store.done())


def test_batches_of_several_processes_are_collected_in_order(tmp_path):
    output = tmp_path / "features.pt"
    with FeatureStore(output, FLOAT, 0) as first, FeatureStore(output, FLOAT, 1) as second:
        first.begin(JOB, resume=True)
        for store, numbers in ((first, (2, 0)), (second, (1, 3))):
            store.open()
            for number in numbers:
                store.add(number, batch_rows(number), {})
            store.flush()
        rows, crc = first.collect(first.done())
        assert crc == zlib.crc32(rows.tobytes())
        np.testing.assert_array_equal(rows[:, 0], np.repeat([1, 2, 3, 4], 3))


def test_a_second_run_of_the_same_output_is_refused_while_the_first_is_at_work(tmp_path):
    output = tmp_path / "features.pt"
    with FeatureStore(output, FLOAT) as first:
        first.begin(JOB, resume=True)
        for resume in (True, False):
            with FeatureStore(output, FLOAT) as second, pytest.raises(FeatureError, match="another run is writing"):
                second.begin(JOB, resume=resume)
    filled(output, 1)  # the lock ends with its holder


def test_a_folder_of_another_job_is_refused_or_emptied(tmp_path):
    output = tmp_path / "features.pt"
    filled(output, 4)
    with (
        FeatureStore(output, FLOAT) as store,
        pytest.raises(FeatureError, match="a different layer: 'flatten', now 'fc'"),
    ):
        store.begin(JOB | {"layer": "fc"}, resume=True)
    with FeatureStore(output, FLOAT) as store:
        assert len(store.done()) == 4
        store.begin(JOB | {"layer": "fc"}, resume=False)
        assert store.open() == {}


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_a_damaged_job_is_named(tmp_path, content):
    output = tmp_path / "features.pt"
    filled(output, 1)
    (tmp_path / ".features.pt.unfinished" / "job.json").write_text(content)
    with FeatureStore(output, FLOAT) as store, pytest.raises(FeatureError, match="unfinished: "):
        store.begin(JOB, resume=True)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["batch", "shape", "rows", "errors", "crc"]


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from([*KEYS, None]), value=JUNK, line=st.integers(0, 3))
def test_a_log_with_any_json_gives_whole_batches_or_an_error_of_ours(tmp_path_factory, key, value, line):
    folder = tmp_path_factory.mktemp("store")
    filled(folder / "features.pt", 4)
    log = folder / ".features.pt.unfinished" / "log-0"
    lines = log.read_bytes().splitlines()
    lines[line] = json.dumps(value if key is None else json.loads(lines[line]) | {key: value}).encode()
    log.write_bytes(b"".join(one + b"\n" for one in lines))
    try:
        with FeatureStore(folder / "features.pt", FLOAT) as store:
            store.begin(JOB, resume=True)
            done = store.open()
            rows, _ = store.collect(done)
    except FeatureError:
        return
    assert len(rows) == sum(batch.count for batch in done.values())
    for number, batch in done.items():
        if key != "batch":
            np.testing.assert_array_equal(
                rows[batch.start : batch.start + batch.count], batch_rows(number)[: batch.count]
            )


@settings(max_examples=80, deadline=None)
@given(JUNK)
def test_a_job_with_any_json_is_another_job_or_an_error_of_ours(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("store")
    filled(folder / "features.pt", 1)
    (folder / ".features.pt.unfinished" / "job.json").write_text(json.dumps(value))
    with FeatureStore(folder / "features.pt", FLOAT) as store, pytest.raises(FeatureError, match="unfinished"):
        store.begin(JOB, resume=True)


def folder_of(name: str) -> Callable[[Path], object]:
    return lambda folder: ((folder / name).unlink(missing_ok=True), (folder / name).mkdir())


def link_of(name: str) -> Callable[[Path], object]:
    return lambda folder: ((folder / name).unlink(missing_ok=True), (folder / name).symlink_to(folder.parent / "other"))


def pipe_of(name: str) -> Callable[[Path], object]:
    return lambda folder: ((folder / name).unlink(missing_ok=True), os.mkfifo(folder / name))


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("make", [folder_of, link_of, pipe_of])
@pytest.mark.parametrize("name", ["job.json", "log-0", "rows-0", "log-1", "rows-7", "stray", "lock"])
def test_what_is_no_file_in_the_folder_is_named_and_nothing_behind_a_link_is_touched(tmp_path, name, make, resume):
    filled(tmp_path / "features.pt", 2)
    (tmp_path / "other").write_text("of someone else")
    make(name)(tmp_path / ".features.pt.unfinished")
    with FeatureStore(tmp_path / "features.pt", FLOAT) as store, pytest.raises(FeatureError, match=r"\.unfinished"):
        store.begin(JOB, resume=resume)
    assert (tmp_path / "other").read_text() == "of someone else"


def test_a_link_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("of someone else")
    (tmp_path / ".features.pt.unfinished").symlink_to("other")
    with FeatureStore(tmp_path / "features.pt", FLOAT) as store, pytest.raises(FeatureError, match="is a link"):
        store.begin(JOB, resume=True)
    assert os.listdir(tmp_path / "other") == ["file"]


def test_rows_of_several_shapes_are_an_error(tmp_path):
    with FeatureStore(tmp_path / "features.pt", FLOAT) as store:
        store.begin(JOB, resume=True)
        store.open()
        store.add(0, batch_rows(0), {})
        store.add(1, np.zeros((1, 4), FLOAT), {})
        with pytest.raises(FeatureError, match="rows of several shapes"):
            store.collect(store.done())
