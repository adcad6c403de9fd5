"""Environment variables -> the place of this process among those that torchrun, `--n-gpu` or SLURM's srun started.

Plain functions over a mapping of variables; nothing here waits, connects or loads torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from resnet_tools.errors import ProcessError

RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun and our launcher set
STEP = "SLURM_STEP_"  # srun sets variables of this prefix; the batch script, which is one process, has none
FIRST_PORT, PORTS = 15_000, 17_000  # below 32768, from where Linux assigns ports itself
RANGE = re.compile(r"\[([0-9]+)[^]]*\]")


@dataclass(frozen=True)
class Place:
    """Rank and number of processes, in all and on this machine, and where process 0 listens.

    address: of process 0, or None if torch is to read RENDEZVOUS itself, as torchrun wants it.
    """

    rank: int
    count: int
    local_rank: int = 0
    local_count: int = 1
    address: str | None = None


def place_of(variables: Mapping[str, str]) -> Place | None:
    """The place of this process, or None if it is alone.

    Raises: ProcessError if it is one of several tasks of SLURM that cannot find each other: each of them would train
    alone and write into the same folder.
    """
    if all(name in variables for name in RENDEZVOUS):
        return _torchrun_place(variables)
    return _slurm_place(variables)


def was_restarted(variables: Mapping[str, str]) -> bool:
    """Whether `torchrun --max-restarts` restarted this process after one of the job had failed."""
    count = variables.get("TORCHELASTIC_RESTART_COUNT", "0")
    return count.isdecimal() and int(count) > 0


def _torchrun_place(variables: Mapping[str, str]) -> Place | None:
    count = _number(variables, "WORLD_SIZE")
    if count == 1:
        return None
    local_rank = _number(variables, "LOCAL_RANK", 0)
    return Place(_number(variables, "RANK"), count, local_rank, _number(variables, "LOCAL_WORLD_SIZE", local_rank + 1))


def _slurm_place(variables: Mapping[str, str]) -> Place | None:
    """Source: the section OUTPUT ENVIRONMENT VARIABLES of srun's manual page."""
    in_step = any(name.startswith(STEP) for name in variables) or "SLURM_LAUNCH_NODE_IPADDR" in variables
    if not in_step and variables.get("SLURM_PROCID", "0") == "0":
        return None  # not under SLURM, or the batch script itself: one process, however many tasks the job may have
    count = _number(variables, f"{STEP}NUM_TASKS", _number(variables, "SLURM_NTASKS", 0))
    if count == 1:
        return None
    missing = [name for name in ("SLURM_PROCID", "SLURM_LOCALID") if name not in variables]
    missing += [] if count else ["SLURM_NTASKS"]
    nodes = variables.get(f"{STEP}NODELIST") or variables.get("SLURM_JOB_NODELIST", "")
    host = variables.get("MASTER_ADDR") or _first_host(nodes) or variables.get("SLURM_LAUNCH_NODE_IPADDR", "")
    missing += [] if host else [f"{STEP}NODELIST"]
    if missing:
        raise ProcessError(
            f"this is one of several tasks of SLURM, but {', '.join(missing)} is not set, so they cannot find each "
            "other and each would train alone. Start them with srun or torchrun, or start one task only"
        )
    rank, local_rank = _number(variables, "SLURM_PROCID"), _number(variables, "SLURM_LOCALID")
    if rank >= count:
        raise ProcessError(f"SLURM_PROCID is {rank} of SLURM_NTASKS {count} tasks; start them with srun, or torchrun")
    return Place(rank, count, local_rank, _local_tasks(variables, local_rank), f"tcp://{host}:{_port(variables)}")


def _first_host(nodes: str) -> str:
    """The first of SLURM's list `gpu[01-03,07],big2`, where task 0 runs; this machine if there is no other."""
    whole = re.match(r"(?:[^,\[]|\[[^]]*\])*", nodes)
    first = whole.group() if whole else ""
    if first and first == nodes and not re.search(r"\[[^]]*[-,]", nodes):
        return "127.0.0.1"
    return RANGE.sub(r"\1", first)


def _port(variables: Mapping[str, str]) -> int:
    """Equal in all tasks of a step, and usually different between steps that may share a machine."""
    if "MASTER_PORT" in variables:
        return _number(variables, "MASTER_PORT")
    job, step = _number(variables, "SLURM_JOB_ID", 0), _number(variables, f"{STEP}ID", 0)
    return FIRST_PORT + (job * 101 + step) % PORTS


def _local_tasks(variables: Mapping[str, str], local_rank: int) -> int:
    """The number of tasks on this machine, from a list per machine such as `4(x2),3`."""
    numbers: list[int] = []
    for tasks, times in re.findall(r"([0-9]+)(?:\(x([0-9]+)\))?", variables.get(f"{STEP}TASKS_PER_NODE", "")):
        numbers += [int(tasks)] * min(int(times or 1), 1 << 16)
    node = _number(variables, "SLURM_NODEID", 0)
    return max(local_rank + 1, numbers[node] if node < len(numbers) else 0)


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = variables.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ProcessError(f"the environment variable {name} is {text!r}; expected a number from 0")
    return int(text)
