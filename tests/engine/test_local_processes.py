"""Several processes on one machine: none outlives the others, and every end is explained."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from support.jobs import descendants, running, train_for_a_minute, wait_for, wait_for_ranks

from ccsa.engine.heartbeat import CONNECTION_LOST, Place
from ccsa.engine.local_processes import free_port, job_status, run_processes

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PROGRAM = """
import sys
from support.jobs import train_for_a_minute
from ccsa.engine.local_processes import free_port, run_processes
from ccsa.engine.heartbeat import Place

if __name__ == "__main__":
    place = Place(0, 0, 1, 1, f"tcp://127.0.0.1:{free_port()}")
    run_processes(train_for_a_minute, (sys.argv[1],), [place], "cpu")
"""


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_goes_on_without_the_parent(root, tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "tests"), *sys.path])},
        stderr=subprocess.PIPE,
        text=True,
    )
    ranks = wait_for_ranks(tmp_path, 1, alive=lambda: process.poll() is None)
    below = descendants(process.pid)
    assert len(below) >= 2  # the process of the rank, and the worker of its loader
    process.send_signal(number)
    error = process.communicate(timeout=20)[1]
    wait_for(lambda: not any(map(running, ranks)), 3)
    wait_for(lambda: not any(map(running, below)), 10)  # workers look for their parent every 5 s
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 143 and error.startswith("error: stopped by SIGTERM\n")
    assert "Traceback" not in error


@linux
@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_is_named(tmp_path, capfd):
    def kill():
        os.kill(wait_for_ranks(tmp_path, 2)[1], signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(SystemExit) as end:
        run_processes(train_for_a_minute, (str(tmp_path),), places(), "cpu")
    error = capfd.readouterr().err
    assert end.value.code == 137
    assert error.startswith("error: rank 1 of 2 was ended by signal 9 (SIGKILL"), error
    assert error.count("\n") == 1 and "--resume" in error
    assert not any(map(running, wait_for_ranks(tmp_path, 2)))


def places(count=2):
    address = f"tcp://127.0.0.1:{free_port()}"
    return [Place(rank, rank, count, count, address) for rank in range(count)]


@pytest.mark.parametrize(
    ("codes", "received", "status", "part"),
    [
        ([0, 0], [], 0, ""),
        ([0, 0], [15], 0, ""),
        ([2, CONNECTION_LOST], [], 2, ""),
        ([CONNECTION_LOST, 2], [], 2, ""),
        ([CONNECTION_LOST, -11], [], 139, "rank 1 of 2 was ended by signal 11 (SIGSEGV)"),
        ([-15, -9], [15], 137, "rank 1 of 2 was ended by signal 9 (SIGKILL, which"),
        ([143, 143], [15], 143, ""),
        ([-15, 143], [15], 143, "stopped by SIGTERM"),
        ([CONNECTION_LOST, 0], [], CONNECTION_LOST, "rank 0 lost the connection"),
    ],
)
def test_status_and_message_of_a_job(codes, received, status, part):
    found, message = job_status(codes, places(), received)
    assert found == status and message.startswith(part) and bool(message) == bool(part)
