"""Jobs of two processes of which one is ended: the job ends soon, says why, and goes on to the same bytes.

The processes find each other as those of a launcher do, by the environment; each is killed, or asked to stop, when what
is on the disk tells that work has begun, or that some of it is done.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.demo_images import PHOTOS

SECONDS = 60
EXTRACT = "extract-features demo {folder}/photos --batch-size 1 --workers 0 --quiet --output {out}/f.npy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 images."""
    place = tmp_path_factory.mktemp("job")
    (place / "photos").mkdir()
    for number in range(150):
        shutil.copy(PHOTOS[number % len(PHOTOS)], place / "photos" / f"{number:03}.png")
    return place


@contextmanager
def two_processes(command: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "resnet_tools", *command],
            env={**os.environ, **job, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        yield ranks
    finally:
        for process in ranks:
            process.kill()
            process.wait()


def run_two(
    command: list[str], at: Callable[[], bool] = lambda: False, rank: int = 0, sent: int = 0
) -> list[tuple[int, str]]:
    """Exit codes and messages of both ranks, of which one gets a signal when `at` is true."""
    with two_processes(command) as ranks:
        deadline = time.monotonic() + SECONDS
        while sent and not at() and all(process.poll() is None for process in ranks):
            assert time.monotonic() < deadline, "the work does not begin"
            time.sleep(0.01)
        if sent:
            ranks[rank].send_signal(sent)
        ended = []
        for process in ranks:
            _, errors = process.communicate(timeout=SECONDS)
            ended.append((process.returncode, errors))
        return ended


def rows_logged(out: Path, at_least: int) -> bool:
    logs = list((out / ".f.npy.unfinished").glob("log-*"))
    return sum(log.read_bytes().count(b"\n") for log in logs) >= at_least


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("rows", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_an_extraction_whose_process_ends_goes_on_to_the_same_bytes(folder, tmp_path, rank, sent, rows):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    alone = EXTRACT.format(folder=folder, out=tmp_path / "one").split()
    subprocess.run([sys.executable, "-m", "resnet_tools", *alone], check=True, capture_output=True)
    command = EXTRACT.format(folder=folder, out=tmp_path / "two").split()
    ended = run_two(command, lambda: rows_logged(tmp_path / "two", rows), rank, sent)
    assert all(code != 0 for code, _ in ended), ended
    assert not (tmp_path / "two" / "f.npy").exists()
    other = ended[1 - rank][1]
    assert "Traceback" not in other
    assert "another process of this job" in other
    assert [code for code, _ in run_two(command)] == [0, 0]
    for name in ("f.npy", "f.paths.txt"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
