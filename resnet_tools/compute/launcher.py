"""A command in several processes of one job on this machine: started, watched, and ended together.

A signal to the launcher reaches all of them; whatever happens to it or to one of them, none is left behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

from resnet_tools.compute.cpus import usable_cpus
from resnet_tools.errors import ProcessError

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
POLL_SECONDS = 0.02
GRACE_SECONDS = 5  # for the others, when one failed
STOP_SECONDS = 60  # for all to save, after a signal
SAME_REQUEST_SECONDS = 0.3  # a scheduler may signal the launcher and its whole group at once
TOGETHER_SECONDS = 1
SIGNALLED = 128  # exit codes from here on mean that a signal ended the process
LAUNCHER_PIPE = "RESNET_TOOLS_LAUNCHER_PIPE"  # the number of a file that ends when the launcher does
PR_SET_PDEATHSIG = 1
WHY: dict[int, str] = {
    signal.SIGKILL: ", often too little memory",
    signal.SIGSEGV: ", a crash inside a library",
    signal.SIGBUS: ", often too little shared memory (docker run --shm-size 8g)",
}

Child = subprocess.Popen[bytes]


@dataclass(frozen=True)
class _End:
    """How process `rank` ended, and when; `forced`: the launcher killed it."""

    rank: int
    code: int
    seconds: float
    forced: bool


def run_processes(command: Sequence[str], count: int) -> int:
    """Run `command` in `count` processes of one job on this machine; the exit code of the first that failed, or 0.

    The others are ended then. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on; a second one, or STOP_SECONDS, ends
    everything. What process 0 prints is shown; of the others, the stderr of the one that failed by itself.
    """
    with ExitStack() as stack:
        asked = stack.enter_context(_noted_signals())
        errors = [None, *(stack.enter_context(TemporaryFile()) for _ in range(1, count))]
        alive, ours = os.pipe()
        stack.callback(os.close, alive)
        stack.callback(os.close, ours)
        children: list[Child] = []
        stack.callback(_kill_all, children)
        for environment, error in zip(_environments(count, alive), errors, strict=True):
            children.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=None if error is None else subprocess.DEVNULL,
                    stderr=error,
                    pass_fds=[alive],
                    start_new_session=True,  # a signal to the whole group would reach them twice
                )
            )
        ends = _watch(children, asked)
        numbers = [number for number, _ in asked]
        culprit = _culprit(ends, numbers)
        if culprit is not None:
            _explain(culprit, errors[culprit.rank])
        return _exit_code(ends, numbers, culprit)


def end_with_launcher() -> None:
    """In a process that `run_processes` started: end at once when the launcher is gone, whatever this process does."""
    pipe = os.environ.pop(LAUNCHER_PIPE, "")
    if not pipe:
        return
    if sys.platform == "linux":  # even if this process is stopped
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def wait_for_its_end() -> None:
        with suppress(OSError):
            os.read(int(pipe), 1)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_its_end, name="launcher", daemon=True).start()


def _environments(count: int, alive: int) -> Iterator[dict[str, str]]:
    with socket.socket() as probe:  # a port that is free now
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cpus() // count))
    shared = {
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": threads,
        LAUNCHER_PIPE: str(alive),
    }
    for rank in range(count):
        yield {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}


@contextmanager
def _noted_signals() -> Iterator[list[tuple[int, float]]]:
    """The signals that asked to stop and when they came; ignored signals, such as SIGHUP under nohup, stay ignored."""
    asked: list[tuple[int, float]] = []
    earlier = {number: signal.getsignal(number) for number in PASSED_ON}
    noted = [number for number, handler in earlier.items() if handler is not signal.SIG_IGN]
    for number in noted:
        signal.signal(number, lambda which, _: asked.append((which, time.monotonic())))
    try:
        yield asked
    finally:
        for number in noted:
            signal.signal(number, earlier[number])


def _watch(children: Sequence[Child], asked: Sequence[tuple[int, float]]) -> list[_End]:
    """Wait for all, and end them when necessary; their ends in the order in which they happened."""
    ends: dict[int, _End] = {}
    passed_on, deadline, killed_at = 0, float("inf"), float("inf")
    while len(ends) < len(children) and time.monotonic() < killed_at + GRACE_SECONDS:
        for rank, child in enumerate(children):
            if rank not in ends and child.poll() is not None:
                ends[rank] = _End(rank, child.returncode, time.monotonic(), killed_at < float("inf"))
                if child.returncode:
                    _kill(child)  # its data-loading processes too
        for number, at in asked[passed_on:]:
            if passed_on == 0:
                _pass_on(number, children)
            again = at > asked[0][1] + SAME_REQUEST_SECONDS
            deadline = min(deadline, at if again else at + STOP_SECONDS)
            passed_on += 1
        if not asked and any(end.code for end in ends.values()):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline and killed_at == float("inf"):
            _kill_all(children)
            killed_at = time.monotonic()
        time.sleep(POLL_SECONDS)
    for rank in set(range(len(children))) - set(ends):  # not even SIGKILL ends a process that waits for a device
        ends[rank] = _End(rank, -signal.SIGKILL, time.monotonic(), True)
    return list(ends.values())


def _pass_on(number: int, children: Sequence[Child]) -> None:
    for child in children:
        child.send_signal(number)
        child.send_signal(signal.SIGCONT)  # so that a stopped process gets it too


def _kill_all(children: Sequence[Child]) -> None:
    for child in children:
        if child.poll() is None:
            _kill(child)


def _kill(child: Child) -> None:
    """End a process and those that it started: each leads its own process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _culprit(ends: Sequence[_End], asked: Sequence[int]) -> _End | None:
    """The process that failed by itself; None if all ended well or as requested.

    Of those that failed together it is one that was killed, otherwise the first.
    """
    stops = {0, *(-number for number in asked), *(SIGNALLED + number for number in asked)}
    own = [end for end in ends if end.code not in stops and not end.forced]
    failed = [end for end in own if end.code != ProcessError.exit_code] or own
    if not failed:
        return None
    together = [end for end in failed if end.seconds <= failed[0].seconds + TOGETHER_SECONDS]
    return min(together, key=lambda end: (-end.code not in WHY, end.rank))


def _explain(culprit: _End, errors: IO[bytes] | None) -> None:
    """Print what it wrote to stderr, unless it was process 0, whose output was shown, and which signal ended it."""
    if errors is not None and culprit.code < SIGNALLED:
        errors.seek(0)
        sys.stderr.buffer.write(errors.read())
        sys.stderr.buffer.flush()
    if culprit.code < 0:
        number = -culprit.code
        known = {each.value: each.name for each in signal.Signals}
        name = known.get(number, f"signal {number}")
        print(f"Error: process {culprit.rank} was killed by {name}{WHY.get(number, '')}", file=sys.stderr, flush=True)


def _exit_code(ends: Sequence[_End], asked: Sequence[int], culprit: _End | None) -> int:
    if culprit is not None:
        code = culprit.code
    elif asked and any(end.code for end in ends):
        return SIGNALLED + asked[0]
    else:
        code = max((end.code for end in ends), key=abs)
    return code if code >= 0 else SIGNALLED - code
