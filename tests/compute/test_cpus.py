"""The cores that a process may use, from its mask and the files of its cgroups."""

from __future__ import annotations

import os

import pytest

from resnet_tools.compute.cpus import usable_cpus, workers_for


def machine(root, files: dict[str, str]):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "0::/user/job\n"
V1 = "11:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/\n"
CASES = {
    "no cgroup at all": ({}, 64),
    "a limit of cgroup v2": ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": "400000 100000\n"}, 4),
    "no limit of cgroup v2": ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": "max 100000\n"}, 64),
    "a limit further up": (
        {
            "proc/self/cgroup": V2,
            "sys/fs/cgroup/user/job/cpu.max": "800000 100000\n",
            "sys/fs/cgroup/user/cpu.max": "300000 100000\n",
        },
        3,
    ),
    "a container that sees its own group as the topmost": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"},
        2,
    ),
    "less than a core": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "a limit of cgroup v1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "600000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
        },
        6,
    ),
    "a container of cgroup v1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
        },
        3,
    ),
    "no limit of cgroup v1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        64,
    ),
    "v1 beside v2": (
        {"proc/self/cgroup": "1:cpu:/a\n0::/b\n", "sys/fs/cgroup/unified/b/cpu.max": "500000 100000"},
        5,
    ),
    "more than the mask": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 64),
    "no numbers": ({"proc/self/cgroup": "0::/\n?\n", "sys/fs/cgroup/cpu.max": "0 0\n"}, 64),
}


@pytest.mark.parametrize(("files", "expected"), CASES.values(), ids=CASES)
def test_the_cores_that_a_process_may_use(tmp_path, files, expected):
    assert usable_cpus(64, machine(tmp_path, files)) == expected


def test_the_mask_of_this_process_counts():
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("cpus", "processes", "workers"), [(1, 1, 1), (8, 1, 8), (64, 1, 16), (64, 8, 8), (30, 4, 7), (2, 4, 1), (8, 0, 8)]
)
def test_processes_share_the_cores(cpus, processes, workers):
    assert workers_for(cpus, processes) == workers
