"""How the processes of a job find each other."""

import json
import threading

import pytest
from support.refusals import message
from torch.distributed import HashStore, TCPStore

from ccsa.engine import meeting
from ccsa.engine.heartbeat import Place
from ccsa.engine.local_processes import free_port
from ccsa.engine.meeting import meet, open_store
from ccsa.errors import UserError
from ccsa.utils.networks import interface_to


def places(count):
    return [Place(rank, rank, count, count, "tcp://127.0.0.1:1") for rank in range(count)]


def meet_all(store, ranks):
    """Return what each of the ranks has got from meeting the others."""
    found = {}

    def run(place):
        try:
            found[place.rank] = meet(store, place, 0.5)
        except UserError as error:
            found[place.rank] = str(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(meeting, "_REPORTING", 0.1)
    monkeypatch.setattr(meeting, "_GRACE", 0.1)


def test_a_store_of_earlier_starts_is_used_again():
    """Launchers keep it when they restart processes. The entries of processes that have ended must
    not count: a new process would wait for one of them."""
    store = HashStore()
    names = set()
    for _ in range(3):
        found = meet_all(store, places(3))
        assert len({name for name, _ in found.values()}) == 1
        assert all(found[rank][1] == found[0][1] for rank in range(3)) and len(found[0][1]) == 3
        names.add(found[0][0])
    assert len(names) == 3


def test_missing_ranks_are_named(impatient, capsys):
    store = HashStore()
    store.set("hello/1", json.dumps(["an earlier start", "host", 1, ""]))
    found = meet_all(store, [places(4)[0], places(4)[2]])
    assert found[0].startswith("ranks 1, 3 of 4 did not start within")
    assert found[2].startswith("rank 0 of 4 did not start within")
    assert capsys.readouterr().err == "waiting for ranks 1, 3 of 4\n"


def test_a_store_that_cannot_be_served_is_reported(monkeypatch):
    taken = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = Place(0, 0, 2, 2, f"tcp://127.0.0.1:{taken.port}")
    text = message(open_store, place)
    assert f"rank 0 of 2 cannot listen to tcp://127.0.0.1:{taken.port}" in text and "\n" not in text
    monkeypatch.setattr(meeting, "JOINING", 0.1)
    place = Place(1, 1, 2, 2, f"tcp://127.0.0.1:{free_port()}")
    assert "rank 1 of 2 cannot connect to" in message(open_store, place)


def test_gloo_uses_the_interface_to_the_other_machines(monkeypatch):
    interfaces = {"10.0.0.1": ("10.0.0.2", "veth7"), "127.0.0.1": ("127.0.0.1", "lo")}
    monkeypatch.setattr(meeting, "interface_to", lambda host, _: interfaces[host])
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    meeting.choose_interface(["127.0.0.1", "127.0.0.1"])
    assert meeting.os.environ["GLOO_SOCKET_IFNAME"] == ""
    meeting.choose_interface(["127.0.0.1", "10.0.0.1"])
    assert meeting.os.environ["GLOO_SOCKET_IFNAME"] == "veth7"
    meeting.choose_interface(["127.0.0.1"])  # what the user has chosen stays
    assert meeting.os.environ["GLOO_SOCKET_IFNAME"] == "veth7"


def test_the_loopback_interface_is_found():
    assert interface_to("127.0.0.1", 9) in (("127.0.0.1", "lo"), ("127.0.0.1", ""))
    assert interface_to("host.invalid", 9) == ("", "")
