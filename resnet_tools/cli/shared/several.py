"""A command in several processes of this machine, a GPU each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from resnet_tools.compute.job import place_of
from resnet_tools.errors import ResnetToolsError

F = TypeVar("F", bound=Callable[..., Any])


def n_gpu_option(function: F) -> F:
    """`--n-gpu N`, given to the command as `n_gpu`, for `in_processes`."""
    option = click.option(
        "--n-gpu",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Number of GPUs on this machine to use, one process each.",
    )
    return option(function)


def in_processes(count: int, device: str) -> int | None:
    """Run this command in `count` processes, a GPU each, or on the CPU if that was asked for; their exit code.

    None if this process is to do the work itself: alone, or as one of several that were started already.
    Raises: ResnetToolsError if there are fewer GPUs; click.UsageError in a job of another number of processes.
    """
    if count == 1 or _in_job(count):
        return None
    from resnet_tools.compute.device import gpu_count
    from resnet_tools.compute.launcher import run_processes

    found = gpu_count()
    if device != "cpu" and found < count:
        raise ResnetToolsError(f"--n-gpu {count}: this machine has {found}; give fewer, or --device cpu")
    return run_processes([sys.executable, "-m", "resnet_tools", *sys.argv[1:]], count)


def _in_job(n_gpu: int) -> bool:
    """Whether this process is one of several of a job already. Raises: click.UsageError if `n_gpu` is another number.

    torchrun with a single process is no job to us, but one in which no other processes can be started.
    """
    place = place_of(os.environ)
    if place is None and "LOCAL_RANK" not in os.environ:
        return False
    here = place.local_count if place else 1
    if here != n_gpu:
        raise click.UsageError(
            f"--n-gpu {n_gpu}: this is one of {here} processes that torchrun or srun started on this machine; leave "
            f"--n-gpu out and have it start {n_gpu}"
        )
    return True
