"""The lock of a run folder: one program at a time, and never after its end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ccsa.errors import UserError
from ccsa.utils.files import atomic_write
from ccsa.utils.run_lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from ccsa.utils.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_program_is_refused_and_told_who_holds_the_lock(tmp_path, holder):
    with pytest.raises(UserError) as raised:
        RunLock(tmp_path).acquire()
    assert f"another run is using {tmp_path} (process {holder.pid} on " in str(raised.value)
    assert "name another OUTPUT_DIR" in str(raised.value)


def test_a_lock_ends_with_its_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunLock(tmp_path):
        assert (tmp_path / "run.lock").read_text().startswith(f"process {os.getpid()} on ")


def test_patience_waits_for_the_end_of_the_other_program(tmp_path, holder):
    holder.send_signal(signal.SIGTERM)
    lock = RunLock(tmp_path)
    lock.acquire(patience=20)
    start = time.monotonic()
    with pytest.raises(UserError):
        RunLock(tmp_path).acquire(patience=0.3)
    assert time.monotonic() - start >= 0.3
    lock.release()


def test_a_released_lock_is_free_in_the_same_process(tmp_path):
    for _ in range(2):
        with RunLock(tmp_path), pytest.raises(UserError):
            RunLock(tmp_path).acquire()


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    """As the worker of a data loader, which lives a few seconds longer than a killed run."""
    lock = RunLock(tmp_path)
    lock.acquire()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        os._exit(0)
    lock.release()
    try:
        lock.acquire(patience=20)  # the other process may need a moment to start
        lock.release()
        assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it is still alive
    finally:
        os.close(go)
        os.waitpid(child, 0)


def test_unfinished_files_of_killed_programs_are_removed(tmp_path):
    inference = tmp_path / "inference" / "val"
    kept = [inference / "results.json", tmp_path / "notes.partial.txt"]
    for file in kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("kept")
    partials = []
    for folder in (tmp_path, inference):
        with pytest.raises(UserError), atomic_write(folder / "model_final.pth") as partial:
            partials.append(partial)
            raise OSError
        partial.write_bytes(b"half")  # as if the process had been killed
    with RunLock(tmp_path):
        assert not any(partial.exists() for partial in partials)
        assert all(file.exists() for file in kept)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "run.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot write a run to"):
        RunLock(tmp_path).acquire()
    assert not (tmp_path / "elsewhere").exists()
