"""Work that is stopped at any point where it changes the disk goes on, and ends with the bytes of work that was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardening.jobs import JOBS, make_data, try_all

QUICK_JOBS = ("extract shards", "train", "convert.t7", "evaluate")  # one of each kind


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "name", [name if name in QUICK_JOBS else pytest.param(name, marks=pytest.mark.slow) for name in JOBS]
)
def test_work_goes_on_after_a_stop_at_every_point(name: str, data: Path):
    tried = try_all(JOBS[name], data)
    print(tried)  # shown by pytest -s and where the test fails
    assert tried.points > 8
    assert not tried.problems, f"{len(tried.problems)} of {tried}:\n" + "\n".join(tried.problems[:5])
