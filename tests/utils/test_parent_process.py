"""Workers end with the process that reads from them, also if it is killed while they start."""

import os
import signal
import subprocess
import sys
import time

PROGRAM = """
import multiprocessing, os, signal, sys, time
from detectron2.data.samplers import TrainingSampler
from ccsa.data.sample_stream import TrainLoader

def load(record):
    return record

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    records = [{"width": 2, "height": 1}]
    loader = TrainLoader(records, load, TrainingSampler(1), 1, seed=0, num_workers=2)
    batches = iter(loader)  # the workers of spawn still import torch
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_of_a_killed_process_end(tmp_path):
    program = tmp_path / "load.py"
    program.write_text(PROGRAM)
    words = [sys.executable, str(program), "spawn"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2
    end = time.monotonic() + 120  # on a busy machine, their imports take a while
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.2)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
