"""Jobs of two processes of which one is ended: the job ends soon, says why, and goes on to the same bytes.

The processes find each other as those of a launcher do, by the environment. Each is killed, or asked to stop, when it
calls a certain function for a certain time, so that every phase is met. They are forked from this one, whose imports
they share; one test starts real ones.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from resnet_tools.__main__ import run as run_command
from tests.hardening import faults
from tests.hardening.jobs import JOBS, Job, command_of, content_of, make_data
from tests.support.demo_images import PHOTOS

SECONDS = 60
LOST = "another process of this job ended"
RANKED = {
    "extract": JOBS["extract.npy"],
    "train": JOBS["train"],
    "evaluate": Job(f"{JOBS['evaluate'].command} --batch-size 1"),
}


@dataclass(frozen=True)
class Moment:
    """When a process of a job calls a function of the package, for which time. `ranks`: those that ever do.

    `other_is_done`: the other has nothing left to wait for.
    """

    job: str
    phase: str
    function: str
    call: int = 1
    ranks: tuple[int, ...] = (0, 1)
    other_is_done: bool = False


MOMENTS = (
    Moment("extract", "start", "features.store:FeatureStore.open"),
    Moment("extract", "first batch", "features.store:FeatureStore.add"),
    Moment("extract", "last batch", "features.store:FeatureStore.add", 2),
    Moment("extract", "end", "features.store:FeatureStore.flush"),
    Moment("extract", "writing", "features.extract:write_features", ranks=(0,)),
    Moment("train", "start", "training.run:Run._check_sizes"),
    Moment("train", "first epoch", "training.run:Run._backward", 2),
    Moment("train", "first validation", "training.run:broadcast_buffers"),
    Moment("train", "first saving", "training.run:save_run", ranks=(0,)),
    Moment("train", "second epoch", "training.run:Run._backward", 3),
    Moment("train", "end", "training.run:Run._finish_epoch", 2),
    Moment("train", "last saving", "training.run:save_run", 2, ranks=(0,)),
    Moment("evaluate", "start", "evaluation.evaluate:own_batches"),
    Moment("evaluate", "middle", "evaluation.evaluate:logits_of", 2),
    Moment("evaluate", "writing", "evaluation.report.files:write_report", 1, (0,), other_is_done=True),
)
TOO_LATE = ("end", "last saving")  # to ask a training to stop: it has no batch any more
QUICK = {("extract", "last batch"), ("train", "second epoch"), ("evaluate", "middle")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, object]]:
    """What two processes that nobody ends leave of each job."""
    found: dict[str, dict[str, object]] = {}

    def content(name: str) -> dict[str, object]:
        if name not in found:
            out = tmp_path_factory.mktemp("undisturbed") / "out"
            out.mkdir()
            # Once alone, with the points counted, which imports here what each process would import.
            assert faults.run(command_of(RANKED[name], data, out), out).code == 0
            shutil.rmtree(out)
            out.mkdir()
            ended = run_two(command_of(RANKED[name], data, out), out.parent)
            assert [code for code, _ in ended] == [0, 0], ended
            found[name] = content_of(out)
        return found[name]

    return content


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_of(rank: int, port: int) -> dict[str, str]:
    return {
        **{"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def run_two(
    job: Callable[[], object], folder: Path, moment: Moment | None = None, rank: int = 0, sent: int = 0
) -> list[tuple[int, str]]:
    """Exit codes and messages of both ranks, of which one gets a signal at the moment."""
    port = free_port()
    children = []
    for number in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(environment_of(number, port))
            _work(job, folder / f"printed-{number}", moment if number == rank else None, sent)
        children.append(child)
    codes = _wait(children)
    return [(code, (folder / f"printed-{number}").read_text()) for number, code in enumerate(codes)]


def _work(job: Callable[[], object], printed: Path, moment: Moment | None, sent: int) -> None:
    """The life of a forked process."""
    code = 1
    try:
        output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if moment is not None:
            _signal_at(moment, sent)
        result = job()
        code = result if isinstance(result, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _signal_at(moment: Moment, sent: int) -> None:
    module, _, path = moment.function.partition(":")
    owner: Any = import_module(f"resnet_tools.{module}")
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    plain, calls = getattr(owner, name), 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment.call:
            os.kill(os.getpid(), sent)
        return plain(*arguments, **options)

    mock.patch.object(owner, name, counted).start()


def _wait(children: list[int]) -> list[int]:
    """Exit codes, of processes that a signal killed its negative number. Raises: AssertionError after a minute."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    try:
        while len(codes) < len(children):
            assert time.monotonic() < deadline, f"the job has not ended; of {children} these have: {codes}"
            for child in [child for child in children if child not in codes]:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
    finally:
        for child in children:
            if child not in codes:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    return [codes[child] for child in children]


def _cases() -> list[Any]:
    cases = []
    for moment in MOMENTS:
        for sent in (signal.SIGKILL, signal.SIGTERM):
            for rank in moment.ranks:
                marks = [] if (moment.job, moment.phase) in QUICK else [pytest.mark.slow]
                name = f"{moment.job}, {moment.phase}, rank {rank}, {sent.name}"
                cases.append(pytest.param(moment, rank, sent, id=name, marks=marks))
    return cases


@pytest.mark.parametrize(("moment", "rank", "sent"), _cases())
def test_a_job_whose_process_ends_goes_on_to_the_same_bytes(moment, rank, sent, data, undisturbed, tmp_path):
    job, expected, out = RANKED[moment.job], undisturbed(moment.job), tmp_path / "out"
    out.mkdir()
    ended = run_two(command_of(job, data, out), tmp_path, moment, rank, sent)
    (code, printed), (other_code, other) = ended[rank], ended[1 - rank]
    assert "Traceback" not in printed + other, ended
    if moment.job == "train" and sent == signal.SIGTERM and moment.phase in TOO_LATE:
        assert (code, other_code) == (0, 0), ended
    elif moment.job == "train" and sent == signal.SIGTERM:  # which both hear of, so that they save and stop together
        assert (code, other_code) == (143, 143), ended
        assert "Stopped by SIGTERM" in ended[0][1], ended
        assert "everything is saved" in ended[0][1], ended
    else:
        assert code == (143 if sent == signal.SIGTERM else -signal.SIGKILL), ended
        assert (other_code, LOST in other) == ((0, False) if moment.other_is_done else (75, True)), ended
    for name, content in content_of(out).items():
        assert name in job.changing or content == expected.get(name, content), f"it left another {name}"
    ended = run_two(command_of(job, data, out, again=True), tmp_path)
    assert [code for code, _ in ended] == [0, 0], ended
    found = content_of(out)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_real_processes_of_which_one_is_killed_end_and_go_on(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(60):
        shutil.copy(PHOTOS[number % len(PHOTOS)], photos / f"{number:03}.png")
    words = f"extract-features demo {photos} --batch-size 1 --workers 0 --quiet --output {tmp_path}".split()
    command = [sys.executable, "-m", "resnet_tools", *words[:-1]]

    def logged() -> bool:
        return any(path.stat().st_size for path in (tmp_path / ".two.npy.unfinished").glob("log-0"))

    ended = _two_commands([*command, f"{tmp_path}/two.npy"], logged)
    assert [code for code, _ in ended] == [-signal.SIGKILL, 75], ended
    assert LOST in ended[1][1]
    assert "Traceback" not in ended[1][1]
    assert [code for code, _ in _two_commands([*command, f"{tmp_path}/two.npy"])] == [0, 0]
    assert run_command([*words[:-1], f"{tmp_path}/one.npy"]) == 0
    assert (tmp_path / "two.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()


def _two_commands(command: list[str], kill_first: Callable[[], bool] | None = None) -> list[tuple[int, str]]:
    port = free_port()
    ranks = [
        subprocess.Popen(command, env={**os.environ, **environment_of(rank, port)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    deadline = time.monotonic() + SECONDS
    while kill_first and not kill_first() and time.monotonic() < deadline:
        time.sleep(0.005)
    if kill_first:
        ranks[0].kill()
    return [(process.returncode, errors) for process in ranks for _, errors in [process.communicate(timeout=SECONDS)]]
