"""Whatever a name stands for: its bytes, or an error within a second."""

from __future__ import annotations

import gzip
import os
import threading
import time
from pathlib import Path

import pytest

from resnet_tools.errors import ResnetToolsError
from resnet_tools.reading import read_bounded, read_stream

posix = pytest.mark.skipif(os.name != "posix", reason="needs fifos and devices")


def test_a_file_is_read_up_to_its_limit(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"x" * 10)
    assert read_bounded(file, 10) == b"x" * 10
    with pytest.raises(ResnetToolsError, match=r"a: more than 9 bytes; no list is that large"):
        read_bounded(file, 9, "list")


@posix
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: "/dev/zero", "is a device; expected a file"),
        (lambda folder: folder, "Is a directory"),
        (lambda folder: folder / "none", "No such file"),
        (lambda folder: folder / "a\0b", "null"),
        (lambda folder: os.mkfifo(folder / "f") or folder / "f", "a pipe that nobody writes to"),
        (lambda folder: (folder / "l").symlink_to("l") or folder / "l", "symbolic links"),
        (lambda folder: os.truncate(sparse(folder), 1 << 40) or folder / "s", "more than 1 MiB"),
    ],
)
def test_what_is_no_file_is_an_error_within_a_second(tmp_path, make, message):
    path = make(tmp_path)
    begin = time.monotonic()
    with pytest.raises(ResnetToolsError, match=message) as caught:
        read_bounded(path, 1 << 20)
    assert time.monotonic() - begin < 1
    assert str(caught.value).startswith(str(path))


def sparse(folder: Path) -> Path:
    (folder / "s").touch()
    return folder / "s"


@posix
@pytest.mark.parametrize("late_seconds", [0, 0.2])
def test_a_pipe_that_someone_writes_to_is_read_to_its_end(tmp_path, late_seconds):
    os.mkfifo(tmp_path / "f")

    def write() -> None:
        time.sleep(late_seconds)
        with open(tmp_path / "f", "wb") as file:
            time.sleep(late_seconds)
            file.write(b"one\n")
            file.flush()
            time.sleep(late_seconds)
            file.write(b"two\n" * 100_000)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_bounded(tmp_path / "f", 1 << 20) == b"one\n" + b"two\n" * 100_000
    writer.join()


def test_a_gzip_bomb_is_read_no_further_than_its_limit(tmp_path):
    with gzip.open(tmp_path / "bomb.gz", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    with gzip.open(tmp_path / "bomb.gz") as file, pytest.raises(ResnetToolsError, match="more than 2 MiB"):
        read_stream(file, 2 << 20, "bomb.gz")
