"""Work that is stopped at any point where it changes the disk goes on, and ends with the bytes of work that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_tools.data.photo_cache import open_cache
from tests.hardening.faults import FAILED, STOPPED, run
from tests.hardening.jobs import FULL_DISK, JOBS, content_of, make_data, try_all

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


def test_a_cache_is_whole_after_a_stop_at_every_point_and_its_images_are_the_same(data: Path, tmp_path: Path):
    """The quick part of the job `train with a cache`: the images alone."""
    out, seen = tmp_path / "cache", tmp_path / "seen"
    undisturbed = run(looked_at(data, out, seen), out)
    expected, pixels = content_of(out), seen.read_bytes()
    assert (undisturbed.code, len(expected)) == (0, 3)
    tried = set()
    for fault, at in undisturbed.faults():
        tried.add(fault)
        shutil.rmtree(out)
        done = run(looked_at(data, out, seen), out, fault, at)
        if fault != "full disk":
            assert done.code == STOPPED
        elif done.code == FAILED:  # the folder could not be made
            assert FULL_DISK.search(done.printed)
            assert content_of(out) == {}
        else:
            assert (done.code, seen.read_bytes()) == (0, pixels)
        whole = {name: content for name, content in content_of(out).items() if not name.endswith(".partial")}
        assert whole.items() <= expected.items(), f"{fault} at point {at}: {undisturbed.points[at - 1][0]}"
        assert run(looked_at(data, out, seen), out).code == 0
        assert (content_of(out), seen.read_bytes()) == (expected, pixels)
    assert tried == {"kill", "full disk"}  # what is synced loses nothing more without power


def looked_at(data: Path, folder: Path, seen: Path) -> Callable[[], None]:
    def look() -> None:
        cache = open_cache(folder, 64, exif=True)
        photos = [cache.photograph(str(path)) for path in sorted((data / "photos/train").rglob("*.jpg"))]
        seen.write_bytes(b"".join(photo.scaled(8, 8).pixels.tobytes() for photo in photos))

    return look
