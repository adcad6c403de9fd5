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

import resnet_tools.checkpoints.tensor_files as tensor_files_module
import resnet_tools.checkpoints.weights as arrays_module
import resnet_tools.evaluation.evaluate as evaluate_module
import resnet_tools.torch7.weights as weights_module
import resnet_tools.training.run as run_module
from resnet_tools import load_checkpoint, save_model
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.convert import Target, convert
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.cli import COMMANDS
from resnet_tools.errors import ResnetToolsError
from tests.hardening.faults import pathlib_calls
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
    "similar": "--help",
    "map": "--help",
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
    done = resnet(*CLASSIFY, "--engine", "torch", preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


TRAIN = "train --data {data}/set --retrain {data}/net.pt --reset-classifier --n-epochs 1 --batch-size 2 --quiet"
TRAIN_SMALL = f"{TRAIN} --crop-size 32 --resize-size 36 --no-check --save {{out}}/run"
WITHOUT_SHARED_MEMORY = "mount -t tmpfs -o size=4k none /dev/shm && exec "


def test_training_needs_no_shared_memory(data, tmp_path):
    """As in a container with /dev/shm of no size: a name space of its own, where the system lets us make one."""
    own = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*own, f"{WITHOUT_SHARED_MEMORY} true"], check=False).returncode:
        pytest.skip("no name spaces here")
    words = TRAIN_SMALL.format(data=data, out=tmp_path)
    command = f"{WITHOUT_SHARED_MEMORY} {sys.executable} -m resnet_tools {words} --workers 2"
    done = subprocess.run([*own, command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "model_1.pt").exists()


def read_only(path: object, *_: object) -> None:
    raise PermissionError(errno.EACCES, "permission denied", path)


def test_the_current_folder_may_be_read_only(tmp_path, monkeypatch, capsys):
    """Not even root is stopped by the mode of a folder, so the system's answers are."""
    monkeypatch.chdir(tmp_path)
    plain = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: plain(path, mode) and not mode & os.W_OK)
    monkeypatch.setattr(os, "mkdir", read_only)
    with pathlib_calls({"mkdir": read_only}):
        assert run([*map(str, CLASSIFY)]) == 0
        assert FIRST_LABEL in capsys.readouterr().out
        for words, message in (
            (["extract-features", "demo", str(PHOTOS[0])], "features.pt: cannot be written: permission denied"),
            (["convert", "demo", "net.pt"], "net.pt: cannot be written: Permission denied"),
            (["train", "--data", ".", "--retrain", "demo"], "--save checkpoints: permission denied"),
        ):
            assert run(words) == 1
            assert message in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


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


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100_000))


def fill_with_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


CHANGES = [cut, grow, fill_with_zeros, Path.unlink]
CHANGED = {  # a model, and the function that reads the weights whose places in the file are known by then
    "net.pt": (tensor_files_module, "float_state"),
    "net.safetensors": (arrays_module, "_arrays_at"),
    "net.t7": (weights_module, "copy_all"),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", CHANGED)
def test_a_model_that_changes_while_it_is_read_is_a_net_or_an_error_and_no_crash(name, change, tmp_path, monkeypatch):
    convert(DEMO_PATH, Target(tmp_path / name))
    module, function = CHANGED[name]
    plain = getattr(module, function)
    changed: list[None] = []

    def changing(*arguments: Any) -> Any:
        changed.append(change(tmp_path / name))
        return plain(*arguments)

    monkeypatch.setattr(module, function, changing)
    told = name == "net.pt" and change is fill_with_zeros  # by its checksums
    if told or change is cut or (change is Path.unlink and name != "net.t7"):  # which is open by then
        with pytest.raises(ResnetToolsError, match=rf"{name}: "):
            load_checkpoint(tmp_path / name)
    else:
        assert load_checkpoint(tmp_path / name).architecture.num_classes == 10
    assert changed


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_images_that_change_while_others_are_read_are_named(command, change, data, tmp_path, monkeypatch, capsys):
    shutil.copytree(data / "set", tmp_path / "set")
    module, function = {"evaluate": (evaluate_module, "logits_of"), "train": (run_module, "set_lr")}[command]
    plain, folder = getattr(module, function), "val" if command == "evaluate" else "train"
    changed: list[None] = []

    def changing(*arguments: Any, **options: Any) -> Any:
        if not changed:
            changed.extend(change(tmp_path / "set" / folder / name / "1.png") for name in "ab")
        return plain(*arguments, **options)

    monkeypatch.setattr(module, function, changing)
    words = f"evaluate {data}/net.pt --data {{data}}/set --crop-size 32 --resize-size 36 --quiet --batch-size 1"
    words = words if command == "evaluate" else f"{TRAIN_SMALL} --on-error skip --n-epochs 2"
    words = words.replace("{data}/net.pt", f"{data}/net.pt").format(data=tmp_path, out=tmp_path)
    assert run([*words.split(), "--workers", "0"]) == 0
    errors = capsys.readouterr().err
    assert changed
    assert "Traceback" not in errors
    if change is not grow:  # what stands behind an image is not part of it
        assert f"{tmp_path}/set/{folder}/b/1.png" in errors


@pytest.mark.parametrize("command", ["extract-features", "train"])
def test_the_clock_may_be_set_back(command, data, monkeypatch, tmp_path):
    clock = iter(range(10**6, 0, -100))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    words = {"extract-features": f"extract-features demo {PHOTOS[0]} --output {{out}}/f.npy", "train": TRAIN_SMALL}
    assert run([*words[command].format(data=data, out=tmp_path).split(), "--workers", "0"]) == 0


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
