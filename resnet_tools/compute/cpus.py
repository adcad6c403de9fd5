"""How many cores this process may use: fewer than the machine has in a container, under SLURM or with taskset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

WORKERS_AT_MOST = 16
CPU_WORKERS = 2  # where the net runs on the CPU too


def usable_cpus(affinity: int | None = None, root: Path = Path("/")) -> int:
    """The cores in the affinity mask, or fewer if a cgroup limits the time on them; at least 1.

    affinity: the size of the mask, by default that of this process. root: where /proc and /sys are.
    """
    allowed = float(own_affinity() if affinity is None else affinity)
    return max(1, int(min([allowed, *_quotas(root)])))


def workers_for(cpus: int, local_processes: int = 1) -> int:
    """Data-loading workers for each of the processes that share these cores."""
    return min(WORKERS_AT_MOST, max(1, cpus // max(1, local_processes)))


def own_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """The limits of the cgroup of this process and of all above it, in cores.

    A container often sees its own group at the top, although the path is its host's: missing folders are skipped.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        own = path.strip("/").split("/")
        if controllers == "":
            folders, read = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            folders, read = (f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"), _quota_v1
        else:
            continue
        for folder in folders:
            for depth in range(len(own) + 1):
                yield read(root.joinpath(folder, *own[:depth]))


def _quota_v2(folder: Path) -> float:
    quota, period = (*_text(folder / "cpu.max").split(), "", "")[:2]
    return _cores(quota, period)


def _quota_v1(folder: Path) -> float:
    return _cores(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _cores(quota: str, period: str) -> float:
    """Microseconds of work in each period; `max` and -1 are no limit."""
    limited = quota.isdecimal() and period.isdecimal() and int(period) > 0 and int(quota) > 0
    return int(quota) / int(period) if limited else float("inf")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
