"""The processes that load images: what they are sent, what they say when something fails, and that they end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_tools.compute.loader_processes import MAX_THREADS
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import CIFAR10
from resnet_tools.errors import TrainingError
from resnet_tools.training.batches import epoch_batches
from resnet_tools.training.loading import BatchLoader
from resnet_tools.training.shared_samples import shared
from resnet_tools.training.transforms import training_transform
from tests.support.small_nets import sample_set
from tests.support.training import SMALL, started

PLAIN = training_transform("none", "cifar10", CIFAR10)
PROCESSES = MAX_THREADS + 1


@pytest.mark.parametrize(
    "paths",
    [
        ["/data/a/1.png", "/data/b/22.png", "/data/a/\udcff.png", "/data/\N{SNOWMAN}\ud800"],
        ["same", "same"],
        ["a", "ab", ""],
        [],
    ],
)
def test_shared_paths_are_the_paths(paths):
    samples = Samples(paths, list(range(len(paths))), ["a"])
    there = shared(samples)
    assert list(there.images) == paths
    assert [there.images[k] for k in range(len(paths))] == paths
    assert [there.targets[k] for k in range(len(paths))] == samples.targets
    assert [there.name(k) for k in range(len(paths))] == paths


def test_shared_pixels_are_the_pixels():
    samples = sample_set()
    there = shared(samples)
    assert all(np.array_equal(there.images[k], samples.images[k]) for k in range(len(samples)))
    assert len(there) == len(samples)


def test_a_million_paths_travel_in_a_few_bytes():
    """What a process is sent is no larger than for a few: the rest is in memory that it shares."""
    from multiprocessing.reduction import ForkingPickler

    sizes = []
    for count in (10, 1_000_000):
        samples = shared(Samples([f"/images/train/{k:08d}.jpeg" for k in range(count)], [0] * count, ["a"]))
        sizes.append(len(ForkingPickler.dumps(samples)))
    assert sizes[1] <= sizes[0] + 100
    assert sizes[1] < 2000


def own_pid(image, generator):
    """A transform that says which process it ran in."""
    return torch.full((3, 1, 1), os.getpid(), dtype=torch.int64)


def breaks(image, generator):
    raise RuntimeError("a library says\n why")


def dies(image, generator):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_same_processes_load_every_epoch():
    samples = sample_set(60)
    loader = BatchLoader(samples, own_pid, 0, workers=PROCESSES)
    pids = []
    for epoch in (1, 2, 3):
        batches = list(loader.epoch(epoch, epoch_batches(60, 4, 0, epoch)))
        pids.append({int(batch.images[0, 0, 0, 0]) for batch in batches})
    loader.close()
    assert len(set.union(*pids)) <= PROCESSES
    assert len(pids[0]) > 1
    assert os.getpid() not in pids[0]


def test_the_random_numbers_of_the_run_are_not_touched():
    before = torch.get_rng_state()
    loader = BatchLoader(sample_set(), PLAIN, 0, workers=PROCESSES)
    assert len(list(loader.epoch(1, epoch_batches(12, 6, 0, 1)))) == 2
    loader.close()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2, PROCESSES])
def test_what_a_library_says_is_told_as_it_is(workers):
    loader = BatchLoader(sample_set(), breaks, 0, workers=workers)
    with pytest.raises(TrainingError) as caught:
        list(loader.epoch(1, epoch_batches(12, 6, 0, 1)))
    loader.close()
    assert str(caught.value) == "the images cannot be loaded: RuntimeError: a library says why"


def test_a_process_that_is_killed_is_want_of_memory():
    loader = BatchLoader(sample_set(), dies, 0, workers=PROCESSES)
    with pytest.raises(TrainingError, match="died, most likely for lack of memory or shared memory"):
        list(loader.epoch(1, epoch_batches(12, 6, 0, 1)))
    loader.close()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system does not show its processes")
def test_no_process_is_left_when_the_training_is_killed(tmp_path):
    first = started(*SMALL, "--n-epochs", 99, "--workers", PROCESSES, "--save", tmp_path, before=["setsid"])
    assert next(line for line in first.stdout if line.startswith(" | Epoch"))
    group = os.getpgid(first.pid)
    assert len(members(group)) > PROCESSES
    first.kill()
    first.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(group) == []


def members(group: int) -> list[int]:
    """The processes of a process group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended
            continue
        if int(of) == group and state != "Z":
            found.append(int(path.parent.name))
    return found
