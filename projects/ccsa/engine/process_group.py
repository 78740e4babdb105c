"""The place of a process in a job, and how the processes of a job connect to each other."""

import datetime
import re
from typing import NamedTuple

import torch
import torch.distributed
from detectron2.utils import comm

# The exit status of a process that ends because another one is gone (EX_TEMPFAIL of sysexits.h).
CONNECTION_LOST = 75

# How long a process waits for another one in a collective operation. One of them may evaluate alone
# for a long time.
_TIMEOUT = datetime.timedelta(hours=2)
# What gloo and NCCL say if a connection or its other end is gone. The type is only RuntimeError.
_LOST = re.compile(
    r"gloo[/\\]transport|remote process exited|broken pipe"
    r"|connection (?:was |was likely )?(?:closed|reset|refused)",
    re.IGNORECASE,
)


class Place(NamedTuple):
    """The place of a process in its job.

    Attributes:
        rank, world_size: among all processes of the job.
        local_rank, local_size: among those of this machine.
        address: ``tcp://HOST:PORT``, where the process of rank 0 can be reached.
    """

    rank: int
    local_rank: int
    world_size: int
    local_size: int
    address: str


def join_processes(place: Place, device: str) -> None:
    """Connect this process to the others of its job, and wait until all of them have done so.

    Args:
        place: of this process.
        device: the type of device that the job computes on: NCCL is used for ``cuda``, and gloo for
            others.
    """
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.set_device(place.local_rank)
    torch.distributed.init_process_group(
        backend="nccl" if on_gpu else "gloo",
        init_method=place.address,
        world_size=place.world_size,
        rank=place.rank,
        timeout=_TIMEOUT,
    )
    comm.create_local_process_group(place.local_size)
    comm.synchronize()


def leave_processes() -> None:
    """Wait until all processes of the job are done, and disconnect this one."""
    comm.synchronize()
    torch.distributed.destroy_process_group()


def connection_lost(error: BaseException) -> bool:
    """Return whether an error says that another process of the job cannot be reached.

    Example:
        >>> connection_lost(RuntimeError("[gloo/pair.cc:561] Connection closed by peer"))
        True
        >>> connection_lost(RuntimeError("size mismatch"))
        False
    """
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))
