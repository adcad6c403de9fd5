"""Whole files, through links too, and never in the place of something that is no file."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resnet_tools.writing import write_shared, written_whole


def write(path: Path, content: str) -> None:
    with written_whole(path) as partial:
        partial.write_text(content)


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    for target in ("there/old.txt", "there/new.txt"):
        link = tmp_path / f"link to {Path(target).name}"
        link.symlink_to(target)
        write(tmp_path / "there/old.txt", "old")
        write(link, "new")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "there")) == ["new.txt", "old.txt"]


def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path):
    write(tmp_path / "a.txt", "old")
    with pytest.raises(TypeError), written_whole(tmp_path / "a.txt") as partial:
        partial.write_text("half") + "no number"
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="needs fifos and devices")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a device"])
def test_what_is_no_file_is_refused_by_name_and_stays(tmp_path, kind):
    path = tmp_path / "output"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to a device":
        path.symlink_to("/dev/null")
    else:
        path = Path("/dev/null")
    mode = path.stat().st_mode
    with pytest.raises(OSError, match=f"a {kind.rpartition(' ')[2]} has this name; .*{path}"):
        write(path, "x")
    assert path.stat().st_mode == mode
    assert not list(path.parent.glob(".output*"))


def test_an_open_stream_is_never_replaced_by_a_file(tmp_path):
    log = tmp_path / "log"
    log.write_text("what was there\n")
    code = "from pathlib import Path; from resnet_tools.writing import check_target; check_target(Path('/dev/stdout'))"
    with log.open("a") as file:
        done = subprocess.run([sys.executable, "-c", code], stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "an open stream has this name" in done.stderr
    assert log.read_text() == "what was there\n"


def test_of_several_that_write_a_file_at_once_the_last_one_wins_and_nothing_is_left(tmp_path):
    path = tmp_path / "a.copy"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_shared(path, content), contents * 4))
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["a.copy"]


def test_a_link_is_replaced_by_a_shared_file_and_its_target_stays(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.copy").symlink_to("mine")
    write_shared(tmp_path / "a.copy", b"new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a.copy").read_bytes() == b"new"
