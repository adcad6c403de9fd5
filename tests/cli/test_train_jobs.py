"""`resnet train` among other processes: those of its job, those of other jobs, and what sends it signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from resnet_tools.locking import locked_folder
from tests.support.training import CIFAR, SMALL, figures_of, same_weights, started, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert train(*SMALL, "--n-epochs", 1, "--save", folder) == 0
    return folder


# Two trainings, one folder


@pytest.mark.parametrize("way", ["new", "overwrite", "resume"])
def test_a_second_training_in_a_folder_is_refused_and_the_first_goes_on(one_epoch, tmp_path, capsys, way):
    folder = tmp_path / "run"
    if way == "resume":
        shutil.copytree(one_epoch, folder)
    where = [*CIFAR, "--resume", folder] if way == "resume" else [*SMALL, "--save", folder]
    first = started(*where, "--n-epochs", 3)
    assert next(line for line in first.stdout if line.startswith(" | Epoch"))
    second = [*SMALL, "--n-epochs", 1, "--save", folder, *(["--overwrite"] if way == "overwrite" else [])]
    for words in (second, [*CIFAR, "--resume", folder]):
        if (folder / "latest.pt").exists() or "--resume" not in words:
            assert train(*words) in (1, 2)
            message = capsys.readouterr().err
            assert "another run is writing here" in message or "holds a run" in message
            assert str(folder) in message
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert [row[0] for row in figures_of(folder)] == [1, 2, 3]
    assert not (folder / "lock").exists()


def test_a_run_at_work_is_not_continued_in_another_folder(one_epoch, tmp_path, capsys):
    with locked_folder(one_epoch):
        assert train(*CIFAR, "--resume", one_epoch, "--save", tmp_path / "other") == 1
    assert f"{one_epoch}: another run is writing here" in capsys.readouterr().err
    (one_epoch / "lock").unlink(missing_ok=True)  # some versions of filelock remove it
    assert not (tmp_path / "other").exists()
    assert train(*CIFAR, "--resume", one_epoch, "--save", tmp_path / "other", "--n-epochs", 2) == 0
    assert not (one_epoch / "lock").exists()


def test_a_killed_training_holds_its_folder_no_longer(tmp_path):
    first = started(*SMALL, "--n-epochs", 3, "--save", tmp_path)
    assert next(line for line in first.stdout if line.startswith(" | Epoch"))
    first.kill()
    first.communicate(timeout=60)
    assert train(*SMALL, "--n-epochs", 1, "--save", tmp_path) == 0


def test_overwriting_begins_with_nothing_to_resume(one_epoch, tmp_path):
    folder = shutil.copytree(one_epoch, tmp_path / "run")
    first = started(*SMALL, "--n-epochs", 3, "--save", folder, "--overwrite")
    assert next(line for line in first.stdout if line.startswith(" | Epoch: [1][1/"))
    first.kill()
    first.communicate(timeout=60)
    assert not (folder / "latest.pt").exists()


# Restarts


KILLED_ONCE = """
import os, signal, sys
from pathlib import Path
from resnet_tools.__main__ import main
from resnet_tools.training.run import Run

backward = Run._backward

def fatal(self, *arguments, **named):
    mark = Path(sys.argv[sys.argv.index("--save") + 1]).with_suffix(".killed")
    if self.processes.rank == 1 and self.state.epoch == 1 and self.state.batches_done == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return backward(self, *arguments, **named)

Run._backward = fatal
main()
"""


@pytest.mark.slow
def test_torchrun_restarts_a_run_from_its_last_save(one_epoch, tmp_path):
    script, folder = tmp_path / "killed_once.py", tmp_path / "run"
    script.write_text(KILLED_ONCE)
    options = ["--manual-seed", 5, "--reset-classifier", "--retrain", one_epoch / "model_1.pt", "--batch-size", 16]
    options = [*CIFAR, *options, "--n-epochs", 2, "--device", "cpu", "--overwrite"]
    shutil.copytree(one_epoch, folder)  # a run that is to be replaced, not continued
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", 3, "--nproc-per-node", 2]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    words = [*torchrun, *rendezvous, "--monitor-interval", 0.1, script, "train", *options, "--save", folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert folder.with_suffix(".killed").exists()
    assert f"=> Resuming model from {folder / 'model_1.pt'}" in done.stdout
    assert done.stdout.count("Epoch 1/2: ") == 1
    whole = started(*options, "--n-gpu", 2, "--save", tmp_path / "whole")
    _, errors = whole.communicate(timeout=60)
    assert whole.returncode == 0, errors
    assert same_weights(folder / "model_2.pt", tmp_path / "whole" / "model_2.pt")
    assert figures_of(folder) == figures_of(tmp_path / "whole")


# --n-gpu and --device


def test_inside_a_job_nothing_is_launched_and_another_number_is_refused(tmp_path, capsys, monkeypatch):
    job = {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**job, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert train(*SMALL, "--n-gpu", 2, "--device", "cpu", "--save", tmp_path) == 2
    assert "--n-gpu 2: this is one of 4 processes" in capsys.readouterr().err
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    assert train(*SMALL, "--n-gpu", 2, "--device", "cpu", "--save", tmp_path) == 2
    assert "--n-gpu 2: this is one of 1 processes" in capsys.readouterr().err


def test_inside_a_step_of_slurm_nothing_is_launched(tmp_path, capsys, monkeypatch):
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "here"}
    for name, value in {**step, "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert train(*SMALL, "--n-gpu", 3, "--device", "cpu", "--save", tmp_path) == 2
    assert "--n-gpu 3: this is one of 2 processes" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda:1", "1", "mps"])
def test_several_processes_on_one_device_are_refused_at_once(tmp_path, capsys, device):
    assert train(*SMALL, "--n-gpu", 2, "--device", device, "--save", tmp_path) == 2
    assert "with --n-gpu 2 each process takes a GPU of its own" in capsys.readouterr().err


def test_a_number_alone_is_a_gpu(tmp_path, capsys):
    import torch

    if torch.cuda.device_count() > 7:
        pytest.skip("there is such a GPU")
    assert train(*SMALL, "--device", 7, "--save", tmp_path) == 1
    assert "'cuda:7' is not there" in capsys.readouterr().err


# Signals


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no terminals that are lost")
def test_a_lost_terminal_saves_but_not_under_nohup(tmp_path):
    for ignored in (False, True):
        folder = tmp_path / str(ignored)
        process = started(*SMALL, "--n-epochs", 2, "--save", folder, before=["nohup"] if ignored else [])
        for line in process.stdout:
            if line.startswith(" | Epoch: [1][1/"):
                process.send_signal(signal.SIGHUP)
                break
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (0 if ignored else 128 + signal.SIGHUP), errors
        assert ("everything is saved" in errors) is not ignored
        assert (folder / ("model_2.pt" if ignored else "latest.pt")).exists()


# Memory, batches and options


LIMITED = """
import sys
from resnet_tools.__main__ import main
from resnet_tools.errors import DeviceMemoryError
from resnet_tools.training.step import TrainStep

tried = []

def full(self, images, *arguments, **named):
    tried.append(len(images))
    print("tried", tried, file=sys.stderr, flush=True)
    raise DeviceMemoryError("full")

TrainStep.backward = full
if __name__ == "__main__":
    main()
"""


def test_several_processes_get_advice_on_memory_without_trying(tmp_path):
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    words = [sys.executable, script, "train", *SMALL, "--device", "cpu", "--save", tmp_path / "run"]
    launch = (
        "import sys; from resnet_tools.compute.launcher import run_processes as run; sys.exit(run(sys.argv[1:], 2))"
    )
    launched = [sys.executable, "-c", launch, *map(str, words)]
    done = subprocess.run(launched, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr.count("tried [8]") == 1
    assert "a batch of 8 images does not fit into the memory of a process. Give half of --batch-size" in done.stderr
    assert "--accumulate 2" in done.stderr
    assert done.stderr.count("8 images per process are too few for batch norm") == 1


def test_what_cannot_be_compiled_is_refused_at_once(tmp_path, capsys):
    assert train(*SMALL, "--compile", "--checkpoint-activations", "--save", tmp_path / "run") == 2
    assert "--compile cannot compile what --checkpoint-activations does" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tf32_trains_as_single_where_there_is_no_gpu(tmp_path):
    for precision in ("tf32", "single"):
        words = ["--n-epochs", 1, "--precision", precision, "--device", "cpu", "--save", tmp_path / precision]
        assert train(*SMALL, *words) == 0
    assert same_weights(tmp_path / "tf32" / "model_1.pt", tmp_path / "single" / "model_1.pt")
