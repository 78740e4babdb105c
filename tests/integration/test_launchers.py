"""Runs that torchrun starts: one folder, restarts that continue exactly, and several hosts."""

import json
import os
import signal
import time

import pytest
import train_net
from support.forked import call, fork
from support.hosts import permitted, two_hosts
from support.jobs import wait_for
from support.launched_runs import start_ranks, started, torchrun, words, write_clips
from support.resumed_runs import differences, rows

from ccsa.data.synthetic.moving_cue import register_moving_cue
from ccsa.engine import heartbeat

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes"),
]


@pytest.fixture(scope="module")
def clips(datasets):
    write_clips(datasets)
    register_moving_cue(datasets)
    return {"DETECTRON2_DATASETS": str(datasets)}


@pytest.fixture
def run(root, clips, tmp_path, monkeypatch):
    """Return the function that runs two processes, and returns the exit status of each and what
    they have printed. The id is that of torchrun, or the number of a job of Slurm."""
    used = []
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0.1)

    def run(output, run_id, kill="", options=(), first=()):
        used.append(tmp_path / f"{output}-{len(used)}.txt")
        name = "SLURM_JOB_ID" if run_id.isdigit() else "TORCHELASTIC_RUN_ID"
        variables = {**clips, name: run_id, "KILL_AT": kill}
        ranks = start_ranks(
            [*first, *words(root, tmp_path / output, *options)], used[-1], variables
        )
        return [rank.wait() for rank in ranks], used[-1].read_text()

    return run


@pytest.fixture
def whole(run, tmp_path):
    """Return the folder of a run that was not interrupted."""
    codes, printed = run("whole", "an id")
    assert codes == [0, 0], printed[-3000:]
    assert printed.count("\noutput: ") == printed.count("\nresults: ") == 1
    return tmp_path / "whole"


def test_the_same_id_continues_and_another_one_does_not(run, whole, tmp_path):
    for moment in (1, 7):  # before the first checkpoint, and in the middle
        codes, printed = run("parts", "one", f"1:{moment}:itself:{tmp_path / str(moment)}")
        assert codes == [heartbeat.CONNECTION_LOST, -9]
        assert printed.count("error: rank 1 of 2 (process ") == 1, printed[-3000:]
        assert printed.count("error: ") == 1 and "Traceback" not in printed, printed[-3000:]
    codes, printed = run("parts", "another")
    assert codes == [2, 2] and printed.count("error: ") == 1, printed[-3000:]
    assert "already contains a run" in printed and "--resume" in printed
    codes, printed = run("parts", "one")
    assert codes == [0, 0] and "Starting training from iteration 6" in printed, printed[-3000:]
    assert differences(whole, tmp_path / "parts") == []
    assert [row["iteration"] for row in rows(whole)] == [10, 5, 11]


def test_evaluations_in_one_and_two_processes_and_after_training_agree(root, run, whole, tmp_path):
    """All bits. The processes of the training have different statistics of batch norm."""
    options = ("MODEL.WEIGHTS", whole / "model_final.pth")
    codes, printed = run("two", "one", options=options, first=["--eval-only"])
    assert codes == [0, 0], printed[-3000:]
    single = ["--eval-only", *words(root, tmp_path / "single", *options)]
    assert fork(lambda: call(train_net, single), tmp_path / "single.txt").wait() == 0
    assert results(tmp_path / "single") == results(tmp_path / "two") == results(whole)
    assert len(set(results(whole)["sem_seg"].values())) > 10


def results(folder):
    return json.loads((folder / "results.json").read_text())["results"]


def test_a_job_of_slurm_continues_when_it_is_requeued(run, whole, tmp_path):
    assert run("parts", "4711", f"0:4:itself:{tmp_path / 'killed'}")[0] == [-9, 75]
    codes, printed = run("parts", "4711")
    assert codes == [0, 0] and "Starting training from iteration 3" in printed, printed[-3000:]
    assert differences(whole, tmp_path / "parts") == []


def test_an_evaluation_that_a_signal_interrupts_is_repeated_by_all_processes(
    root, clips, run, whole, tmp_path
):
    """Rank 0 is in the evaluation after iteration 5; rank 1, which begins it later, has fewer
    hooks."""
    waiting = tmp_path / "waiting"
    variables = {**clips, "TORCHELASTIC_RUN_ID": "one", "KILL_AT": f"1:5:wait:{waiting}"}
    ranks = start_ranks(words(root, tmp_path / "parts"), tmp_path / "stopped.txt", variables)
    wait_for(waiting.exists)
    time.sleep(0.5)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGTERM)
    waiting.unlink()
    printed = (tmp_path / "stopped.txt").read_text
    assert [rank.wait() for rank in ranks] == [143, 143], printed()[-3000:]
    codes, again = run("parts", "one")
    assert codes == [0, 0], again[-3000:]
    assert differences(whole, tmp_path / "parts") == []


def test_an_error_of_all_processes_is_reported_once(run):
    codes, printed = run("diverged", "one", options=("SOLVER.BASE_LR", "1e6"))
    assert codes == [2, 2] and printed.count("error: ") == 1, printed[-3000:]
    assert "the weights were not updated" in printed and "Traceback" not in printed


def test_a_fault_in_the_last_iteration_of_one_process_ends_both(run, tmp_path):
    """Detectron2 would evaluate then, and wait for the other process, which waits for this one."""
    codes, printed = run("failed", "one", f"1:10:fail:{tmp_path / 'failed here'}")
    assert codes == [heartbeat.CONNECTION_LOST, 99], printed[-3000:]
    assert "ArithmeticError: a fault of the program" in printed
    assert "error: rank 1 of 2 (process " in printed and "has ended with an error" in printed


def test_torchrun_restarts_a_killed_process_exactly(root, clips, whole, tmp_path):
    options = ("--nproc-per-node", "2", "--max-restarts", "1")
    command = torchrun(root, options, words(root, tmp_path / "parts"))
    log, kill = tmp_path / "log.txt", f"1:7:itself:{tmp_path / 'killed'}"
    status = started(command, log, **clips, KILL_AT=kill).wait(300)
    printed = log.read_text()
    assert status == 0 and (tmp_path / "killed").exists(), printed[-3000:]
    assert "Starting training from iteration 6" in printed
    assert "failed (exitcode: -9) local_rank: 1" in printed  # torchrun names it
    assert "Traceback" not in printed and printed.count("error: ") <= 1
    assert differences(whole, tmp_path / "parts") == []


@pytest.fixture
def hosts():
    if not permitted():
        pytest.skip("network namespaces are not permitted here")
    with two_hosts() as hosts:
        yield hosts


def test_a_cut_connection_ends_both_hosts_and_the_run_continues(
    root, clips, whole, tmp_path, monkeypatch, hosts
):
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0.1)
    variables = {**clips, "TORCHELASTIC_RUN_ID": "one", "CCSA_HEARTBEAT_SECONDS": "3"}
    variables["MASTER_ADDR"] = hosts.addresses[0]
    call = words(root, tmp_path / "parts")

    def start(log, kill):
        more = {"KILL_AT": kill}
        return start_ranks(call, log, variables | more, machines=2, enter=hosts.enter)

    waiting = tmp_path / "waiting"
    ranks = start(tmp_path / "cut.txt", f"1:7:wait:{waiting}")
    while not waiting.exists():
        assert ranks[1].running()
        time.sleep(0.02)
    hosts.connect(False)
    began = time.monotonic()
    waiting.unlink()  # the process goes on
    assert [rank.wait() for rank in ranks] == [heartbeat.CONNECTION_LOST] * 2
    assert time.monotonic() - began < 15
    for rank, log in enumerate((tmp_path / "cut.txt", tmp_path / "cut.1")):
        printed = log.read_text()
        assert printed.count("error: ") == 1 and "Traceback" not in printed, printed[-3000:]
        assert f"error: rank {1 - rank} of 2 (process " in printed
    hosts.connect(True)
    ranks = start(tmp_path / "again.txt", "")
    assert [rank.wait() for rank in ranks] == [0, 0], (tmp_path / "again.txt").read_text()[-3000:]
    assert differences(whole, tmp_path / "parts") == []
