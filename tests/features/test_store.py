"""Unfinished rows: what a stop or a power failure leaves is found again, and never taken for more than it is."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
        with pytest.raises(FeatureError, match="not those that were computed"):
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
    with FeatureStore(output, FLOAT) as store, pytest.raises(FeatureError, match="another layer: 'flatten', now 'fc'"):
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
