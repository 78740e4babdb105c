"""torchrun on two hosts: the one that does not hold the rendezvous fails three times."""

import subprocess
import time
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support.hosts import TwoHosts, permitted, two_hosts
from support.jobs import wait_for
from support.launched_runs import start_ranks, started, torchrun, words, write_clips
from support.resumed_runs import differences

from ccsa.data.synthetic.moving_cue import register_moving_cue
from ccsa.engine.heartbeat import CONNECTION_LOST
from ccsa.engine.local_processes import free_port
from ccsa.utils.run_folders import RUN_ID

LONGER = ("SOLVER.MAX_ITER", "31", "SOLVER.STEPS", "(20,)", "TEST.EVAL_PERIOD", "12")
FAILURES = "any:4:host:{0}/a,any:16:launcher:{0}/b,any:25:host:{0}/c"
CRASHES = "any:4:itself:{0}/a,any:16:itself:{0}/b,any:25:itself:{0}/c"  # torchrun goes on


class Loopback:
    """Two hosts that are one, where network namespaces are not permitted."""

    names = ("localhost", "localhost")

    def words(self, host, *command):
        return [*command]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Return a folder of datasets with a few clips, which are registered."""
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    write_clips(tmp_path / "datasets")
    register_moving_cue(tmp_path / "datasets")
    return tmp_path / "datasets"


@pytest.fixture
def hosts():
    if permitted():
        with two_hosts() as hosts:
            yield hosts
    else:
        yield Loopback()


@pytest.mark.parametrize(
    ("disable_sharing", "kill", "fails"), [("0", CRASHES, 0), ("1", FAILURES, 3)]
)
def test_a_host_that_fails_three_times_changes_nothing(
    root: Path,
    tmp_path: Path,
    datasets: Path,
    hosts: TwoHosts | Loopback,
    disable_sharing,
    kill,
    fails,
):
    data = {"DETECTRON2_DATASETS": str(datasets), "CUDA_VISIBLE_DEVICES": ""}
    call = words(root, tmp_path / "whole", *LONGER)
    options = ("--nproc-per-node", "2")
    assert started(torchrun(root, options, call), tmp_path / "whole.txt", **data).wait(300) == 0

    options = (
        *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "10", "--rdzv-id", "NAME"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{hosts.names[0]}:{free_port()}"),
    )
    command = torchrun(root, options, words(root, tmp_path / "parts", *LONGER))
    variables = {**data, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": disable_sharing}
    logs = [tmp_path / f"host{host}.txt" for host in range(2)]
    first = started(hosts.words(0, *command), logs[0], **variables)
    other, failures = None, 0
    try:
        time.sleep(5.0)  # on one machine, the first torchrun must hold the rendezvous
        while True:
            more = {**variables, "KILL_AT": kill.format(tmp_path)}
            other = started(hosts.words(1, *command), logs[1], **more)
            if other.wait(300) != -9:
                break
            failures += 1
            wait_for(lambda: not workers(tmp_path / "parts"), 10)
        assert (first.wait(300), other.returncode, failures) == (0, 0, fails), printed(logs)
    finally:
        for process in filter(None, (first, other)):
            process.kill()
    assert (tmp_path / "parts" / RUN_ID).read_text() == "torchrun NAME\n"
    assert differences(tmp_path / "whole", tmp_path / "parts") == [], printed(logs)
    assert all((tmp_path / marker).exists() for marker in "abc")
    text = logs[0].read_text()
    assert text.count("does not answer: it or its machine has stopped") == fails, text[-6000:]
    assert "Traceback (most recent call last)" not in text


def test_a_cut_connection_ends_both_hosts_within_30_s(root, tmp_path, datasets, hosts):
    """With the allowed silence that is the default, 20 s."""
    if isinstance(hosts, Loopback):
        pytest.skip("network namespaces are not permitted here")
    waiting = tmp_path / "waiting"
    variables = {"TORCHELASTIC_RUN_ID": "one", "MASTER_ADDR": hosts.addresses[0]}
    variables |= {"KILL_AT": f"1:7:wait:{waiting}", "DETECTRON2_DATASETS": str(datasets)}
    call = words(root, tmp_path / "cut")
    log = tmp_path / "log.txt"
    ranks = start_ranks(call, log, variables, machines=2, enter=hosts.enter)
    wait_for(waiting.exists)
    hosts.connect(False)
    began = time.monotonic()
    waiting.unlink()
    assert [rank.wait() for rank in ranks] == [CONNECTION_LOST] * 2
    assert time.monotonic() - began < 30
    for rank, text in enumerate((log.read_text(), log.with_suffix(".1").read_text())):
        assert f"error: rank {1 - rank} of 2 (process " in text and "Traceback" not in text


def workers(folder: Path) -> list[int]:
    """Return the processes of a run whose torchrun has ended: init has adopted them."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
    entries = (line.split(None, 2) for line in listed.splitlines()[1:])
    return [int(pid) for pid, parent, args in entries if parent == "1" and str(folder) in args]


def printed(logs: list[Path]) -> str:
    """Return the ends of the logs."""
    return "\n".join(f"{log.name}:\n{log.read_text()[-4000:]}" for log in logs)
