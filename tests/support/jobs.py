"""Functions that run in the processes of a job, and what the tests see of these processes."""

import os
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader


def train_for_a_minute(folder: str) -> None:
    """Start a worker of a loader, write the id of this process to a file named after its rank, and
    meet the other processes ten times a second."""
    rank = torch.distributed.get_rank()
    loader = iter(DataLoader(list(range(10**6)), num_workers=1))
    next(loader)
    unfinished = Path(folder) / f"starting{rank}"
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(Path(folder) / f"rank{rank}")
    for _ in range(600):
        time.sleep(0.1)
        torch.distributed.barrier()


def wait_for_ranks(folder: Path, count: int, alive=lambda: True) -> list[int]:
    """Return the ids of the processes of :func:`train_for_a_minute` as soon as all have begun."""
    files = [folder / f"rank{rank}" for rank in range(count)]
    wait_for(lambda: all(file.exists() for file in files) or not alive())
    return [int(file.read_text()) for file in files]


def wait_for(condition, seconds: float = 90) -> None:
    """Wait until a condition holds."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"still waiting after {seconds} s"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Return the ids of the processes below a process."""
    parents = {int(task): _status(int(task))[1] for task in os.listdir("/proc") if task.isdigit()}
    found = [task for task, parent in parents.items() if parent == str(pid)]
    return found + [task for child in found for task in descendants(child)]


def running(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    return _status(pid)[0] not in ("", "Z")


def _status(pid: int) -> tuple[str, str]:
    """Return the state of a process and the id of its parent; empty if there is none."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return "", ""
    return state, parent
