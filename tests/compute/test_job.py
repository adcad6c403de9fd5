"""Environment variables of torchrun and of SLURM -> the place of a process, or what is missing, by name."""

from __future__ import annotations

import pytest

from resnet_tools.compute.job import Place, place_of, was_restarted
from resnet_tools.errors import ProcessError

SRUN = {
    "SLURM_JOB_ID": "31",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in SRUN.items() if name not in names}


def test_a_task_of_srun_has_its_place():
    # job 31, step 2: port 15000 + 31 * 101 + 2
    assert place_of(SRUN) == Place(5, 7, 1, 3, "tcp://gpu03:18133")


def test_what_torchrun_says_goes_before_slurm():
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert place_of(SRUN | torchrun | {"MASTER_ADDR": "h", "MASTER_PORT": "1"}) == Place(1, 2, 1, 2)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu[03-04]", "gpu03"),
        ("gpu[7,9-12],big1", "gpu7"),
        ("big1,gpu[7,9-12]", "big1"),
        ("a-[001-128]-ib", "a-001-ib"),
        ("rack[1-2]node[3-4]", "rack1node3"),
        ("n1,n2", "n1"),
        ("n1", "127.0.0.1"),
        ("gpu[03]", "127.0.0.1"),
    ],
)
def test_process_0_listens_on_the_first_machine_of_the_list(nodes, host):
    assert place_of(SRUN | {"SLURM_STEP_NODELIST": nodes}).address == f"tcp://{host}:18133"


def test_without_a_list_of_machines_the_one_of_srun_is_taken_and_the_users_address_goes_before_both():
    assert place_of(without("SLURM_STEP_NODELIST")).address == "tcp://10.0.0.1:18133"
    given = SRUN | {"MASTER_ADDR": "head", "MASTER_PORT": "4000"}
    assert place_of(given).address == "tcp://head:4000"


@pytest.mark.parametrize(("node", "tasks"), [("0", 4), ("1", 4), ("2", 3), ("3", 2), ("", 2)])
def test_the_tasks_of_each_machine_are_counted(node, tasks):
    given = SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"} | ({"SLURM_NODEID": node} if node else {})
    if not node:
        given = {name: value for name, value in given.items() if name != "SLURM_STEP_TASKS_PER_NODE"}
    assert place_of(given).local_count == tasks  # where nothing is known, local rank 1 means at least two


@pytest.mark.parametrize(
    "names",
    [
        ["SLURM_PROCID"],
        ["SLURM_LOCALID"],
        ["SLURM_NTASKS"],
        ["SLURM_LOCALID", "SLURM_NTASKS"],
    ],
)
def test_several_tasks_that_cannot_find_each_other_are_refused_by_name(names):
    with pytest.raises(ProcessError, match=f"several tasks of SLURM, but {', '.join(names)} is not set"):
        place_of(without(*names))


def test_a_task_without_any_address_is_refused():
    with pytest.raises(ProcessError, match="SLURM_STEP_NODELIST is not set"):
        place_of(without("SLURM_STEP_NODELIST", "SLURM_LAUNCH_NODE_IPADDR"))
    with pytest.raises(ProcessError, match="SLURM_LOCALID"):
        place_of({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLURM_PROCID", "x"), ("SLURM_NTASKS", "-2"), ("SLURM_LOCALID", ""), ("SLURM_PROCID", "7"), ("MASTER_PORT", "²")],
)
def test_a_number_that_is_none_is_named(name, value):
    with pytest.raises(ProcessError, match=name):
        place_of(SRUN | {name: value})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"},  # a shell of salloc
        {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_NODELIST": "n1"},  # a batch script
        SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun -n1 in a job of several tasks
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"},
    ],
)
def test_one_process_is_alone(variables):
    assert place_of(variables) is None


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("0", False), ("1", True), ("12", True), ("x", False)])
def test_a_restart_by_torchrun_is_known(value, expected):
    assert was_restarted({} if value is None else {"TORCHELASTIC_RESTART_COUNT": value}) is expected
