"""Runs that torchrun starts: one folder, and a restart that continues exactly."""

import os
import subprocess
import sys

import pytest
import train_net
from support import killed_at
from support.forked import call, fork
from support.resumed_runs import differences, rows

from ccsa.data.synthetic.moving_cue import register_moving_cue, write_moving_cue
from ccsa.engine import heartbeat
from ccsa.engine.local_processes import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes"),
]

SCHEDULE = (
    *("SOLVER.MAX_ITER", "11", "SOLVER.STEPS", "(7,)", "SOLVER.WARMUP_ITERS", "3"),
    *("SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "6", "SOLVER.IMS_PER_BATCH", "4"),
    *("MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "0.001", "DATALOADER.NUM_WORKERS", "0"),
)


@pytest.fixture(scope="module")
def clips(datasets):
    write_moving_cue(datasets / "moving_cue", {"train": 7, "val": 3})
    register_moving_cue(datasets)
    return datasets


def words(root, output, *options):
    """Return the command line of a run that the environment variable KILL_AT can interrupt."""
    config = ("--config-file", root / "configs/moving_cue/T5.yaml", "--import", killed_at.__file__)
    return [*map(str, (*config, *SCHEDULE, *options, "OUTPUT_DIR", output))]


@pytest.fixture
def start(root, clips, tmp_path, monkeypatch):
    """Return the function that does what torchrun does, with forked processes, which start fast.

    It returns the exit status of each of the two processes, and what they have printed.
    """
    used = []
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0.1)

    def start(output, run_id, kill="", options=()):
        log = tmp_path / f"{output}-{len(used)}.txt"
        used.append(log)
        variables = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        variables |= {"MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": run_id}
        variables |= {"KILL_AT": kill, "DETECTRON2_DATASETS": str(clips)}

        def run(rank):
            os.environ.update({**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            call(train_net, words(root, tmp_path / output, *options))

        started = [fork(lambda rank=rank: run(rank), log) for rank in range(2)]
        return [process.wait() for process in started], log.read_text()

    return start


@pytest.fixture
def whole(start, tmp_path):
    """Return the folder of a run that was not interrupted."""
    codes, printed = start("whole", "an id")
    assert codes == [0, 0], printed[-3000:]
    assert printed.count("\noutput: ") == printed.count("\nresults: ") == 1
    return tmp_path / "whole"


def test_the_same_id_continues_and_another_one_does_not(start, whole, tmp_path):
    for moment in (1, 7):  # before the first checkpoint, and in the middle
        codes, printed = start("parts", "one", f"1:{moment}:itself:{tmp_path / str(moment)}")
        assert codes[1] == -9 and codes[0] == 75
        assert printed.count("error: rank 1 of 2 (process ") == 1, printed[-3000:]
        assert printed.count("error: ") == 1 and "Traceback" not in printed, printed[-3000:]
    codes, printed = start("parts", "another")
    assert sorted(codes) == [2, 2] and printed.count("error: ") == 1, printed[-3000:]
    assert "already contains a run" in printed and "--resume" in printed
    codes, printed = start("parts", "one")
    assert codes == [0, 0] and "Starting training from iteration 6" in printed, printed[-3000:]
    assert differences(whole, tmp_path / "parts") == []
    assert [row["iteration"] for row in rows(whole)] == [10, 5, 11]


def test_torchrun_restarts_a_killed_process_exactly(root, clips, whole, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--max-restarts", "1", str(root / "tools/train_net.py")),
            *words(root, tmp_path / "parts"),
        ],
        env={
            **os.environ,
            "DETECTRON2_DATASETS": str(clips),
            "KILL_AT": f"1:7:itself:{tmp_path / 'killed'}",
        },
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0 and (tmp_path / "killed").exists(), done.stdout[-3000:]
    assert "Starting training from iteration 6" in done.stdout
    assert "failed (exitcode: -9) local_rank: 1" in done.stdout  # torchrun names it
    assert "Traceback" not in done.stdout and done.stdout.count("error: ") <= 1
    assert differences(whole, tmp_path / "parts") == []
