"""How the processes of a job connect to each other."""

import datetime
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Collection, Sequence
from urllib.parse import urlsplit

import torch
import torch.distributed
from detectron2.utils import comm
from torch.distributed import PrefixStore, Store, TCPStore

from ccsa.engine.heartbeat import CONNECTION_LOST, Heartbeat, Peer, Place, first_beat, patience
from ccsa.engine.stop_signals import RunStopped
from ccsa.errors import UserError
from ccsa.utils.networks import interface_to

JOINING = 900.0  # seconds that the processes of a job have to start
_REPORTING = 30.0  # seconds after which missing ones are named for the first time
_GRACE = 10.0  # seconds that others wait longer than rank 0, which knows who is missing
# How long a process waits for another one in a collective operation. One of them may evaluate alone
# for a long time.
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
        SystemExit: another process is gone.
    """
    heartbeat = join_processes(place, device)
    try:
        function(*arguments)
        leave_processes(heartbeat)
    except RunStopped as stop:
        if stop.everywhere:  # so that no process misses another one that still saves a checkpoint
            leave_processes(heartbeat)
        raise
    except RuntimeError as error:
        if not connection_lost(error):
            raise
        if explain:
            print(f"error: {heartbeat.explain()}", file=sys.stderr, flush=True)
        sys.exit(CONNECTION_LOST)


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
    _choose_interface([peer.address for peer in peers])
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


def open_store(place: Place) -> Store:
    """Return the store over which the processes of a job find each other.

    Raises:
        UserError: it cannot be reached.
    """
    parts = urlsplit(place.address)
    serve = place.rank == 0 and not place.served
    try:
        return TCPStore(
            str(parts.hostname),
            int(parts.port or 0),
            is_master=serve,
            timeout=datetime.timedelta(seconds=JOINING),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        reason = str(error).split("\n", 1)[0][:200]
        verb = "listen" if serve else "connect"
        raise UserError(
            f"rank {place.rank} of {place.world_size} cannot {verb} to {place.address} "
            f"({reason}); check that the process of rank 0 runs and that no firewall is between"
        ) from error


def meet(store: Store, place: Place, seconds: float = JOINING) -> tuple[str, list[Peer]]:
    """Wait for all processes of the job.

    The store may have entries of processes that have ended, because launchers keep it while they
    restart processes. Therefore rank 0 chooses a new name for this start of the job, and answers
    each process that introduces itself under a name of its own.

    Args:
        store: of the job.
        place: of this process.
        seconds: how long to wait.

    Returns:
        A name that no earlier start of the job has used, and all processes by rank.

    Raises:
        UserError: a process is missing.
    """
    token = secrets.token_hex(8)
    peer = Peer(socket.gethostname(), os.getpid(), _own_address(place))
    store.set(f"hello/{place.rank}", json.dumps([token, *peer]))
    if place.rank == 0:
        first_beat(store, token, 0)
        return token, _welcome(store, place, token, seconds)
    answer = _await(store, f"welcome/{token}", place, seconds)
    first_beat(store, answer, place.rank)
    store.set(f"{answer}/here/{place.rank}", token)
    return answer, [Peer(*entry) for entry in json.loads(_await(store, answer, place, seconds))]


def _welcome(store: Store, place: Place, name: str, seconds: float) -> list[Peer]:
    """Answer all other processes until each has confirmed; return all processes by rank."""
    start, reported = time.monotonic(), False
    hellos: dict[int, str] = {0: store.get("hello/0").decode()}
    missing = set(range(1, place.world_size))
    while missing:
        for rank in sorted(missing):
            hello = _read(store, f"hello/{rank}")
            if hello and hello != hellos.get(rank):
                hellos[rank] = hello
                store.set(f"welcome/{json.loads(hello)[0]}", name)
            confirmed = _read(store, f"{name}/here/{rank}")
            if confirmed and confirmed == json.loads(hellos[rank])[0]:
                missing.discard(rank)
        waited = time.monotonic() - start
        if waited > seconds:
            raise UserError(missing_ranks(missing, place, waited))
        if missing and waited > _REPORTING and not reported:
            reported = True
            print(f"waiting for {ranks_named(missing)} of {place.world_size}", file=sys.stderr)
        time.sleep(0.02)
    peers = [Peer(*json.loads(hellos[rank])[1:]) for rank in range(place.world_size)]
    store.set(name, json.dumps(peers))
    return peers


def _await(store: Store, key: str, place: Place, seconds: float) -> str:
    """Return the value of a key as soon as rank 0 has set it."""
    start = time.monotonic()
    while not (value := _read(store, key)):
        if time.monotonic() - start > seconds + _GRACE:
            raise UserError(missing_ranks([0], place, time.monotonic() - start))
        time.sleep(0.02)
    return value


def _read(store: Store, key: str) -> str:
    """Return the value of a key, or an empty string if it is not set."""
    return store.get(key).decode() if store.check([key]) else ""


def ranks_named(ranks: Collection[int]) -> str:
    """Return text that names ranks.

    Example:
        >>> ranks_named([3]), ranks_named([1, 0])
        ('rank 3', 'ranks 0, 1')
    """
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, sorted(ranks)))}"


def missing_ranks(ranks: Collection[int], place: Place, seconds: float) -> str:
    """Return the message about processes that have not started."""
    return (
        f"{ranks_named(ranks)} of {place.world_size} did not start within {seconds:.0f} s; check "
        f"the output of the launcher on all machines, and that they reach {place.address}"
    )


def _own_address(place: Place) -> str:
    """Return the address of this machine as the process of rank 0 sees it; empty if unknown."""
    parts = urlsplit(place.address)
    return interface_to(str(parts.hostname), parts.port or 0)[0]


def _choose_interface(addresses: Sequence[str]) -> None:
    """Let gloo use the interface over which this machine reaches the others.

    Gloo itself uses the one that the name of this machine belongs to. On many systems this is the
    loopback device, which other machines cannot reach.
    """
    if os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    for address in addresses:
        own, interface = interface_to(address, 9) if address else ("", "")
        if interface and own != address and not own.startswith("127."):
            os.environ["GLOO_SOCKET_IFNAME"] = interface
            return


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
