"""The launcher, with real processes: none is left behind, whatever ends it or one of them, and the reason is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnet_tools.compute.launcher import run_processes

CHILD = """
import os, signal, sys, time
from pathlib import Path
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
"""
OWN_FILES = """
(folder / f".{rank}").write_text(str(os.getpid()))
os.rename(folder / f".{rank}", folder / str(rank))
"""
LAUNCHER = """
import sys
from resnet_tools.compute import launcher
launcher.STOP_SECONDS, launcher.GRACE_SECONDS = float(sys.argv[1]), 1.0
sys.exit(launcher.run_processes([sys.executable, "-c", *sys.argv[2:]], 2))
"""
DEAF = "for number in (1, 2, 3, 15): signal.signal(number, lambda *_: None)\n"
TELLING = (
    'signal.signal(int(sys.argv[2]), lambda n, _: ((folder / f"told-{rank}").write_text(str(n)), os._exit(128 + n)))\n'
)


def launched(folder: Path, code: str, *arguments: object, stop_seconds: float = 60) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", LAUNCHER, stop_seconds, CHILD + code, folder, *arguments]
    return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def pids_of(folder: Path, count: int = 2) -> list[int]:
    """Of the ranks, when all have said that they are ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [folder / str(rank) for rank in range(count)]
        if all(path.exists() for path in found):
            return [int(path.read_text()) for path in found]
        time.sleep(0.02)
    raise AssertionError("the processes did not start")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_each_signal_that_asks_to_stop_reaches_every_process(tmp_path, number):
    job = launched(tmp_path, TELLING + OWN_FILES + "time.sleep(100)", int(number))
    pids = pids_of(tmp_path)
    job.send_signal(number)
    _, err = job.communicate(timeout=60)
    assert (job.returncode, err) == (128 + number, "")
    assert [(tmp_path / f"told-{rank}").read_text() for rank in (0, 1)] == [str(int(number))] * 2
    wait_until_gone(pids)


def test_a_hangup_that_nohup_ignores_stops_nothing(tmp_path):
    code = OWN_FILES + "time.sleep(1); sys.exit(7)"
    words = [sys.executable, "-c", LAUNCHER, "60", CHILD + code, str(tmp_path)]
    job = subprocess.Popen(words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    pids_of(tmp_path)
    job.send_signal(signal.SIGHUP)
    assert job.wait(60) == 7


def test_a_second_signal_ends_processes_that_do_not_hear(tmp_path):
    job = launched(tmp_path, DEAF + OWN_FILES + "\nwhile True: time.sleep(1)")
    pids = pids_of(tmp_path)
    job.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert all(map(is_running, pids))
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=20)
    assert job.returncode == 128 + signal.SIGTERM
    wait_until_gone(pids)


def test_the_same_request_twice_at_once_is_one_request(tmp_path):
    slow = "signal.signal(15, lambda *_: (time.sleep(1), os._exit(143)))\n"
    job = launched(tmp_path, slow + OWN_FILES + "time.sleep(100)")
    pids_of(tmp_path)
    job.send_signal(signal.SIGTERM)
    job.send_signal(signal.SIGTERM)
    started = time.monotonic()
    job.communicate(timeout=20)
    assert time.monotonic() - started > 0.7
    assert job.returncode == 143


def test_after_the_time_to_save_processes_that_do_not_hear_are_ended(tmp_path):
    job = launched(tmp_path, DEAF + OWN_FILES + "\nwhile True: time.sleep(1)", stop_seconds=1.5)
    pids = pids_of(tmp_path)
    job.send_signal(signal.SIGHUP)
    job.communicate(timeout=20)
    assert job.returncode == 128 + signal.SIGHUP
    wait_until_gone(pids)


@pytest.mark.parametrize("deaf", ["", DEAF])
def test_a_stopped_process_does_not_keep_the_others(tmp_path, deaf):
    job = launched(tmp_path, deaf + OWN_FILES + "\nwhile True: time.sleep(1)", stop_seconds=1.5)
    pids = pids_of(tmp_path)
    os.kill(pids[1], signal.SIGSTOP)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=20)
    assert job.returncode == 143
    wait_until_gone(pids)


@pytest.mark.parametrize("stopped", [False, True])
def test_processes_end_when_the_launcher_is_killed(tmp_path, stopped):
    end = "from resnet_tools.compute.launcher import end_with_launcher; end_with_launcher()\n"
    job = launched(tmp_path, end + OWN_FILES + "time.sleep(100)")
    pids = pids_of(tmp_path)
    if stopped:
        os.kill(pids[1], signal.SIGSTOP)
    job.kill()
    wait_until_gone(pids)
    job.communicate(timeout=20)


def test_without_the_help_of_linux_the_pipe_ends_a_process(tmp_path):
    code = (
        "import sys, time; sys.platform = 'darwin'\n"
        "from resnet_tools.compute.launcher import end_with_launcher\n"
        "end_with_launcher(); print('ready', flush=True); time.sleep(100)"
    )
    alive, ours = os.pipe()
    environment = {**os.environ, "RESNET_TOOLS_LAUNCHER_PIPE": str(alive)}
    words = [sys.executable, "-c", code]
    child = subprocess.Popen(words, env=environment, pass_fds=[alive], stdout=subprocess.PIPE, text=True)
    os.close(alive)
    assert child.stdout.readline() == "ready\n"
    os.close(ours)
    assert child.wait(20) == -signal.SIGKILL
    child.stdout.close()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("name", "why"),
    [("SIGKILL", ", often too little memory"), ("SIGSEGV", ", a crash inside a library"), ("SIGABRT", "")],
)
def test_the_process_that_a_signal_killed_is_named(tmp_path, rank, name, why):
    code = OWN_FILES + (
        f"if rank == {rank}: os.kill(os.getpid(), signal.{name})\n"
        "time.sleep(0.3); print('another process ended', file=sys.stderr); sys.exit(75)"
    )
    job = launched(tmp_path, code)
    _, err = job.communicate(timeout=60)
    assert err.splitlines()[-1] == f"Error: process {rank} was killed by {name}{why}"
    assert job.returncode == 128 + signal.Signals[name]


def test_what_a_killed_process_started_ends_with_it(tmp_path):
    code = OWN_FILES + (
        "import subprocess\n"
        "if rank == 1:\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "    (folder / '.2').write_text(str(child.pid)); os.rename(folder / '.2', folder / '2')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(100)"
    )
    job = launched(tmp_path, code)
    job.communicate(timeout=60)
    wait_until_gone(pids_of(tmp_path, 3))


def test_a_reason_that_all_share_is_shown_once(tmp_path):
    job = launched(tmp_path, "print('Error: two ranks on one GPU', file=sys.stderr); sys.exit(1)")
    _, err = job.communicate(timeout=60)
    assert (job.returncode, err) == (1, "Error: two ranks on one GPU\n")


def test_the_own_reason_of_one_goes_before_what_the_others_saw(tmp_path):
    code = (
        "if rank == 0: print('Error: another process ended', file=sys.stderr); sys.exit(75)\n"
        "time.sleep(0.5); print('Error: no NCCL here', file=sys.stderr); sys.exit(1)"
    )
    job = launched(tmp_path, code)
    _, err = job.communicate(timeout=60)
    assert (job.returncode, err.splitlines()) == (1, ["Error: another process ended", "Error: no NCCL here"])


def test_a_process_that_ended_first_says_why_although_the_first_hangs(tmp_path):
    code = "if rank == 1: print('Error: cannot find the others', file=sys.stderr); sys.exit(75)\ntime.sleep(100)"
    job = launched(tmp_path, code)
    _, err = job.communicate(timeout=60)
    assert (job.returncode, err) == (75, "Error: cannot find the others\n")


def test_the_error_of_a_process_ends_all_and_is_shown(capfd):
    code = "import os, sys, time; os.environ['RANK'] == '1' and sys.exit('broken here'); time.sleep(60)"
    assert run_processes([sys.executable, "-c", code], 3) == 1
    assert "broken here" in capfd.readouterr().err
