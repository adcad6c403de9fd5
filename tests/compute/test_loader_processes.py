"""Processes load the same batches as threads, and what goes wrong in them is told."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnet_tools.compute import inference, loader_processes
from resnet_tools.compute.inference import Loading, loaded_batches
from resnet_tools.compute.loader_processes import LoaderProcesses, free_shared_memory
from resnet_tools.compute.transfer import ahead_on_device
from resnet_tools.data.transforms import CIFAR10
from resnet_tools.errors import LoadingError
from tests.support.demo_images import PHOTOS

THREADS = Loading(CIFAR10, batch_size=2, workers=2)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    return [PHOTOS[0], str(bad), *PHOTOS[:3], str(bad), PHOTOS[1]]


def assert_equal_batches(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.paths == other.paths
        assert [str(error) for error in one.errors] == [str(error) for error in other.errors]
        assert torch.equal(one.images, other.images)


def test_processes_load_what_threads_load(paths, monkeypatch):
    monkeypatch.setattr(inference, "MAX_THREADS", 1)  # with more workers than these they are processes
    started = []
    monkeypatch.setattr(
        inference, "LoaderProcesses", lambda *a, **b: started.append(LoaderProcesses(*a, **b)) or started[-1]
    )
    expected = list(inference._by_threads(paths, THREADS))
    assert_equal_batches(loaded_batches(paths, THREADS), expected)
    assert len(started) == 1
    assert started[0]._loader is None  # they have ended
    assert len(list(loaded_batches(paths[:4], THREADS))) == 2  # too few to pay for processes
    monkeypatch.setattr(inference, "free_shared_memory", lambda: 1000.0)
    assert_equal_batches(loaded_batches(paths, THREADS), expected)
    assert len(started) == 1


def test_processes_that_are_there_are_used_again(paths):
    processes = LoaderProcesses(2)
    loading = replace(THREADS, processes=processes)
    expected = list(loaded_batches(paths, THREADS))
    for _ in range(2):
        assert_equal_batches(loaded_batches(paths, loading), expected)
    next(loaded_batches(paths, loading))  # left before its end
    assert_equal_batches(loaded_batches(paths, loading), expected)
    processes.close()


def fails(_):
    raise ValueError("a library says\n why")


def dies(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("task", "words"), [(fails, "the images cannot be loaded: ValueError: a library says why"), (dies, "process died")]
)
def test_what_goes_wrong_in_a_process_is_told(task, words):
    processes = LoaderProcesses(1)
    with pytest.raises(LoadingError, match=words):
        list(processes.results([task]))
    processes.close()


def test_free_shared_memory_is_what_the_system_says(monkeypatch, tmp_path):
    monkeypatch.setattr(loader_processes, "SHARED_MEMORY", tmp_path)
    found = os.statvfs(tmp_path)
    assert free_shared_memory() == pytest.approx(found.f_bavail * found.f_frsize, rel=0.1)
    monkeypatch.setattr(loader_processes, "SHARED_MEMORY", tmp_path / "none")
    assert free_shared_memory() == float("inf")


def test_on_a_cpu_batches_stay_as_they_are(paths):
    batches = list(loaded_batches(paths, THREADS))
    assert all(
        one is other for one, other in zip(ahead_on_device(iter(batches), torch.device("cpu")), batches, strict=True)
    )


@pytest.mark.skipif(loader_processes.START_METHOD != "forkserver", reason="no server")
@pytest.mark.parametrize(
    ("error", "shown"), [(FileNotFoundError(2, "gone"), False), (EOFError(), False), (ImportError(), True)]
)
def test_a_start_that_was_given_up_says_nothing(monkeypatch, capsys, error, shown):
    import importlib
    import multiprocessing.forkserver
    import sys

    LoaderProcesses(1)._started()
    assert loader_processes.SERVER in multiprocessing.forkserver._forkserver._preload_modules
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delitem(sys.modules, loader_processes.SERVER, raising=False)
    importlib.import_module(loader_processes.SERVER)  # as the server does
    sys.excepthook(type(error), error, None)
    assert bool(capsys.readouterr().err) is shown
