"""What torchrun and Slurm say about a process."""

import argparse

import pytest
from support.refusals import message

from ccsa.engine.heartbeat import Place
from ccsa.engine.launchers import apply_launcher, first_host, launcher

TORCHRUN = {
    **{"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
    **{"MASTER_ADDR": "node1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "mine"},
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SLURM = {
    **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8"},
    **{"SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_ID": "4711"},
    **{"SLURM_STEP_ID": "2", "SLURM_STEP_NODELIST": "gpu[07-08]"},
}


def test_torchrun():
    found = launcher(TORCHRUN)
    assert found == ("torchrun", "mine", Place(5, 1, 8, 4, "tcp://node1:29500", served=True))
    own_store = launcher({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "False"})
    assert not own_store.place.served
    assert launcher({**TORCHRUN, "MASTER_ADDR": "fe80::1"}).place.address == "tcp://[fe80::1]:29500"


def test_runs_of_torchrun_without_an_id_are_told_apart():
    """By the process that has started them; all ranks on a machine, and restarts, have the same."""
    without = {**TORCHRUN, "TORCHELASTIC_RUN_ID": "none"}
    found = launcher(without).run_id
    assert found == launcher({**without, "RANK": "4", "LOCAL_RANK": "0"}).run_id
    assert found not in ("", "none")


def test_slurm():
    found = launcher(SLURM)
    address = f"tcp://gpu07:{15000 + (31 * 4711 + 2) % 17000}"
    assert found == ("Slurm", "4711", Place(5, 1, 8, 4, address))
    given = launcher({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"})
    assert given.place.address == "tcp://10.0.0.1:1234"
    assert launcher({**SLURM, **TORCHRUN}).name == "torchrun"  # srun starts one per machine


def test_other_processes_have_no_launcher():
    assert launcher({}) is None
    # The script of sbatch, which may start one process on a part of the tasks.
    assert launcher({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}) is None
    assert launcher({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert launcher({"RANK": "1", "WORLD_SIZE": "2"}) is None  # of something else


@pytest.mark.parametrize(
    ("base", "changes", "part"),
    [
        (TORCHRUN, {"MASTER_PORT": ""}, "MASTER_PORT is not set"),
        (TORCHRUN, {"RANK": "first"}, "RANK must be a number, not 'first'"),
        (TORCHRUN, {"RANK": "8"}, "rank 8 of 8"),
        (TORCHRUN, {"LOCAL_RANK": "2"}, "local rank 2 of 4"),
        (TORCHRUN, {"WORLD_SIZE": "6"}, "the same number of processes on each machine"),
        (SLURM, {"SLURM_STEP_TASKS_PER_NODE": "4,2(x2)"}, "--ntasks-per-node"),
        (SLURM, {"SLURM_STEP_TASKS_PER_NODE": ""}, "--ntasks-per-node"),
        (SLURM, {"SLURM_NODEID": "0"}, "--distribution block"),
        (SLURM, {"SLURM_JOB_ID": ""}, "SLURM_JOB_ID must be a number"),
        (SLURM, {"SLURM_STEP_NODELIST": ""}, "set MASTER_ADDR"),
    ],
)
def test_variables_that_do_not_fit_are_refused(base, changes, part):
    assert part in message(launcher, {**base, **changes})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu[1,3]", "gpu1"),
        ("gpu[007-009]", "gpu007"),
        ("rack[2-3]-a", "rack2-a"),
        ("a.example,b[1-2]", "a.example"),
        ("node-1,x", "node-1"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


def arguments(**changes):
    values = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return argparse.Namespace(**{**values, **changes})


def test_the_launcher_sets_the_options():
    args = arguments()
    apply_launcher(launcher(TORCHRUN), args)
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (4, 2, 1)
    assert args.dist_url == "tcp://node1:29500"
    for changes in ({"num_gpus": 2}, {"num_machines": 2}, {"machine_rank": 1}):
        text = message(apply_launcher, launcher(TORCHRUN), arguments(**changes))
        assert "torchrun has started 8 processes already; leave out --num-gpus" in text
