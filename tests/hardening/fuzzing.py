"""Targets and mutated inputs -> findings: what is neither a value nor an error of ours in bounds of time and memory.

Inputs run in forked children under a limit of memory, many in each; the number of the input at work lies in memory that
the parent shares, so that a child that dies or hangs says which input did it. Input n of a seed is always the same.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import astuple, dataclass, field
from functools import cache, partial
from pathlib import Path

from resnet_tools.errors import ResnetToolsError
from tests.hardening.mutations import Mutation, mutated

SECONDS_AN_INPUT = 2
MEMORY_BYTES = (
    600 << 20
)  # beyond what a child begins with: a small multiple of the largest input and of one decoded image
TOGETHER = 500  # inputs of one child
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # a disk takes longer than most parsers


@dataclass(frozen=True)
class Target:
    """`run` gets the path of an input in an empty folder; it may raise ResnetToolsError, and nothing else.

    `modules`: the files whose branches are counted for it. `name`: what the input is called there.
    """

    run: Callable[[Path], object]
    seeds: Callable[[], Sequence[bytes]]
    name: str
    modules: tuple[str, ...]
    mutations: tuple[Mutation, ...] = ()


@dataclass(frozen=True)
class Finding:
    number: int
    what: str  # the last line of a traceback, a signal, a time
    detail: str = field(default="", compare=False)


class _TooLong(BaseException):
    pass


@cache
def seeds_of(target: Target) -> Sequence[bytes]:
    """Its good files, made once: making them may take longer than a thousand inputs."""
    return target.seeds()


def input_bytes(target: Target, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    return mutated(seeds, random.Random(f"{seed} {number}"), target.mutations)


def fuzz(target: Target, seed: int, first: int, count: int) -> list[Finding]:
    """Run inputs `first` to `first + count - 1`; what was found."""
    seeds = seeds_of(target)
    gc.collect()
    findings: list[Finding] = []
    end, at = first + count, first
    with mmap.mmap(-1, 8) as shared, tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        while at < end:
            stop = min(end, at + TOGETHER)
            work = partial(_run_all, target, seeds, seed, at, stop, Path(folder), shared)
            status, written = _in_a_child(work, shared, folder)
            findings += written
            if status == 0:
                at = stop
                continue
            [at] = struct.unpack("q", shared[:8])
            findings.append(Finding(at, _death(status)))
            at += 1
    return findings


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"the process ended with exit code {os.WEXITSTATUS(status)}"


def _in_a_child(work: Callable[[], list[Finding]], shared: mmap.mmap, folder: str) -> tuple[int, list[Finding]]:
    """The status of a forked child that does the work, and its findings; one that makes no progress is killed."""
    report = Path(folder).parent / f"{Path(folder).name}.findings"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            faulthandler.disable()
            report.write_text(json.dumps([astuple(found) for found in work()]))
            code = 0
        finally:
            os._exit(code)
    at, since = shared[:8], time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if shared[:8] != at:
            at, since = shared[:8], time.monotonic()
        if time.monotonic() - since > 15 * SECONDS_AN_INPUT:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    found = []
    if status == 0:
        found = [Finding(*values) for values in json.loads(report.read_text())]
        report.unlink()
    return status, found


def _run_all(
    target: Target, seeds: Sequence[bytes], seed: int, first: int, end: int, folder: Path, shared: mmap.mmap
) -> list[Finding]:
    with Path("/proc/self/statm").open() as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _alarm)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C write there
    findings = []
    for number in range(first, end):
        shared[:8] = struct.pack("q", number)
        found = run_one(target, input_bytes(target, seeds, seed, number), folder / f"{number}")
        if found is not None:
            findings.append(Finding(number, *found))
    return findings


def _alarm(*_: object) -> None:
    raise _TooLong


def run_one(target: Target, data: bytes, folder: Path) -> tuple[str, str] | None:
    """What is wrong with the way one input is treated, and where; None if nothing is."""
    folder.mkdir()
    path = folder / target.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    resource_seconds = time.process_time()
    try:
        # CPU time is what counts on a machine that others use too; the clock only ends what would wait for ever.
        signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS_AN_INPUT)
        with _quiet():
            target.run(path)
    except ResnetToolsError as error:
        if not str(error).strip():
            return "an error without a text", ""
    except _TooLong:
        return f"takes more than {10 * SECONDS_AN_INPUT} s", traceback.format_exc()
    except MemoryError:
        return f"takes more than {MEMORY_BYTES >> 20} MiB", traceback.format_exc()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _remove(folder)
    seconds = time.process_time() - resource_seconds
    return (f"takes {seconds:.1f} s of a core", "") if seconds > SECONDS_AN_INPUT else None


@contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings(), open(os.devnull, "w") as null, redirect_stdout(null), redirect_stderr(null):
        warnings.simplefilter("ignore")
        yield


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def branches_reached(target: Target, seed: int, count: int) -> dict[str, str]:
    """Of each file of the target: the branches that `count` inputs took, as `taken/all`."""
    import coverage

    seeds = seeds_of(target)
    package = Path(sys.modules["resnet_tools"].__file__ or "").parent
    files = {str(package / name): name for name in target.modules}
    measured = coverage.Coverage(branch=True, include=list(files), data_file=None, messages=False)
    with tempfile.TemporaryDirectory() as folder:
        measured.start()
        try:
            for number in range(count):
                run_one(target, input_bytes(target, seeds, seed, number), Path(folder) / f"{number}")
        finally:
            measured.stop()
        report = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(report))
        totals = json.loads(report.read_text())["files"]
    return {
        files[os.path.abspath(file)]: f"{found['summary']['covered_branches']}/{found['summary']['num_branches']}"
        for file, found in totals.items()
    }
