"""`resnet download` as it is typed, and what the commands say of a model that is not there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from resnet_tools.__main__ import run
from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.nets import catalog
from tests.support.web_server import Site, serving

NET = DEMO_PATH.read_bytes()
BAG = str(DEMO_PATH.parent / "images" / "bag.png")


@pytest.fixture
def published(monkeypatch):
    """A site with a small net in the place of the published resnet-50.t7."""
    small = load_checkpoint().architecture
    files = [replace(p, architecture=small) if p.file == "resnet-50.t7" else p for p in catalog.PUBLISHED]
    monkeypatch.setattr(catalog, "PUBLISHED", tuple(files))
    with serving(Site(NET)) as site:
        monkeypatch.setattr(catalog, "PUBLISHED_FILES_AT", site.address)
        yield site


def test_the_published_file_is_fetched_by_its_name_once(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["download", "resnet-50"]) == 0
    done = capsys.readouterr()
    saved, net = done.out.splitlines()
    assert saved == f"resnet-50.t7: saved from {published.address}resnet-50.t7 (783,799 bytes)"
    assert net.startswith("ResNet-18: basic blocks [2, 2, 2, 2]")
    assert done.err == ""
    assert run(["download", "resnet-50.t7"]) == 0
    assert "resnet-50.t7: already exists (783,799 bytes)" in capsys.readouterr().out
    assert len(published.requests) == 1
    assert run(["classify", "resnet-50.t7", BAG]) == 0


def test_output_names_a_file_or_a_folder(published, tmp_path, capsys):
    (tmp_path / "models").mkdir()
    for output, file in (("models", "models/resnet-50.t7"), ("net.t7", "net.t7")):
        assert run(["download", "resnet-50.t7", "--output", str(tmp_path / output)]) == 0
        assert (tmp_path / file).read_bytes() == NET
    assert run(["download", f"{published.address}?id=5"]) == 1
    assert "give one with --output" in capsys.readouterr().err


def test_a_dead_address_says_so_and_what_to_do(published, tmp_path, capsys):
    published.status = 403
    assert run(["download", "resnet-50.t7", "--output", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "the server answers 403 Forbidden" in message
    assert "may be dead" in message
    assert "`resnet download https://HOST/resnet-50.t7`" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ctrl_c_in_the_middle_and_again(tmp_path, number, code):
    with serving(Site(NET, bytes_per_second=len(NET) // 4)) as site:
        words = [sys.executable, "-m", "resnet_tools", "download", f"{site.address}net.t7"]
        with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as job:
            part, end = tmp_path / ".net.t7.download" / "part", time.monotonic() + 60
            while not (part.is_file() and part.stat().st_size) and time.monotonic() < end:
                time.sleep(0.02)
            job.send_signal(number)
            message = job.stderr.read()
        assert job.returncode == code
        assert message.startswith("Stopped. Give the same command again to continue.\n")
        kept = part.stat().st_size
        assert 0 < kept < len(NET)
        site.bytes_per_second = None
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert site.requests == [(None, None), (f"bytes={kept}-", '"1"')]
    assert [path.name for path in tmp_path.iterdir()] == ["net.t7"]
    assert (tmp_path / "net.t7").read_bytes() == NET


NAMES = "The published files are resnet-18.t7, resnet-34.t7, resnet-50.t7, resnet-101.t7, resnet-152.t7, resnet-200.t7"


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        ("resnet-101.t7", f"{NAMES}; `resnet download resnet-101.t7`"),
        ("models/ResNet-101", f"{NAMES}; `resnet download resnet-101.t7`"),
        ("resnet-50", f"{NAMES}; `resnet download resnet-50.t7`"),
        ("mine.t7", f"{NAMES}; `resnet download resnet-50.t7`"),
        ("https://example.org/net.t7", "`resnet download https://example.org/net.t7` fetches"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["classify", "MODEL", BAG],
        ["extract-features", "MODEL", BAG],
        ["evaluate", "MODEL", "--data", str(DEMO_PATH.parent)],
        ["inspect", "MODEL"],
        ["convert", "MODEL", "net.pt"],
        ["verify", "MODEL", "demo"],
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_model_that_is_not_there(command, model, advice, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([model if word == "MODEL" else word for word in command]) in (1, 2)
    message = capsys.readouterr().err
    assert model in message
    assert advice in message


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The files of a run whose best net is not its latest: resnet-18 of the package, under two names."""
    from resnet_tools.checkpoints.tensor_files import torch_write

    folder = tmp_path_factory.mktemp("runs") / "run1"
    folder.mkdir()
    assert run(["convert", "demo", str(folder / "model_2.pt")]) == 0
    shutil.copy(folder / "model_2.pt", folder / "model_best.pt")
    torch_write(
        {"epoch": 2, "modelFile": "/elsewhere/run1/model_2.pt", "optimFile": "optimState_2.pt"}, folder / "latest.pt"
    )
    return folder


def without(finished_run, tmp_path, *names: str):
    """A copy of the run without some of its files."""
    folder = tmp_path / "run1"
    shutil.copytree(finished_run, folder, ignore=lambda *_: names)
    return folder


def resnet(*words: object, cwd) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resnet_tools", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ["classify", "run1", BAG],
        ["extract-features", "run1", BAG],
        ["evaluate", "run1", "--data", "labelled"],
        ["inspect", "run1"],
        ["convert", "run1", "net.safetensors"],
        ["verify", "run1", "demo"],
        ["train", "-retrain", "run1", "-data", "data", "-testOnly", "true", "-nThreads", "0"],
    ],
    ids=lambda words: words[0],
)
def test_a_run_is_a_model_for_every_command(words, finished_run, tmp_path):
    without(finished_run, tmp_path)
    for split in ("labelled", "data/val", "data/train"):
        for name in load_checkpoint().class_names:
            (tmp_path / split / name).mkdir(parents=True)
            shutil.copy(BAG, tmp_path / split / name / f"{split.replace('/', '-')}.png")
    done = resnet(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"run1: the net of this run is model_best\.pt", done.stderr)) == 1


def test_without_a_best_net_the_latest_is_taken_from_the_folder_itself(finished_run, tmp_path):
    without(finished_run, tmp_path, "model_best.pt")
    done = resnet("classify", "run1", BAG, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "Note: run1: the net of this run is model_2.pt\n")


def test_a_run_of_the_original_is_a_model_too(tmp_path):
    from resnet_tools import save_t7

    run1 = tmp_path / "run1"
    run1.mkdir()
    shutil.copy(DEMO_PATH, run1 / "model_3.t7")
    save_t7({"epoch": 3, "modelFile": "model_3.t7", "optimFile": "optimState_3.t7"}, run1 / "latest.t7")
    assert "the net of this run is model_3.t7" in resnet("classify", "run1", BAG, cwd=tmp_path).stderr
    shutil.copy(DEMO_PATH, run1 / "model_best.t7")
    assert "the net of this run is model_best.t7" in resnet("classify", "run1", BAG, cwd=tmp_path).stderr


def test_folders_that_are_no_run_say_so(finished_run, tmp_path, monkeypatch, capsys):
    from resnet_tools.checkpoints.tensor_files import torch_write

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for words in (["classify", "photos", BAG], ["inspect", "photos"], ["convert", "photos", "net.pt"]):
        assert run(words) in (1, 2)
        assert "photos: cannot be read: Is a directory, and not that of a run" in capsys.readouterr().err
    run1 = without(finished_run, tmp_path, "model_best.pt", "model_2.pt")
    for content in ({"modelFile": "model_2.pt"}, {"modelFile": 5}, {"modelFile": "/"}, {"modelFile": "a\0b"}, {}, [1]):
        torch_write(content, run1 / "latest.pt")
        assert run(["classify", "run1", BAG]) == 1
        assert "run1/latest.pt: names " in capsys.readouterr().err
    (run1 / "latest.pt").write_bytes(b"PK no archive")
    assert run(["classify", "run1", BAG]) == 1
    assert "run1/latest.pt: not a whole PyTorch file" in capsys.readouterr().err
