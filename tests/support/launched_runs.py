"""Short runs in two processes, which launchers or forks start and which can be killed."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import train_net

from ccsa.data.synthetic.moving_cue import write_moving_cue
from ccsa.engine.local_processes import free_port
from support import killed_at
from support.forked import Forked, call, fork

SCHEDULE = (
    *("SOLVER.MAX_ITER", "11", "SOLVER.STEPS", "(7,)", "SOLVER.WARMUP_ITERS", "3"),
    *("SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "6", "SOLVER.IMS_PER_BATCH", "4"),
    *("MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "0.001", "DATALOADER.NUM_WORKERS", "0"),
)


def write_clips(datasets: Path) -> None:
    """Write a small dataset of clips into the folder of all datasets."""
    write_moving_cue(datasets / "moving_cue", {"train": 7, "val": 3})


def words(root: Path, output: Path, *options: object) -> list[str]:
    """Return the command line of a run that the environment variable KILL_AT can interrupt."""
    config = ("--config-file", root / "configs/moving_cue/T5.yaml", "--import", killed_at.__file__)
    return [*map(str, (*config, *SCHEDULE, *options, "OUTPUT_DIR", output))]


def torchrun(root: Path, options: tuple, call: list[str]) -> list[str]:
    """Return the command line by which torchrun starts a run."""
    program = str(root / "tools/train_net.py")
    return [sys.executable, "-m", "torch.distributed.run", *options, program, *call]


def start_ranks(
    call_words: list[str],
    log: Path,
    variables: Mapping[str, str],
    *,
    machines: int = 1,
    enter: Callable[[int], object] = lambda rank: None,
) -> list[Forked]:
    """Start two processes as torchrun or srun does, but by forks, which need no imports.

    Args:
        call_words: the command line of the run.
        log: the file for what they print; with two machines, that of rank 1 ends in ``.1``.
        variables: of the environment, among them ``TORCHELASTIC_RUN_ID`` or ``SLURM_JOB_ID``.
        machines: 1 or 2.
        enter: is called first in each process.
    """
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **variables}
    of_rank = slurm_variables if "SLURM_JOB_ID" in variables else torch_variables

    def run(rank: int) -> None:
        os.environ.update({**common, **of_rank(rank, machines)})
        enter(rank)
        call(train_net, call_words)

    logs = [log, log if machines == 1 else log.with_suffix(".1")]
    return [fork(lambda rank=rank: run(rank), logs[rank]) for rank in range(2)]


def torch_variables(rank: int, machines: int) -> dict[str, str]:
    """Return what torchrun tells a process about its place, of two on one or two machines."""
    local_rank, local_size = (str(rank), "2") if machines == 1 else ("0", "1")
    ranks = {"RANK": str(rank), "LOCAL_RANK": local_rank}
    return {**ranks, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": local_size}


def slurm_variables(rank: int, machines: int) -> dict[str, str]:
    """Return what srun tells a process about its place, of two on one machine."""
    assert machines == 1
    ranks = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
    return {**ranks, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}


def started(command: list[str], log: Path, **variables: str) -> subprocess.Popen:
    """Start a command; append what it prints to a file."""
    with log.open("a") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
