"""Commands in surroundings that are not those of a developer: each gives its result, or one line that says why not."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_tools.__main__ import run
from resnet_tools.cli import COMMANDS
from tests.hardening.jobs import make_data
from tests.hardening.targets import TARGETS
from tests.support.demo_images import PHOTOS

CLASSIFY = ["classify", "demo", PHOTOS[0]]
FIRST_LABEL = "ankle boot"
NOT_FOR_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def resnet(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resnet_tools", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    done = subprocess.run(command, text=True, errors="surrogateescape", timeout=120, check=False, **options)
    assert "Traceback" not in (done.stderr or ""), done.stderr
    return done


def without(*names: str, **others: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names} | others


@pytest.mark.parametrize(
    "environment",
    [
        without("HOME"),
        without("LANG", "LC_ALL", "PYTHONUTF8", LC_ALL="C", PYTHONCOERCECLOCALE="0"),
        without(TMPDIR="/nowhere"),
        without(COLUMNS="1"),
        without(OMP_NUM_THREADS="0"),
    ],
    ids=["no home", "C locale", "no folder for temporary files", "one column", "no threads"],
)
def test_the_environment_makes_no_difference(environment):
    done = resnet(*CLASSIFY, env=environment)
    assert (done.returncode, done.stderr) == (0, "") or "OMP" in done.stderr
    assert FIRST_LABEL in done.stdout


def close(*descriptors: int) -> Callable[[], None]:
    return lambda: [os.close(descriptor) for descriptor in descriptors] and None


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_make_no_difference(tmp_path, closed):
    output = tmp_path / "f.npy"
    done = resnet("extract-features", "demo", PHOTOS[0], "--output", output, preexec_fn=close(*closed))
    assert done.returncode == 0
    assert output.stat().st_size > 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


WITH_OUTPUT = {
    "classify": "{data}/net.pt {data}/images/0.png --crop-size 32",
    "extract-features": "{data}/net.pt {data}/images --crop-size 32 --quiet --output {out}/f.npy",
    "train": "--data {data}/set --retrain {data}/net.pt --reset-classifier --n-epochs 1 --save {out}/run --quiet",
    "evaluate": "{data}/net.pt --data {data}/set --crop-size 32 --quiet",
    "plot": "{data}/history.csv --output {out}/plot.png",
    "check-data": "{data}/set",
    "convert": "{data}/net.pt {out}/net.safetensors",
    "verify": "{data}/net.pt {data}/net.pt",
    "inspect": "{data}/net.pt",
    "models": "",
    "download": "--help",
}


class FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_one_line(command, data, tmp_path, monkeypatch):
    messages = io.StringIO()
    monkeypatch.setattr(sys, "stdout", FullDisk())
    monkeypatch.setattr(sys, "stderr", messages)
    (data / "history.csv").write_bytes(TARGETS["history"].seeds()[0])
    code = run([command, *WITH_OUTPUT[command].format(data=data, out=tmp_path).split()])
    assert code == 1
    assert messages.getvalue().endswith("Error: the output: No space left on device\n")
    assert messages.getvalue().count("Error: ") == (2 if "{data}/images " in WITH_OUTPUT[command] else 1)  # 3.png


def test_few_descriptors_are_enough(tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))  # noqa: E731
    done = resnet("extract-features", "demo", *PHOTOS, "--output", tmp_path / "f.npy", preexec_fn=limit)
    assert done.returncode == 0, done.stderr


def test_too_little_memory_for_torch_is_one_line():
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))  # noqa: E731
    done = resnet(*CLASSIFY, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


@NOT_FOR_ROOT
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    done = resnet("extract-features", "demo", PHOTOS[0], "--output", tmp_path / "f.npy")
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


def test_images_that_vanish_while_others_are_read_are_named(tmp_path):
    for number in range(60):
        shutil.copy(PHOTOS[0], tmp_path / f"{number:02}.png")

    def remove() -> None:
        while not (tmp_path / ".f.pt.unfinished").exists():
            time.sleep(0.01)
        for number in range(40, 60):
            (tmp_path / f"{number:02}.png").unlink()

    remover = threading.Thread(target=remove)
    remover.start()
    options = ["--batch-size", "1", "--workers", "0", "--output", tmp_path / "f.pt"]
    done = resnet("extract-features", "demo", tmp_path, *options)
    remover.join()
    assert done.returncode == 0, done.stderr
    saved = torch.load(tmp_path / "f.pt", weights_only=True)
    lost = [path for path, _ in saved["errors"]]
    assert len(saved["features"]) == len(saved["image_list"]) == 60 - len(lost)
    assert lost
    assert all("No such file" in reason for _, reason in saved["errors"])


def test_a_model_that_is_overwritten_while_it_is_used_makes_no_difference(tmp_path):
    """In place, as cp does it: what is loaded is the process's own."""
    from resnet_tools import load_checkpoint, save_model

    model, other = tmp_path / "net.pt", tmp_path / "other.pt"
    save_model(load_checkpoint(), model)
    checkpoint = load_checkpoint(model)
    before = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    other.write_bytes(b"\xff" * model.stat().st_size)
    shutil.copyfile(other, model)
    with model.open("r+b") as file:
        file.truncate(10)
    after = checkpoint.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_clock_may_be_set_back(monkeypatch, tmp_path):
    from click.testing import CliRunner

    from resnet_tools.cli import cli

    clock = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    command = ["extract-features", "demo", *PHOTOS, "--output", str(tmp_path / "f.npy"), "--batch-size", "2"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_of_two_extractions_of_one_output_one_is_refused_and_the_other_right(tmp_path):
    for number in range(40):
        shutil.copy(PHOTOS[number % len(PHOTOS)], tmp_path / f"{number:02}.png")
    options = ["--batch-size", "1", "--workers", "0"]
    assert resnet("extract-features", "demo", tmp_path, *options, "--output", tmp_path / "one.npy").returncode == 0
    command = [sys.executable, "-m", "resnet_tools", "extract-features", "demo", str(tmp_path), *options]
    command += ["--output", str(tmp_path / "f.npy")]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, errors
    for code, error in zip(codes, errors, strict=True):
        assert code == 0 or "another run is writing" in error
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
