"""The benchmark suite: each row is the ratio of the medians of two commands or functions that ran in turn.

A ratio below its target is good; times differ from machine to machine, ratios much less. Beside it stand the medians of
wall time and of CPU time, user and system, of which other processes take nothing away.
"""

from __future__ import annotations

import math
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import click

from resnet_tools.compute.cpus import own_affinity
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


@click.command(help=f"Run these benchmarks, or all, and print a table in Markdown.\n\nNAME: {', '.join(ROWS)}.")
@click.argument("names", nargs=-1, type=click.Choice(list(ROWS)), metavar="[NAME]...")
@click.option("--cpus", type=click.IntRange(1), help="Use so many of the CPUs (Linux); all by default.")
@click.option("--quick", "only_once", is_flag=True, help="Only see that each row runs: once, on small nets.")
def main(names: tuple[str, ...], cpus: int | None, only_once: bool) -> None:
    quick.set(only_once)
    if cpus:
        use_only(cpus)
    click.echo(
        f"{platform.processor() or platform.machine()}, {own_affinity()} CPUs, Python {platform.python_version()}"
    )
    click.echo(f"torch {version('torch')}, onnxruntime {version('onnxruntime')}, openvino {version('openvino')}\n")
    click.echo("| benchmark | ratio | in CPU time | target | |\n|---|---|---|---|---|")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names or ROWS:
            try:
                for found in ROWS[name](Path(folder)):
                    click.echo(line(found))
            except click.ClickException as error:  # the other rows are worth having
                failed.append(name)
                error.show()
    if failed:
        raise click.ClickException(f"these could not be measured whole: {', '.join(failed)}")


def use_only(cpus: int) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise click.UsageError("--cpus: this system cannot keep a process on some CPUs")
    available = sorted(os.sched_getaffinity(0))
    if cpus > len(available):
        raise click.UsageError(f"--cpus {cpus}: there are {len(available)}")
    os.sched_setaffinity(0, available[:cpus])


def line(row: Row) -> str:
    cpu = "" if row.cpu_ratio is None else f"{row.cpu_ratio:.3f}"
    target = "" if row.target == math.inf else f"{row.target:.2f}{' of CPU' * row.of_cpu}"
    missed = " **missed**" if row.missed and not quick.get() else ""
    return f"| {row.name} | {row.ratio:.3f} | {cpu} | {target}{missed} | {row.detail} |"


if __name__ == "__main__":
    main()
