"""Long runs: `scripts/harden fuzz --minutes 10 t7 pt`, all targets if none is named; see README.md."""

from __future__ import annotations

import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click

from tests.hardening.fuzzing import TOGETHER, Finding, branches_reached, fuzz, input_bytes, seeds_of
from tests.hardening.targets import TARGETS

MEASURED = 400  # inputs whose branches are counted


@click.group()
def main() -> None:
    """Looks for inputs that the parsers do not survive."""


@main.command("fuzz")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="For all targets."
)
@click.option("--seed", type=int, help="Of the inputs.  [default: another each time, printed]")
@click.option("--findings", type=click.Path(path_type=Path), default=Path("findings"), show_default=True)
@click.argument("targets", nargs=-1, type=click.Choice(list(TARGETS)))
def fuzz_command(minutes: float, seed: int | None, findings: Path, targets: tuple[str, ...]) -> int:
    """Run mutated inputs of each target; write each finding as a file, with the command that repeats it."""
    seed = random.randrange(1 << 30) if seed is None else seed
    click.echo(f"seed {seed}")
    total = 0
    names = targets or tuple(TARGETS)
    for name in names:
        seeds_of(TARGETS[name])  # before the pool is forked, which then has them
        started, runs, found = time.monotonic(), 0, set()
        with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as pool:
            while (seconds := time.monotonic() - started) < 60 * minutes / len(names):
                parts = [(name, seed, runs + k * TOGETHER, TOGETHER) for k in range(os.cpu_count() or 1)]
                found |= {finding for part in pool.map(_part, parts) for finding in part}
                runs += TOGETHER * len(parts)
        kinds = {finding.what: finding for finding in sorted(found, key=lambda finding: -finding.number)}
        for finding in kinds.values():
            _write(name, seed, finding, findings)
        reached = ", ".join(
            f"{file} {share}" for file, share in branches_reached(TARGETS[name], seed, MEASURED).items()
        )
        click.echo(
            f"{name}: {runs:,} inputs, {runs / seconds:.0f}/s, {len(kinds)} kinds of findings; branches: {reached}"
        )
        total += len(kinds)
    return min(1, total)


def _part(part: tuple[str, int, int, int]) -> list[Finding]:
    name, seed, first, count = part
    return fuzz(TARGETS[name], seed, first, count)


def _write(name: str, seed: int, finding: Finding, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name]
    path = folder / f"{name}-{seed}-{finding.number}-{Path(target.name).name}"
    path.write_bytes(input_bytes(target, seeds_of(target), seed, finding.number))
    click.echo(f"  {finding.what}\n    {path}\n    python -m tests.hardening repeat {name} {path}")


@main.command("repeat")
@click.argument("target", type=click.Choice(list(TARGETS)))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def repeat_command(target: str, file: Path) -> None:
    """Run one input again, with the traceback."""
    import tempfile

    wanted = TARGETS[target]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / wanted.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read_bytes())
        click.echo(f"it gives {wanted.run(path)!r:.500}")


@main.command("breaks")
def breaks_command() -> int:
    """Put each fault of a list into a copy of the code and see that a test fails for it."""
    from tests.hardening.breaks import BREAKS, failures

    unnoticed = 0
    for broken in BREAKS:
        failed = failures(broken)
        unnoticed += not failed
        click.echo(f"{broken.what}: {', '.join(failed) or 'NOT noticed'}")
    return min(1, unnoticed)


@main.command("points")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
def points_command(jobs: tuple[str, ...]) -> int:
    """Stop commands at every point where they change the disk, fill the disk there, fail the power there."""
    import tempfile

    from tests.hardening.jobs import JOBS, make_data, try_all

    if unknown := set(jobs) - set(JOBS):
        raise click.UsageError(f"no such job: {', '.join(unknown)}; there are {', '.join(JOBS)}")
    problems = 0
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        data.mkdir()
        make_data(data)
        for job in jobs or JOBS:
            tried = try_all(JOBS[job], data)
            problems += len(tried.problems)
            click.echo("\n  ".join([f"{job}: {tried}", *tried.problems]))
    return min(1, problems)


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
