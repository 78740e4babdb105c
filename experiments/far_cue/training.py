"""Training of several networks at the same time, each in a process of tools/train_net.py."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ccsa.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
POLL_INTERVAL = 2.0  # seconds


class Training:
    """A process of tools/train_net.py; what it prints is written to a file.

    Args:
        config: the path of a configuration in ``configs/``, without ``.yaml``.
        folder: the folder in which the run gets a folder of its own.
        seed: the seed of the run.
        options: KEY VALUE pairs for train_net.py.
        threads: the number of CPU threads.
    """

    def __init__(self, config: str, folder: Path, seed: int, options: Sequence[str], threads: int):
        self.name = Path(config).name
        self.folder, self.output = folder / self.name, folder / f"{self.name}.txt"
        command = [
            *(sys.executable, str(ROOT / "tools" / "train_net.py")),
            *("--config-file", str(ROOT / "configs" / f"{config}.yaml")),
            *("OUTPUT_DIR", str(self.folder), "SEED", str(seed), *options),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with self.output.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def iterations(self) -> int:
        """Return the number of iterations that the run has recorded."""
        try:
            lines = (self.folder / "metrics.json").read_text().splitlines()
            return max((json.loads(line)["iteration"] + 1 for line in lines), default=0)
        except (OSError, ValueError, KeyError):  # no file yet, or an incomplete last line
            return 0

    def is_finished(self) -> bool:
        """Return whether the process has ended successfully.

        Raises:
            UserError: it has failed; the message contains the last line that it printed.
        """
        code = self.process.poll()
        if code is None:
            return False
        if code:
            reason = (self.output.read_text().strip().splitlines() or ["nothing was printed"])[-1]
            if code < 0:
                reason = f"ended by signal {-code}; is there enough memory?"
            raise UserError(
                f"training {self.name} failed ({reason}); see {self.output}, then run it again"
            )
        return True

    def stop(self) -> None:
        """Stop the process if it is still running."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def train(
    configs: Sequence[str], folder: Path, *, seed: int, options: Sequence[str], jobs: int
) -> None:
    """Train all configurations, with one progress bar.

    Args:
        configs, folder, seed, options: see :class:`Training`.
        jobs: the number of processes that run at the same time; they share the CPU cores.

    Raises:
        UserError: a training has failed. The others are stopped.
    """
    threads = max(1, available_cores() // jobs)
    waiting = list(configs)
    running: list[Training] = []
    with tqdm(total=len(configs), unit="network", desc="training") as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(Training(waiting.pop(0), folder, seed, options, threads))
                time.sleep(POLL_INTERVAL)
                finished = [t for t in running if t.is_finished()]
                bar.update(len(finished))
                running = [t for t in running if t not in finished]
                bar.set_postfix({t.name: t.iterations() for t in running})
        finally:
            for training in running:
                training.stop()
