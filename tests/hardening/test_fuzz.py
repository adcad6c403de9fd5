"""A fixed seed of every target, some inputs of each: `scripts/harden fuzz` runs them for as long as one likes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from resnet_tools.errors import ResnetToolsError
from tests.hardening.fuzzing import Target, fuzz, input_bytes
from tests.hardening.targets import TARGETS

SEED = 20
SLOW_TARGETS = ("t7-net", "inspect", "pt", "pt-legacy", "safetensors", "onnx", "run-state", "run-latest")  # build nets


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_are_values_or_errors_of_ours(name):
    count = 100 if name in SLOW_TARGETS else 400
    found = fuzz(TARGETS[name], SEED, 0, count)
    assert not found, "\n".join(f"input {one.number}: {one.what}\n{one.detail}" for one in found[:3])


@pytest.mark.parametrize("name", TARGETS)
def test_the_good_files_that_inputs_are_made_of_are_read(name, tmp_path):
    """A target whose seeds are refused would test nothing behind the first check."""
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        path = tmp_path / f"{number}" / target.name
        path.parent.mkdir(parents=True)
        path.write_bytes(seed)
        try:
            target.run(path)
            return
        except ResnetToolsError:
            continue
    pytest.fail("none of the seeds is read")


def test_an_input_is_the_same_whenever_it_is_made():
    target = TARGETS["history"]
    seeds = target.seeds()
    assert [input_bytes(target, seeds, 1, n) for n in range(20)] == [
        input_bytes(target, seeds, 1, n) for n in range(20)
    ]
    assert len({input_bytes(target, seeds, 1, n) for n in range(20)}) > 10


def crash(_: Path) -> None:
    import ctypes

    ctypes.string_at(0)


def loop(_: Path) -> None:
    while True:
        pass


def hang(_: Path) -> None:
    time.sleep(1000)


def take_memory(_: Path) -> None:
    bytearray(1 << 31)


def raise_a_bug(_: Path) -> None:
    raise KeyError("a bug")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (crash, "killed by SIGSEGV"),
        (raise_a_bug, "KeyError in test_fuzz.py"),
        (take_memory, "takes more than 600 MiB"),
        (hang, "takes more than"),
        (loop, "takes more than"),
    ],
)
def test_the_fuzzer_finds_what_it_looks_for(run, expected, monkeypatch):
    monkeypatch.setattr("tests.hardening.fuzzing.SECONDS_AN_INPUT", 0.05)
    target = Target(run, lambda: [b"seed"], "a.bin", ())
    found = fuzz(target, 0, 0, 2)
    assert [one.number for one in found] == [0, 1]
    assert all(expected in one.what for one in found)
