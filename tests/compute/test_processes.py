"""Several processes: each knows its place, and none waits for one that is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_tools.compute import processes as module
from resnet_tools.compute.job import RENDEZVOUS
from resnet_tools.compute.processes import ALONE, joined_processes, lost_processes, own_device
from resnet_tools.errors import ProcessError, ResnetToolsError

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


TIMEOUTS = """
from resnet_tools.compute.processes import joined_processes
import torch
import torch.distributed as distributed
with joined_processes() as processes:
    group = distributed.group.WORLD
    ours = [g for g in distributed.distributed_c10d._world.pg_map if g is not group]
    gloo = [g._get_backend(torch.device("cpu")) for g in (group, *ours)]
    print(*(int(backend.options._timeout.total_seconds()) for backend in gloo))
"""


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def torchrun_place(rank: int, port: str) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def srun_place(rank: int, port: str) -> dict[str, str]:
    place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "here"}
    return {**place, "SLURM_JOB_ID": port, "MASTER_PORT": port}


def run_two(code: str, place=torchrun_place) -> list[tuple[int, str, str]]:
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **place(rank, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=100) for process in started]
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


@pytest.mark.parametrize("place", [torchrun_place, srun_place])
def test_two_processes_know_their_places_and_each_others_values(place):
    assert [(code, out) for code, out, _ in run_two(TOGETHER, place)] == [(0, "0 2 [0, 10]\n"), (0, "1 2 [0, 10]\n")]


def test_tasks_of_slurm_that_cannot_find_each_other_end_with_what_is_missing():
    def incomplete(rank: int, port: str) -> dict[str, str]:
        return {name: value for name, value in srun_place(rank, port).items() if name != "SLURM_LOCALID"}

    for code, _, err in run_two(TOGETHER, incomplete):
        assert code == 1
        assert "several tasks of SLURM, but SLURM_LOCALID is not set" in err


def test_only_waits_for_each_other_are_long():
    for _, out, err in run_two(TIMEOUTS):
        exchange, wait = map(int, out.split())
        assert exchange <= 1800, err
        assert wait == module.LONGEST_WAIT.total_seconds()


def test_a_process_whose_partner_ended_stops_waiting_and_says_so():
    (first, *_), (second, output, errors) = run_two(ONE_LEAVES)
    assert (first, second) == (5, 7), errors
    assert "another process of this job ended" in output


def test_processes_that_cannot_find_each_other_are_told_of_the_network_interface(monkeypatch):
    def unreachable(*_):
        raise RuntimeError("The client socket has timed out after 1800000ms while trying to connect to (gpu01, 29500).")

    for name, value in torchrun_place(0, "29500").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "join", unreachable)
    with pytest.raises(ProcessError, match="cannot find each other: The client socket has timed out") as caught:
        joined_processes().__enter__()
    assert "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network interface" in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"WORLD_SIZE": "4"}, {"WORLD_SIZE": "4", "RANK": "1"}, {"LOCAL_RANK": "1"}])
def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch, given):
    for name in RENDEZVOUS:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with joined_processes() as processes:
        assert processes is ALONE


def given(monkeypatch, gpus: int, **variables: object) -> None:
    import torch

    for name in (*RENDEZVOUS, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_NODELIST", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


JOB = {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "h", "MASTER_PORT": 1, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}


def test_each_process_has_the_gpu_of_its_number_and_the_cpu_where_there_is_none(monkeypatch):
    given(monkeypatch, 0)
    assert own_device("auto") == "auto"
    given(monkeypatch, 0, LOCAL_RANK=3)
    assert [own_device(name) for name in ("auto", "cuda", "cpu")] == ["auto", "cuda", "cpu"]
    given(monkeypatch, 2, LOCAL_RANK=1)
    assert [own_device(name) for name in ("auto", "cuda", "cpu", "cuda:0")] == ["cuda:1", "cuda:1", "cpu", "cuda:0"]
    given(monkeypatch, 2, **JOB)
    assert [own_device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]


@pytest.mark.parametrize(("gpus", "said"), [(1, "1 GPU;"), (2, "2 GPUs;"), (3, "3 GPUs;")])
def test_more_processes_than_gpus_are_refused(monkeypatch, gpus, said):
    for rank in (0, 3):  # in every process, so that none waits for another
        given(monkeypatch, gpus, **JOB | {"WORLD_SIZE": 4, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 4})
        with pytest.raises(ResnetToolsError, match=f"4 processes on this machine, which has {said}"):
            own_device("auto")


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "0", "1"])
def test_processes_that_would_share_one_gpu_are_refused(monkeypatch, device):
    given(monkeypatch, 2, **JOB)
    with pytest.raises(ResnetToolsError, match=f"--device {device}: 2 processes of this machine would share it"):
        own_device(device)


def test_a_task_of_slurm_takes_the_only_gpu_that_it_sees(monkeypatch):
    task = {"SLURM_PROCID": 1, "SLURM_LOCALID": 1, "SLURM_NTASKS": 2, "SLURM_STEP_NODELIST": "n1"}
    given(monkeypatch, 1, **task)
    assert own_device("auto") == "cuda:0"
    given(monkeypatch, 2, **task)
    assert own_device("auto") == "cuda:1"


NCCL = "NCCL error in: /torch/csrc/c10d/NCCLUtils.cpp:94, {0}, NCCL version 2.27.3\n{1}\nLast error:\n{2}"
DUPLICATE = "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 50"
LOST = [
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:4321. "
    "This is typically caused by a remote worker hanging or bugs in the application. GLHF!",
    NCCL.format(
        "remote process exited or there was a network error",
        "ncclRemoteError: ...",
        "socketProgress: Connection closed",
    ),
]
OWN = {
    NCCL.format("invalid usage", "ncclInvalidUsage: This usually reflects invalid usage.", DUPLICATE): DUPLICATE,
    NCCL.format(
        "unhandled system error", "ncclSystemError: ...", "Error while creating shared memory segment"
    ): "shared memory",
    "ProcessGroupNCCL is only supported with GPUs, no GPUs found!": "no GPUs found",
}


@pytest.mark.parametrize("text", LOST)
def test_a_lost_partner_is_told_from_a_reason_of_its_own(monkeypatch, text):
    monkeypatch.setattr(module, "FAILED_FIRST_SECONDS", 0)
    message = r"another process of this job ended; .*onnection closed"
    with pytest.raises(ProcessError, match=message) as caught, lost_processes():
        raise RuntimeError(text)
    assert "typically" not in str(caught.value)
    assert "third_party" not in str(caught.value)


@pytest.mark.parametrize("text", OWN)
def test_the_reason_that_nccl_gives_is_the_message(text):
    with pytest.raises(ResnetToolsError) as caught, lost_processes():
        raise RuntimeError(text)
    assert not isinstance(caught.value, ProcessError)
    assert OWN[text] in str(caught.value)
    assert "another process" not in str(caught.value)


@pytest.mark.parametrize("text", ["shapes differ", "NCCL error: unhandled cuda error, Cuda failure 'out of memory'"])
def test_what_is_neither_goes_through(text):
    with pytest.raises(RuntimeError, match=text), lost_processes():
        raise RuntimeError(text)


ELASTIC = """
import os, signal, sys
from pathlib import Path
from resnet_tools.compute.job import was_restarted
from resnet_tools.compute.processes import joined_processes
with joined_processes() as processes:
    processes.wait()
    if processes.rank == 1 and not was_restarted(os.environ):
        os.kill(os.getpid(), signal.SIGKILL)
    if was_restarted(os.environ):
        Path(sys.argv[1], str(processes.rank)).write_text(str(processes.gather(processes.rank)))
    processes.wait()
"""


def test_processes_that_torchrun_restarts_find_each_other_again(tmp_path):
    (tmp_path / "program.py").write_text(ELASTIC)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    words += ["--monitor-interval=0.1", tmp_path / "program.py", tmp_path]
    ours = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(words, env=ours, check=True, capture_output=True, timeout=100)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["[0, 1]"] * 2
