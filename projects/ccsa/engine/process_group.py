"""How the processes of a job connect to each other."""

import contextlib
import datetime
import re
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed
from detectron2.utils import comm
from torch.distributed import PrefixStore

from ccsa.engine.heartbeat import CONNECTION_LOST, Heartbeat, Place, patience
from ccsa.engine.meeting import choose_interface, meet, open_store
from ccsa.engine.stop_signals import RunStopped
from ccsa.errors import UserError, reports_user_errors

_LINGERING = 2.0  # seconds
# How long a process waits for another one in a collective operation. The others may wait for one
# that evaluates, for a long time.
_TIMEOUT = datetime.timedelta(hours=2)
# What gloo and NCCL say if a connection or its other end is gone. The type is only RuntimeError.
_LOST = re.compile(
    r"gloo[/\\]transport|remote process exited|broken pipe"
    r"|connection (?:was |was likely )?(?:closed|reset|refused)",
    re.IGNORECASE,
)


def run_in_job(
    function: Callable[..., None], arguments: tuple, place: Place, device: str, *, explain: bool
) -> None:
    """Call a function in this process of a job, connected to the others.

    Args:
        function: is called with the arguments.
        arguments: of the function.
        place: of this process.
        device: the type of device that the job computes on: NCCL is used for ``cuda``, and gloo for
            others.
        explain: whether to name the process that is gone if a connection fails. Otherwise the
            launcher does.

    Raises:
        UserError: a process is missing, or this machine has too few GPUs.
        SystemExit: another process is gone, or the function has raised a UserError, which one
            process of the job has reported.
    """
    heartbeat = join_processes(place, device)
    try:
        _run_and_leave(function, arguments, heartbeat)
    except RunStopped as stop:
        if stop.everywhere:  # so that no process misses another one that still saves a checkpoint
            with contextlib.suppress(RuntimeError):  # the signal has ended another one
                leave_processes(heartbeat)
        else:
            heartbeat.leave()
        raise
    except RuntimeError as error:
        if not connection_lost(error):
            heartbeat.leave()
            raise
        if explain:
            print(f"error: {heartbeat.explain()}", file=sys.stderr, flush=True)
        sys.exit(CONNECTION_LOST)
    except BaseException:
        heartbeat.leave()
        raise


def _run_and_leave(function: Callable[..., None], arguments: tuple, heartbeat: Heartbeat) -> None:
    """Call the function; if it raises a UserError in several processes, the first one reports it.

    Raises:
        SystemExit: instead of a UserError.
    """
    first = True

    @reports_user_errors
    def run() -> None:
        nonlocal first
        try:
            function(*arguments)
        except UserError:
            first = heartbeat.first_to_report()
            if first:
                raise
            sys.exit(2)
        leave_processes(heartbeat)

    try:
        run()
    except SystemExit as end:
        # Rank 0 may serve the store that says who has reported the error, and a launcher stops all
        # processes as soon as one of them has ended.
        if end.code == 2 and (heartbeat.place.rank == 0 or not first):
            time.sleep(_LINGERING)
        raise


def join_processes(place: Place, device: str) -> Heartbeat:
    """Connect this process to the others of its job, and wait until all of them have done so.

    Args, raises:
        As :func:`run_in_job`.
    """
    seconds = patience()
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.set_device(_gpu(place))
    store = open_store(place)
    name, peers = meet(store, place)
    heartbeat = Heartbeat(place, peers, name, seconds)
    heartbeat.start()
    choose_interface([peer.address for peer in peers])
    torch.distributed.init_process_group(
        backend="nccl" if on_gpu else "gloo",
        store=PrefixStore(name, store),
        world_size=place.world_size,
        rank=place.rank,
        timeout=_TIMEOUT,
    )
    comm.create_local_process_group(place.local_size)
    comm.synchronize()
    return heartbeat


def leave_processes(heartbeat: Heartbeat) -> None:
    """Wait until all processes of the job are done, and disconnect this one.

    Rank 0 leaves last, because it may serve the store that the heartbeat of the others uses.
    """
    comm.synchronize()
    heartbeat.stop()
    comm.synchronize()
    torch.distributed.destroy_process_group()


def _gpu(place: Place) -> int:
    """Return the GPU of a process.

    Raises:
        UserError: this machine has fewer GPUs than processes.
    """
    count = torch.cuda.device_count()
    if count == 1:  # a launcher may show each process its own GPU only
        return 0
    if count < place.local_size:
        raise UserError(
            f"{place.local_size} processes of this machine share {count} CUDA devices; start at "
            f"most {count} processes on each machine"
        )
    return place.local_rank


def connection_lost(error: BaseException) -> bool:
    """Return whether an error says that another process of the job cannot be reached.

    Example:
        >>> connection_lost(RuntimeError("[gloo/transport/pair.cc] Connection closed by peer"))
        True
        >>> connection_lost(RuntimeError("size mismatch"))
        False
    """
    lost = torch.distributed.DistNetworkError, torch.distributed.DistStoreError
    return isinstance(error, lost) or (
        isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))
    )
