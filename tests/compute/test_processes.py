"""Several processes: each knows its place, and none waits for one that is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from resnet_tools.compute.processes import ALONE, RENDEZVOUS, joined_processes, own_device

TOGETHER = """
import sys
from resnet_tools.compute.processes import joined_processes
with joined_processes() as processes:
    processes.wait()
    print(processes.rank, processes.count, processes.gather(processes.rank * 10))
"""
ONE_LEAVES = """
import os, sys
from resnet_tools.errors import ProcessError
from resnet_tools.compute.processes import joined_processes
with joined_processes() as processes:
    processes.wait()
    if processes.rank == 0:
        os._exit(5)
    try:
        processes.wait()
    except ProcessError as error:
        print(error, flush=True)
        os._exit(7)
"""


def run_two(code: str) -> list[tuple[int, str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **place, "RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    outputs = [process.communicate(timeout=100) for process in started]
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def test_two_processes_know_their_places_and_each_others_values():
    assert [(code, out) for code, out, _ in run_two(TOGETHER)] == [(0, "0 2 [0, 10]\n"), (0, "1 2 [0, 10]\n")]


def test_a_process_whose_partner_ended_stops_waiting_and_says_so():
    (first, *_), (second, output, errors) = run_two(ONE_LEAVES)
    assert (first, second) == (5, 7), errors
    assert "another process of this job ended" in output


@pytest.mark.parametrize("given", [{}, {"WORLD_SIZE": "4"}, {"WORLD_SIZE": "4", "RANK": "1"}, {"LOCAL_RANK": "1"}])
def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch, given):
    for name in RENDEZVOUS:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with joined_processes() as processes:
        assert processes is ALONE


def test_each_process_has_the_gpu_of_its_number_and_the_cpu_where_there_is_none(monkeypatch):
    import torch

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [own_device(name) for name in ("auto", "cuda", "cpu")] == ["auto", "cuda", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [own_device(name) for name in ("auto", "cuda", "cpu", "cuda:0")] == ["cuda:1", "cuda:1", "cpu", "cuda:0"]
