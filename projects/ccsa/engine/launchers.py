"""Launchers that start all processes of a job: torchrun, Slurm, and others that set the same
variables. Each process learns its place in the job from its environment."""

import argparse
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ccsa.engine.heartbeat import Place
from ccsa.errors import UserError, shown

_TORCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NO_ID = ("", "none")  # what torchrun uses without --rdzv-id
_FIRST_PORT, _PORTS = 15000, 17000  # for Slurm: below the ports that systems give to connections


class Launcher(NamedTuple):
    """What a launcher says about the process that it has started.

    Attributes:
        name: ``torchrun`` or ``Slurm``.
        run_id: the same for all processes of a job, also after the launcher has restarted them.
        place: of this process.
    """

    name: str
    run_id: str
    place: Place


def launcher(environment: Mapping[str, str] = os.environ) -> Launcher | None:
    """Return what the launcher of this process says, or None if there is none.

    Slurm counts if ``srun`` has started several tasks; torchrun counts with one process as well.

    Raises:
        UserError: a variable is missing or wrong, or the processes are not numbered by machine.

    Example:
        >>> variables = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        >>> variables |= {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
        >>> launcher({**variables, "TORCHELASTIC_RUN_ID": "mine"}).run_id
        'mine'
        >>> launcher({}) is None
        True
    """
    if "TORCHELASTIC_RUN_ID" in environment or all(name in environment for name in _TORCH):
        return _torchrun(environment)
    if _count(environment, "SLURM_STEP_NUM_TASKS", 0) > 1:
        return _slurm(environment)
    return None


def apply_launcher(found: Launcher, args: argparse.Namespace) -> None:
    """Set the options of a command line that say which processes there are.

    Args:
        found: the launcher.
        args: of ``tools/train_net.py``; ``num_gpus``, ``num_machines``, ``machine_rank``,
            ``dist_url`` and ``launcher``, text for messages, are set.

    Raises:
        UserError: an option would start further processes.
    """
    if args.num_gpus != 1 or args.num_machines != 1 or args.machine_rank != 0:
        raise UserError(
            f"{found.name} has started {found.place.world_size} processes already; leave out "
            "--num-gpus, --num-machines and --machine-rank"
        )
    place = found.place
    args.launcher = f"{found.name} with {place.local_size} processes on a machine"
    args.num_gpus, args.num_machines = place.local_size, place.world_size // place.local_size
    args.machine_rank, args.dist_url = place.rank // place.local_size, place.address


def _torchrun(environment: Mapping[str, str]) -> Launcher:
    missing = [name for name in _TORCH if not environment.get(name)]
    if missing:
        raise UserError(
            f"the environment looks like that of torchrun, but {', '.join(missing)} is not set; "
            "start the command with torchrun, or unset TORCHELASTIC_RUN_ID"
        )
    rank, local_rank, world_size, local_size = (_count(environment, name) for name in _TORCH[:4])
    host, port = environment["MASTER_ADDR"], _count(environment, "MASTER_PORT")
    # With the default rendezvous, rank 0 hosts the store unless the agent of torchrun does.
    served = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    place = Place(rank, local_rank, world_size, local_size, _url(host, port), served)
    _check_place(place, "torchrun", "start the same number of processes on each machine")
    run_id = environment.get("TORCHELASTIC_RUN_ID", "")
    return Launcher("torchrun", _agent() if run_id in _NO_ID else run_id, place)


def _agent() -> str:
    """Return a name of the process that has started this one, which restarts keep."""
    parent = os.getppid()
    try:  # the number may be used again, but not with the same time of start
        started = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        started = ""
    return f"{socket.gethostname()}-{parent}-{started}"


def _slurm(environment: Mapping[str, str]) -> Launcher:
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_NODEID")
    rank, local_rank, world_size, node = (_count(environment, name) for name in names)
    job, step = _count(environment, "SLURM_JOB_ID"), _count(environment, "SLURM_STEP_ID", 0)
    sizes = set(re.findall(r"(\d+)(?:\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")))
    sizes = {re.sub(r"\(.*", "", size) for size in sizes}
    layout = "use srun --ntasks-per-node N --distribution block"
    if len(sizes) != 1:
        raise UserError(
            "srun has started different numbers of tasks on the nodes "
            f"(SLURM_STEP_TASKS_PER_NODE {shown(environment.get('SLURM_STEP_TASKS_PER_NODE'))}); "
            f"{layout}"
        )
    local_size = int(sizes.pop())
    host = environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", ""))
    port = _count(environment, "MASTER_PORT", _FIRST_PORT + (31 * job + step) % _PORTS)
    place = Place(rank, local_rank, world_size, local_size, _url(host, port))
    _check_place(place, "srun", layout)
    if rank // local_size != node:
        raise UserError(f"srun has not numbered the tasks by node; {layout}")
    return Launcher("Slurm", str(job), place)


def first_host(nodes: str) -> str:
    """Return the first host of a list of Slurm.

    Raises:
        UserError: it is empty.

    Example:
        >>> first_host("gpu[007-009,012],cpu1"), first_host("login-1,gpu2")
        ('gpu007', 'login-1')
    """
    found = re.match(r"([^,\[\s]+)(?:\[([^\]\-,]+)[^\]]*\]([^,\[\s]*))?", nodes)
    if found is None:
        raise UserError("SLURM_STEP_NODELIST is empty; set MASTER_ADDR to the host of rank 0")
    return "".join(part or "" for part in found.groups())


def _check_place(place: Place, name: str, fix: str) -> None:
    if not (
        0 <= place.rank < place.world_size
        and 0 <= place.local_rank < place.local_size
        and place.world_size % place.local_size == 0
        and place.rank % place.local_size == place.local_rank
    ):
        raise UserError(
            f"{name} has numbered the processes in a way that is not supported (rank {place.rank} "
            f"of {place.world_size}, local rank {place.local_rank} of {place.local_size}); {fix}"
        )


def _count(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Return the value of a variable that is a number.

    Raises:
        UserError: it is not one, or it is missing and there is no default.
    """
    text = environment.get(name, "")
    if not text and default is not None:
        return default
    if not re.fullmatch(r"\d{1,12}", text):
        raise UserError(
            f"the environment variable {name} must be a number, not {shown(text)}; start the "
            "command with torchrun or srun, which set it"
        )
    return int(text)


def _url(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
