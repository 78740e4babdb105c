#!/usr/bin/env python
"""How far does each block see? Train small networks on far_cue and put them in one table; and in
another what one and five frames of moving_cue's clips tell.

    python tools/far_cue.py            criss-cross attention with R = 0, 1, 2; one and five frames
    python tools/far_cue.py --all      non-local, squeeze-and-attention, squeeze-and-excitation too

Every network is trained by tools/train_net.py with its configuration in configs/far_cue or
configs/moving_cue, as many at a time as there are CPU cores. Runs, table.md and table.png go into a
new folder output/far_cue/<number>. The exit status is 1 if a table is not as docs/FAR_CUE.md
explains.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from ccsa.analysis.runs import read_run
from ccsa.data.synthetic.far_cue import VARIANTS, ensure_far_cue
from ccsa.data.synthetic.moving_cue import ensure_moving_cue
from ccsa.errors import UserError, reports_user_errors
from ccsa.utils.files import atomic_write, write_text
from ccsa.utils.run_folders import new_folder
from experiments.far_cue import moving_cue
from experiments.far_cue import networks as far_cue

ROOT = Path(__file__).resolve().parents[2]
POLL = 2.0  # seconds


class Training:
    """One call of train_net.py in a process of its own, with a configuration in configs/; what it
    prints goes into a file."""

    def __init__(self, config: str, folder: Path, seed: int, options: list[str], threads: int):
        self.name = Path(config).name
        self.folder, self.printed = folder / self.name, folder / f"{self.name}.txt"
        command = [
            *(sys.executable, str(ROOT / "tools" / "train_net.py")),
            *("--config-file", str(ROOT / "configs" / f"{config}.yaml")),
            *("OUTPUT_DIR", str(self.folder), "SEED", str(seed), *options),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with self.printed.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def iterations(self) -> int:
        """How many iterations it says it has done."""
        try:
            lines = (self.folder / "metrics.json").read_text().splitlines()
            return max((json.loads(line)["iteration"] + 1 for line in lines), default=0)
        except (OSError, ValueError, KeyError):  # nothing yet, or half a line
            return 0

    def is_done(self) -> bool:
        """Whether it has ended well.

        Raises:
            UserError: it has ended otherwise; with the last line it printed.
        """
        if self.process.poll() is None:
            return False
        if code := self.process.returncode:
            why = (self.printed.read_text().strip().splitlines() or ["nothing was printed"])[-1]
            if code < 0:
                why = f"ended by signal {-code}; is there memory enough?"
            raise UserError(
                f"training {self.name} failed ({why}); see {self.printed}, then run it again"
            )
        return True

    def end(self) -> None:
        """End it if it still runs."""
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def train(configs: list[str], folder: Path, args: argparse.Namespace, jobs: int) -> None:
    """Train all configurations, ``jobs`` at a time, under one progress bar."""
    threads = max(1, cores() // jobs)
    waiting, running = list(configs), []
    with tqdm(total=len(configs), unit="network", desc="training") as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(Training(waiting.pop(0), folder, args.seed, args.opts, threads))
                time.sleep(POLL)
                done = [t for t in running if t.is_done()]
                bar.update(len(done))
                running = [t for t in running if t not in done]
                bar.set_postfix({t.name: t.iterations() for t in running})
        finally:
            for training in running:
                training.end()


def parse_args() -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--all", action="store_true", help="the other blocks as well")
    parser.add_argument("--seed", type=int, default=1, help="of all networks (default: 1)")
    parser.add_argument(
        "--output", type=Path, default=Path("output/far_cue"), help="numbered folders go into it"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs for train_net.py")
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    started, args = time.perf_counter(), parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that train() ends its processes
    networks = [*far_cue.RECURRENCES, *(far_cue.OTHERS if args.all else ())]
    far = {(v, n.config): f"far_cue/{v}_{n.config}" for n in reversed(networks) for v in VARIANTS}
    clips = {n.config: f"moving_cue/{n.config}" for n in reversed(moving_cue.NETWORKS)}
    ensure_far_cue()  # once, before several processes want it
    ensure_moving_cue()
    try:
        folder = new_folder(args.output)
    except OSError as error:
        raise UserError(f"cannot write to {args.output}: {error.strerror}") from error
    print(f"output: {folder}")
    configs = [*clips.values(), *far.values()]
    train(configs, folder, args, min(len(configs), cores()))

    runs, moving = (
        {key: read_run(folder / Path(config).name) for key, config in part.items()}
        for part in (far, clips)
    )
    print(f"\n{far_cue.table(networks, runs)}\n\n{moving_cue.table(moving)}\n")
    deviations = far_cue.deviations(runs) + moving_cue.deviations(moving)
    for surprise in deviations:
        print(f"not as expected: {surprise}")
    tables = far_cue.table(networks, runs, "github"), moving_cue.table(moving, "github")
    write_text(folder / "table.md", "\n\n".join(tables) + "\n")
    with atomic_write(folder / "table.png") as file:
        far_cue.draw(networks, runs, file)
    print(f"written: {folder / 'table.md'}\nwritten: {folder / 'table.png'}")
    print(f"{time.perf_counter() - started:.0f} s for {len(configs)} networks")
    if deviations and not args.opts:  # with other settings, anything may come out
        sys.exit(1)


if __name__ == "__main__":
    main()
