"""The benchmark suite: each row is the ratio of the medians of two commands or functions that ran in turn.

A ratio below its target is good; times differ from machine to machine, ratios much less. Beside it stand the medians of
wall time and of CPU time, user and system, of which other processes take nothing away.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from scripts.benchmarks import images, inference, loading, training
from scripts.benchmarks.measure import Row, quick

ROWS = {
    "help": loading.help_rows,
    "t7": loading.t7_rows,
    "convert": loading.convert_rows,
    "transform": images.transform_rows,
    "augment": images.augment_rows,
    "photographs": images.photograph_rows,
    "classify": inference.classify_rows,
    "forward": inference.forward_rows,
    "timm": inference.timm_rows,
    "features": inference.feature_rows,
    "evaluate": inference.evaluate_rows,
    "memory": inference.memory_rows,
    "train": training.step_rows,
    "start": training.start_rows,
}


@click.command(help="Run the benchmarks NAMES (all by default) and print a table in Markdown.")
@click.argument("names", nargs=-1, type=click.Choice(list(ROWS)))
@click.option("--cores", type=click.IntRange(1), help="Use so many cores of the CPU (Linux); all by default.")
@click.option("--quick", "only_once", is_flag=True, help="Only see that each row runs: once, on small nets.")
def main(names: tuple[str, ...], cores: int | None, only_once: bool) -> None:
    quick.set(only_once)
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    click.echo("| benchmark | ratio | in CPU time | target | |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or ROWS:
            for found in ROWS[name](Path(folder)):
                click.echo(line(found))


def line(row: Row) -> str:
    missed = "" if row.ratio <= row.target or quick.get() else " **missed**"
    cpu = "" if row.cpu_ratio is None else f"{row.cpu_ratio:.3f}"
    return f"| {row.name} | {row.ratio:.3f} | {cpu} | {row.target:.2f}{missed} | {row.detail} |"


if __name__ == "__main__":
    main()
