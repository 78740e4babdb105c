"""Notices that another process of the job is gone, or cannot be reached.

Collective operations do not: NCCL and gloo wait for minutes or hours if a machine has lost its
power or its network. Here a thread of each process regularly writes to the store over which the
processes have found each other. Rank 0 watches all of them, and the others watch rank 0 and what it
reports.
"""

import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from torch.distributed import PrefixStore, Store, TCPStore

from ccsa.errors import UserError, shown

# The exit status of a process that ends because another one is gone (EX_TEMPFAIL of sysexits.h).
CONNECTION_LOST = 75
SECONDS = "CCSA_HEARTBEAT_SECONDS"  # environment variable
_DEFAULT, _LEAST = 20.0, 3.0
_INTERVAL = 1.0  # seconds between two beats
_LEFT = "left"  # the last beat of a process that ends with an error
# Seconds that the others may go on then: the main process may be writing a checkpoint.
AFTER_ERROR = 120.0
_SUSPICIOUS = 4  # missing beats of a process after which it is named if a connection has failed


class Place(NamedTuple):
    """The place of a process in its job.

    Attributes:
        rank, world_size: among all processes of the job.
        local_rank, local_size: among those of this machine.
        address: ``tcp://HOST:PORT`` of the store over which the processes find each other.
        served: whether another program serves this store; otherwise rank 0 does.
    """

    rank: int
    local_rank: int
    world_size: int
    local_size: int
    address: str
    served: bool = False


class Peer(NamedTuple):
    """A process of the job, as it has introduced itself."""

    host: str
    pid: int
    address: str  # of the interface over which it reaches the store


def patience() -> float:
    """Return for how many seconds a process may be silent.

    Raises:
        UserError: the environment variable ``CCSA_HEARTBEAT_SECONDS`` is not such a number.
    """
    text = os.environ.get(SECONDS, "")
    try:
        seconds = float(text) if text else _DEFAULT
    except ValueError:
        seconds = 0.0
    if not _LEAST <= seconds <= 1e6:
        raise UserError(
            f"the environment variable {SECONDS} must be a number of seconds from {_LEAST:g} to "
            f"1000000, not {shown(text)}"
        )
    return seconds


class Heartbeat:
    """Ends this process, with a message, when another one has been silent for too long.

    The threads run while the process computes, evaluates or waits, but not while a function holds
    Python's global lock. Only the beats that this process has tried to read count, so that it does
    not blame others for a time in which it was stopped itself.

    Args:
        place: of this process.
        peers: all processes of the job, by rank.
        name: of this start of the job, from :func:`ccsa.engine.process_group.meet`. The first beat
            of each process is in the store already; see :func:`first_beat`.
        seconds: of silence after which a process is lost.
    """

    def __init__(self, place: Place, peers: Sequence[Peer], name: str, seconds: float):
        self.place, self.peers, self.seconds = place, peers, seconds
        self.lost: set[int] = set()  # what rank 0 has reported
        self._name = name
        self._silent = [0] * place.world_size  # beats since the last change
        self._last = [b""] * place.world_size
        self._allowed = seconds / _INTERVAL  # beats that may be missing
        self._watched = list(range(place.world_size)) if place.rank == 0 else [0]
        self._unreached = 0  # intervals in which the store did not answer
        self._stopped, self._leaving, self._explaining = threading.Event(), False, False
        self._threads = [
            threading.Thread(target=target, name=target.__name__, daemon=True)
            for target in (self._beat, self._watch)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads; this process may end then without alarming the others."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(5.0)

    def leave(self) -> None:
        """Let the others know that this process ends with an error, which it has reported."""
        self._leaving = True
        self.stop()

    def first_to_report(self) -> bool:
        """Return whether no other process has reported an error so far. Most errors occur in all
        processes at the same time."""
        try:
            store = PrefixStore(self._name, connect(self.place.address, 5.0))
            return store.add("reports", 1) == 1
        except RuntimeError:  # rank 0 has ended
            return True

    def _beat(self) -> None:
        """Write and read beats until the store is gone. A cut connection blocks this thread."""
        try:
            store = PrefixStore(self._name, connect(self.place.address, self.seconds))
            count = 0
            while not self._stopped.wait(_INTERVAL):
                count += 1
                store.set(_key(self.place.rank), str(count))
                self._read(store)
                self._unreached = 0
            if self._leaving:
                store.set(_key(self.place.rank), _LEFT)
        except RuntimeError:
            return

    def _read(self, store: Store) -> None:
        watched = [rank for rank in self._watched if rank != self.place.rank]
        for rank, beat in zip(watched, store.multi_get(list(map(_key, watched))), strict=True):
            self._silent[rank] = self._silent[rank] + 1 if beat == self._last[rank] else 0
            self._last[rank] = beat
        if self.place.rank == 0:
            if lost := self._silent_ranks():
                store.set("lost", json.dumps(sorted(lost)))
        elif store.check(["lost"]):
            self.lost = set(json.loads(store.get("lost")))

    def _silent_ranks(self) -> set[int]:
        """Return the ranks of which too many beats are missing, and about as many as of the one
        that has been silent for longest."""
        least = max(self._silent) - 1
        return {r for r, n in enumerate(self._silent) if n >= max(least, self._allowed_for(r))}

    def _allowed_for(self, rank: int) -> float:
        """Return how many beats of a rank may be missing."""
        if self._last[rank] == _LEFT.encode() and not self._explaining:
            return max(self._allowed, AFTER_ERROR / _INTERVAL)
        return self._allowed

    def _watch(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            self._unreached += 1
            if (lost := self._found()) and not self._explaining:
                self._let_others_read()
                if not (self._stopped.is_set() or self._explaining):
                    print(f"error: {self.message(lost)}", file=sys.stderr, flush=True)
                    os._exit(CONNECTION_LOST)  # the main thread may wait for the lost process

    def _found(self) -> set[int]:
        """Return the ranks that are lost: reported, silent, or rank 0 if the store is."""
        if found := self.lost or self._silent_ranks():
            return found
        return {0} if self._unreached >= self._allowed and self.place.rank else set()

    def _let_others_read(self) -> None:
        """Wait until the others have read what rank 0 reports, because its end closes the store."""
        time.sleep(2 * _INTERVAL)

    def explain(self) -> str:
        """Return the message about the process that is gone, after an operation has failed because
        of it. This takes a few seconds, and up to the allowed silence if no process is silent."""
        give_up = time.monotonic() + self.seconds + 2 * _INTERVAL
        self._watched = list(range(self.place.world_size))
        self._explaining, self._allowed = True, _SUSPICIOUS
        lost: set[int] = set()
        while not lost and time.monotonic() < give_up:
            time.sleep(_INTERVAL / 5)
            lost = self._found()
        self._let_others_read()
        self._stopped.set()
        return self.message(lost)

    def message(self, lost: Collection[int]) -> str:
        """Return the message about lost ranks; about an unknown one if there are none."""
        size = self.place.world_size
        named = ", ".join(
            f"rank {rank} of {size} (process {self.peers[rank].pid} on {self.peers[rank].host})"
            for rank in sorted(lost)
        )
        if lost and all(self._last[rank] == _LEFT.encode() for rank in lost):
            what = f"{named} has ended with an error, which it has reported"
        elif lost:
            what = (
                f"{named} does not answer: it or its machine has stopped, or the network is "
                "interrupted"
            )
        else:
            what = f"the connection to another of the {size} processes is lost"
        return (
            f"{what}; so rank {self.place.rank} ends, and --resume or a restart by the launcher "
            "continues the run"
        )


def connect(address: str, seconds: float) -> Store:
    """Return a connection of its own to the store of a job."""
    parts, wait = urlsplit(address), datetime.timedelta(seconds=seconds)
    host, port = str(parts.hostname), int(parts.port or 0)
    return TCPStore(host, port, is_master=False, timeout=wait, wait_for_workers=False)


def first_beat(store: Store, name: str, rank: int) -> None:
    """Write the first beat of a process, before the others start to read."""
    store.set(f"{name}/{_key(rank)}", "0")


def _key(rank: int) -> str:
    return f"beat/{rank}"
