"""How the processes of a job find each other over its store, whatever the store has from before."""

import datetime
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from torch.distributed import Store, TCPStore

from ccsa.engine.heartbeat import Peer, Place, first_beat
from ccsa.errors import UserError
from ccsa.utils.networks import interface_to

JOINING = 900.0  # seconds that the processes of a job have to start
_REPORTING = 30.0  # seconds after which missing ones are named for the first time
_GRACE = 10.0  # seconds that others wait longer than rank 0, which knows who is missing


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


def choose_interface(addresses: Sequence[str]) -> None:
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
