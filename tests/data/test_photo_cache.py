"""Copies of large images: the same views whether they are there or not, and no trust in what the folder holds."""

from __future__ import annotations

import os
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools.data import photo_cache
from resnet_tools.data.augment import LIGHT, augmented
from resnet_tools.data.image import load_image
from resnet_tools.data.photo_cache import DIGEST_BYTES, HEADER, PhotoCache, _digest, open_cache
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import DataError, ImageError
from tests.data.test_photographs import ramp, saved

SIDE = 32
SMALL = Preprocessing(16, 16, (0.0,) * 3, (1.0,) * 3, 255.0, exif_orientation=True)


def view(cache: PhotoCache, path: Path, seed: int = 1) -> torch.Tensor:
    return augmented(cache.photograph(str(path)), SMALL, LIGHT, np.random.default_rng(seed))


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.copy"))


def noisy(folder: Path, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (200, 300, 3), np.uint8)
    return saved(folder / f"{seed}.jpg", noise)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return noisy(tmp_path, 0)


@pytest.fixture
def cache(tmp_path: Path) -> PhotoCache:
    return open_cache(tmp_path / "cache", SIDE, exif=True)


def test_the_first_view_the_later_ones_and_those_without_room_are_the_same(photo, cache):
    without_room = replace(cache, leave_free=1 << 62, problems=[])
    views = [view(of, photo) for of in (without_room, cache, cache, without_room)]
    assert all(torch.equal(one, views[0]) for one in views)
    assert without_room.problem() == "half of the free space on its disk is used"
    assert without_room.problem() is None
    assert cache.problem() is None
    assert len(copies(cache.folder)) == 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_copy_shows_the_image_upright_with_twice_the_pixels_of_the_crop(tmp_path, cache, orientation, name):
    saved(tmp_path / name, ramp(405, 603), orientation, "L")
    upright = load_image(tmp_path / name, exif=True)
    for _ in range(2):
        found = cache.photograph(str(tmp_path / name))
        assert (found.height, found.width) == upright.shape[:2]
        assert min(found.scaled(16, 16).pixels.shape[:2]) == SIDE
        all_pixels = augmented(upright, SMALL, LIGHT, np.random.default_rng(5))
        difference = augmented(found, SMALL, LIGHT, np.random.default_rng(5)) - all_pixels
        # One pixel of the copy is up to 5 steps of gray.
        assert float(difference.view(3, 2, 8, 2, 8).mean((2, 4)).abs().max()) < 0.6


@pytest.mark.parametrize("size", [(47, 200), (20, 1000)])
def test_small_images_and_those_of_sixteen_bits_are_not_copied(tmp_path, cache, size):
    path = saved(tmp_path / "small.jpg", ramp(*size))
    deep = np.full((200, 200), 1000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert torch.equal(view(cache, path), augmented(str(path), SMALL, LIGHT, np.random.default_rng(1)))
    assert float(view(cache, tmp_path / "deep.png").mean()) == pytest.approx(1000 / 65535 * 255, rel=1e-4)
    assert copies(cache.folder) == []


def test_a_changed_image_is_copied_again_in_the_same_place(photo, cache):
    before = view(cache, photo)
    [copy] = copies(cache.folder)
    for pixels, time_ns in ((ramp(200, 300), None), (ramp(300, 200), 5)):
        saved(photo, pixels)
        if time_ns:
            os.utime(photo, ns=(time_ns, time_ns))
        assert not torch.equal(view(cache, photo), before)
        assert torch.equal(view(cache, photo), view(replace(cache, leave_free=1 << 62, problems=[]), photo))
        assert copies(cache.folder) == [copy]


def test_other_sizes_and_orientations_have_copies_of_their_own(photo, cache):
    for other in (cache, replace(cache, side_px=40), replace(cache, exif=False)):
        view(other, photo)
    assert len(copies(cache.folder)) == 3


def test_a_damaged_copy_is_made_again(photo, cache):
    expected = view(cache, photo)
    [copy] = copies(cache.folder)
    content = copy.read_bytes()
    places = [*range(DIGEST_BYTES + HEADER.size + 4), len(content) // 2, len(content) - 1]
    damaged = [content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :] for k in places]
    for bad in [b"", content + b"\0", *damaged, *(content[:k] for k in places)]:
        copy.write_bytes(bad)
        assert torch.equal(view(cache, photo), expected)
        assert copy.read_bytes() == content


def test_a_copy_is_not_believed_under_another_name(photo, cache, tmp_path):
    other = saved(tmp_path / "other.jpg", ramp(200, 300))
    os.utime(other, ns=(7, 7))
    view(cache, other)
    [copy] = copies(cache.folder)
    content = copy.read_bytes()
    expected = view(cache, photo)
    for one in copies(cache.folder):
        one.write_bytes(content)
    assert torch.equal(view(cache, photo), expected)


@pytest.mark.parametrize(
    ("height", "width", "jpeg"),
    [
        (0, 0, None),
        (1 << 31, 1 << 31, None),  # beyond what Pillow decodes
        (300, 200, None),  # another shape
        (200, 300, b"no JPEG"),
        (200, 300, b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00"),  # 65,535 x 65,535
    ],
)
def test_a_forged_copy_whose_checksum_is_right_is_made_again(photo, cache, height, width, jpeg):
    expected = view(cache, photo)
    [copy] = copies(cache.folder)
    content, found = copy.read_bytes(), photo.stat()
    head = HEADER.pack(found.st_size, found.st_mtime_ns, height, width)
    rest = head + (content[DIGEST_BYTES + HEADER.size :] if jpeg is None else jpeg)
    copy.write_bytes(_digest(copy.name, rest) + rest)
    assert torch.equal(view(cache, photo), expected)
    assert copy.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="needs fifos and links")
@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_whatever_has_the_name_of_a_copy_is_neither_followed_nor_waited_for(photo, cache, tmp_path, kind):
    expected = view(cache, photo)
    [copy] = copies(cache.folder)
    copy.unlink()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    {"folder": copy.mkdir, "pipe": lambda: os.mkfifo(copy), "link": lambda: copy.symlink_to(victim)}[kind]()
    assert torch.equal(view(cache, photo), expected)
    assert victim.read_text() == "mine"
    assert cache.problem() == ("Is a directory" if kind == "folder" else None)


def test_the_folder_may_vanish_at_any_time(photo, cache):
    expected = view(cache, photo)
    shutil.rmtree(cache.folder)
    assert torch.equal(view(cache, photo), expected)
    assert cache.problem() == "the folder is gone"
    assert not cache.folder.exists()


def test_an_image_that_cannot_be_read_is_the_error_that_it_was(tmp_path, cache):
    content = saved(tmp_path / "a.jpg", ramp(200, 300)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("text")
    for name in ("cut.jpg", "text.jpg", "none.jpg"):
        with pytest.raises(ImageError) as expected:
            load_image(tmp_path / name, exif=True)
        with pytest.raises(ImageError) as found:
            view(cache, tmp_path / name)
        assert str(found.value) == str(expected.value)
    assert copies(cache.folder) == []


def test_many_write_at_once_and_leave_nothing_but_copies(tmp_path):
    paths = [noisy(tmp_path, k) for k in range(3)]
    caches = [open_cache(tmp_path / "cache", SIDE, exif=True, first=k == 0) for k in range(4)]
    with ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda k: view(caches[k % 4], paths[k % 3]), range(120)))
    assert all(torch.equal(one, views[k % 3]) for k, one in enumerate(views))
    assert [cache.problem() for cache in caches] == [None] * 4
    assert len(os.listdir(tmp_path / "cache")) == 3 + 1  # README.txt


def test_processes_that_open_a_new_folder_at_once_do_not_stop_each_other(tmp_path):
    for number in range(40):
        folder = tmp_path / str(number)
        with ThreadPoolExecutor(4) as threads:
            opened = list(threads.map(lambda k, at=folder: open_cache(at, 64, exif=True, first=k == 0), range(4)))
        assert len(opened) == 4


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, photo, cache):
    expected = view(cache, photo)
    [copy] = copies(cache.folder)
    left = cache.folder / f".{copy.name}.0123456789abcdef.partial"
    left.write_bytes(b"half")
    (cache.folder / ".notes.partial").write_text("mine")
    open_cache(cache.folder, SIDE, exif=True, first=False)
    assert left.exists()
    again = open_cache(cache.folder, SIDE, exif=True)
    assert sorted(os.listdir(cache.folder)) == sorted([".notes.partial", "README.txt", copy.name])
    assert torch.equal(view(again, photo), expected)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.txt").write_text("Holiday")
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"--cache .*mine: holds other files, such as README.txt; give a folder of its own"
    ):
        open_cache(tmp_path / "mine", SIDE, exif=True)
    with pytest.raises(DataError, match=r"--cache .*file: File exists; give a folder that can be written to"):
        open_cache(tmp_path / "file", SIDE, exif=True)
    assert os.listdir(tmp_path / "mine") == ["README.txt"]


def test_a_folder_that_cannot_have_that_name_is_refused():
    with pytest.raises(DataError, match="embedded null byte; give a folder that can be written to"):
        open_cache(Path("a\0b"), 96, exif=False)


def test_half_of_the_free_space_is_left_alone(tmp_path, monkeypatch, photo):
    class Disk:
        free = 100_000

    monkeypatch.setattr(photo_cache.shutil, "disk_usage", lambda _: Disk)
    cache = open_cache(tmp_path / "cache", SIDE, exif=True)
    Disk.free = 50_500  # 500 bytes are fewer than a copy of 32 x 48 pixels of noise needs
    view(cache, photo)
    assert (copies(cache.folder), cache.problem()) == ([], "half of the free space on its disk is used")
    Disk.free = 90_000
    view(cache, photo)
    assert (len(copies(cache.folder)), cache.problem()) == (1, None)


def test_a_run_that_begins_counts_what_the_folder_holds_as_its_half(tmp_path, monkeypatch):
    open_cache(tmp_path / "cache", 64, exif=True)
    (tmp_path / "cache" / f"{0:032x}.copy").write_bytes(bytes(600))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10_000, 9_600, 400))
    found = open_cache(tmp_path / "cache", 64, exif=True)
    held = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert found.leave_free == (400 + held) // 2  # so it may grow by nothing


def test_the_layout_is_that_of_the_docstring(photo, cache):
    view(cache, photo)
    content, found = copies(cache.folder)[0].read_bytes(), photo.stat()
    assert struct.unpack("<QqII", content[32:56]) == (found.st_size, found.st_mtime_ns, 200, 300)
    assert content[56:58] == b"\xff\xd8"
