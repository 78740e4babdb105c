"""Processes that are silent end the others, which name them."""

import os
import signal
import threading
import time

import pytest
from support.forked import fork
from support.refusals import message
from torch.distributed import TCPStore

from ccsa.engine import heartbeat
from ccsa.engine.heartbeat import CONNECTION_LOST, Heartbeat, Peer, Place, first_beat, patience

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0.1)


@pytest.fixture
def store():
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def start(store, tmp_path):
    """Return the function that forks the ranks of a job. Each of them calls ``action(beating)``."""
    started = {}

    def start(count, action, seconds=1.0):
        address = f"tcp://127.0.0.1:{store.port}"
        peers = [Peer(f"host{rank}", 100 + rank, "") for rank in range(count)]

        def run(rank):
            place = Place(rank, rank, count, count, address, served=True)
            beating = Heartbeat(place, peers, "job", seconds)
            beating.start()
            action(beating)

        for rank in range(count):
            first_beat(store, "job", rank)
        for rank in range(count):
            started[rank] = fork(lambda rank=rank: run(rank), tmp_path / f"{rank}.txt")
        return [started[rank] for rank in range(count)]

    yield start
    for process in started.values():
        process.kill()


def hang(beating):
    """Wait as a collective operation does for a process that is gone."""
    time.sleep(60)


def test_a_silent_rank_ends_all_others_with_its_name(start):
    ranks = start(3, hang)
    time.sleep(1.0)
    os.kill(ranks[1].pid, signal.SIGSTOP)
    began = time.monotonic()
    for rank in (0, 2):
        assert ranks[rank].wait() == CONNECTION_LOST
        printed = ranks[rank].output.read_text()
        assert printed.startswith("error: rank 1 of 3 (process 101 on host1) does not answer")
        assert printed.count("\n") == 1 and f"so rank {rank} ends" in printed
    assert time.monotonic() - began < 10


def test_rank_0_is_named_as_well(start):
    ranks = start(2, hang)
    time.sleep(0.5)
    os.kill(ranks[0].pid, signal.SIGKILL)
    assert ranks[1].wait() == CONNECTION_LOST
    assert ranks[1].output.read_text().startswith("error: rank 0 of 2 (process 100 on host0)")


def test_the_end_of_the_store_counts_as_that_of_rank_0():
    """It is served by rank 0, or by the launcher on the same machine."""
    place = Place(1, 1, 2, 2, "tcp://127.0.0.1:1")
    beating = Heartbeat(place, [Peer("a", 1, ""), Peer("b", 2, "")], "job", 1.0)
    watching = threading.Thread(target=beating._watch)
    beating.message = lambda lost: found.append(lost) or beating._stopped.set() or ""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heartbeat.os, "_exit", lambda status: found.append(status))
        watching.start()
        watching.join(10)
    assert found == [{0}, CONNECTION_LOST]


def test_a_failed_operation_is_explained_sooner(start):
    """Long before the allowed silence of 60 s."""

    def act(beating):
        if beating.place.rank == 2:
            os._exit(5)
        print(beating.explain())

    ranks = start(3, act, seconds=60.0)
    assert [rank.wait() for rank in ranks] == [0, 0, 5]
    for rank in (0, 1):
        assert ranks[rank].output.read_text().startswith("rank 2 of 3 (process 102 on host2)")


def test_work_and_waiting_raise_no_alarm(start):
    """A process that computes in Python, one that waits, and one that leaves earlier."""

    def act(beating):
        began = time.monotonic()
        if beating.place.rank == 0:
            while time.monotonic() - began < 3:
                sum(range(1000))
        else:
            time.sleep(3)
        beating.stop()

    ranks = start(3, act)
    assert [rank.wait() for rank in ranks] == [0, 0, 0]
    assert [rank.output.read_text() for rank in ranks] == ["", "", ""]


def test_a_process_that_has_reported_an_error_gives_the_others_time(start):
    """Rank 0 writes a checkpoint, which takes longer than the allowed silence; rank 1 waits for
    it in an operation that fails."""

    def act(beating):
        if beating.place.rank == 2:
            print("first" if beating.first_to_report() else "later")
            beating.leave()
            return
        time.sleep(3)
        print(beating.explain())

    ranks = start(3, act, seconds=1.0)
    assert [rank.wait() for rank in ranks] == [0, 0, 0]
    assert ranks[2].output.read_text() == "first\n"
    for rank in (0, 1):
        printed = ranks[rank].output.read_text()
        assert printed.startswith("rank 2 of 3 (process 102 on host2) has ended with an error")


def test_one_of_several_errors_is_reported(start):
    ranks = start(3, lambda beating: print(beating.first_to_report()))
    assert [rank.wait() for rank in ranks] == [0, 0, 0]
    assert sorted(rank.output.read_text() for rank in ranks) == ["False\n", "False\n", "True\n"]


def test_the_allowed_silence_can_be_set(monkeypatch):
    monkeypatch.delenv(heartbeat.SECONDS, raising=False)
    assert patience() == 20
    monkeypatch.setenv(heartbeat.SECONDS, "300")
    assert patience() == 300
    for text in ("never", "nan", "0", "-1", "inf"):
        monkeypatch.setenv(heartbeat.SECONDS, text)
        assert "CCSA_HEARTBEAT_SECONDS must be a number" in message(patience)
