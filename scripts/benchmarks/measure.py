"""Two commands or functions, run in turn -> a row: the ratio of the medians of their times, and of their CPU times."""

from __future__ import annotations

import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import click

PROGRAMS = Path(__file__).parent / "programs"
QUICK_COUNT = 8
IDLE_SECONDS = 0.05  # until the threads of what ran before have stopped spinning

quick: ContextVar[bool] = ContextVar("quick", default=False)  # small nets, few images, no repeats: do the rows run?


@dataclass(frozen=True)
class Row:
    """`cpu_ratio` is that of user and system time, where time was measured: other processes take nothing from it.

    The target is for the ratio, or for the one of CPU time if `of_cpu`.
    """

    name: str
    ratio: float
    target: float
    detail: str
    cpu_ratio: float | None = None
    of_cpu: bool = False

    @property
    def missed(self) -> bool:
        return (self.cpu_ratio if self.of_cpu and self.cpu_ratio else self.ratio) > self.target


@dataclass(frozen=True)
class Seconds:
    wall: float
    cpu: float


def row(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    target: float,
    runs: int = 5,
    warm_up: bool = True,
) -> Row:
    mine, theirs = in_turn(ours, peer, runs, warm_up)
    return timed_row(name, mine, theirs, target)


def timed_row(name: str, mine: Seconds, theirs: Seconds, target: float, note: str = "") -> Row:
    wall = f"{mine.wall * 1e3:,.1f} ms against {theirs.wall * 1e3:,.1f} ms"
    cpu = f"CPU {mine.cpu * 1e3:,.0f} ms against {theirs.cpu * 1e3:,.0f} ms"
    cpu_ratio = mine.cpu / theirs.cpu if theirs.cpu else None
    return Row(name, mine.wall / theirs.wall, target, f"{wall}; {cpu}{note}", cpu_ratio)


def in_turn(
    ours: Callable[[], object], peer: Callable[[], object], runs: int, warm_up: bool
) -> tuple[Seconds, Seconds]:
    """Medians of each, run alternately, every second time in the other order; with `warm_up` once before, uncounted."""
    times: tuple[list[Seconds], list[Seconds]] = ([], [])
    for run in range(-1 if warm_up and not quick.get() else 0, 1 if quick.get() else runs):
        pair = list(zip((ours, peer), times, strict=True))
        for function, found in reversed(pair) if run % 2 else pair:
            time.sleep(IDLE_SECONDS)
            seconds = timed(function)
            if run >= 0:
                found.append(seconds)
    return median(times[0]), median(times[1])


def timed(function: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), cpu_seconds()
    function()
    return Seconds(time.perf_counter() - wall, cpu_seconds() - cpu)


def median(times: list[Seconds]) -> Seconds:
    return Seconds(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


def cpu_seconds() -> float:
    """User and system time of this process and of those that it waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def process(*command: object) -> Callable[[], object]:
    return lambda: completed(command)


RESNET = Path(sys.executable).with_name("resnet")


def resnet(*arguments: object) -> Callable[[], object]:
    """The installed command."""
    return process(RESNET, *arguments)


def program(name: str, *arguments: object) -> Callable[[], object]:
    """A file in `programs`, as a process."""
    return process(sys.executable, PROGRAMS / f"{name}.py", *arguments)


def importing(module: str) -> Callable[[], object]:
    return process(sys.executable, "-c", f"import {module}")


def printed_numbers(name: str, *arguments: object) -> list[float]:
    """What a file in `programs` prints."""
    return [float(word) for word in completed((sys.executable, PROGRAMS / f"{name}.py", *arguments)).stdout.split()]


def peak_of(*command: object) -> int:
    """Peak memory in bytes of a command. Needs GNU time."""
    return int(completed(("/usr/bin/time", "-f", "%M", *command)).stderr.split()[-1]) * 1024


def completed(command: Iterable[object]) -> subprocess.CompletedProcess[str]:
    """What a command that succeeded printed. Raises: click.ClickException with what the last lines say of a failure."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True)
    except OSError as error:
        raise click.ClickException(f"{words[0]}: {error.strerror}") from error
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-15:])
        raise click.ClickException(f"{shlex.join(words)[:500]} ended with {done.returncode}:\n{said}")
    return done


def repeats(count: int) -> int:
    """`count`, or few of them where only to see that a row runs."""
    return min(count, QUICK_COUNT) if quick.get() else count
