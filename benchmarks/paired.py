"""Compare the time of the block CrissCross in two checkouts of the project, in paired turns.

    git worktree add /tmp/before v0.0
    python -m benchmarks.paired /tmp/before
    python -m benchmarks.paired /tmp/before --shapes 1x512x97x97 --scale 1000 --turns 60

One process per checkout runs a forward and backward pass when it is its turn; the order alternates
from turn to turn, and after ten turns, new processes are started in the other order. The time is
the CPU time of one thread, which other load affects less than the time of the clock. The ratio is
the median over the turns of after / before; its interval contains the true median with a
probability of 95 %, by the order statistics of the binomial distribution.
"""

import argparse
import atexit
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from benchmarks import cases
from benchmarks.__main__ import positive, shape
from ccsa.blocks import CrissCross
from ccsa.errors import UserError, reports_user_errors

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ["2x64x33x33", "2x256x50x84", "1x512x97x97", "1x512x7x200", "1x256x5x45x60"]
WORKER = "--worker"
TURNS = 10  # per process: where its memory is located makes a difference of a few percent

_running: dict[int, subprocess.Popen] = {}


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Return the median and the bounds of its interval of 95 %.

    Example:
        >>> interval([0.99, 1.0, 1.01, 1.0, 1.02, 0.98, 1.0])
        (1.0, 0.98, 1.02)
    """
    values = sorted(ratios)
    n = len(values)
    below = max(0, int(n / 2 - 1.96 * n**0.5 / 2))
    return float(np.median(values)), values[below], values[n - 1 - below]


def work(size: tuple[int, ...], recurrence: int, scale: float) -> None:
    """Run a forward and backward pass per line of the standard input; print its CPU seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    block = CrissCross(size[1], recurrence=recurrence, dims=len(size) - 2)
    torch.nn.init.constant_(block.gamma, 0.5)
    x, grad = (cases.channels_last(torch.randn(size)) for _ in range(2))
    step = cases.step(block, grad, scale * x)
    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        step()
        print(time.process_time() - started, flush=True)


def start(checkout: Path, arguments: dict) -> subprocess.Popen:
    """Start the process that runs the code of a checkout."""
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    environment["PYTHONPATH"] = os.pathsep.join([str(checkout / "projects"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.paired", WORKER, json.dumps(arguments)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    answer(process)
    return process


def answer(process: subprocess.Popen) -> str:
    """Return the next line of a process.

    Raises:
        UserError: the process has ended.
    """
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise UserError("a checkout cannot run the block; see its error above")
    return line


def compare(before: Path, arguments: dict, turns: int) -> list[tuple[float, float]]:
    """Return the seconds (before, after) of every turn."""
    pairs = []
    for turn in range(turns):
        if turn % TURNS == 0:
            end()
            order = [0, 1] if turn // TURNS % 2 == 0 else [1, 0]
            for i in order:
                _running[i] = start((before, ROOT)[i], arguments)
        seconds = [0.0, 0.0]
        for i in (0, 1) if turn % 2 == 0 else (1, 0):
            stdin = _running[i].stdin
            assert stdin is not None
            print(file=stdin, flush=True)
            seconds[i] = float(answer(_running[i]))
        pairs.append((seconds[0], seconds[1]))
    end()
    return pairs


def end() -> None:
    """End the processes."""
    while _running:
        process = _running.popitem()[1]
        process.kill()
        process.wait()


def parse_args() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--shapes", nargs="+", type=shape, default=[*map(shape, SHAPES)])
    parser.add_argument("--turns", type=positive, default=40, help="default: 40")
    parser.add_argument("--recurrence", type=positive, default=2, help="default: 2")
    parser.add_argument("--scale", type=float, default=1.0, help="of the features; default: 1")
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    if sys.argv[1:2] == [WORKER]:
        return work(**json.loads(sys.argv[2]))
    args = parse_args()
    if not (args.before / "projects/ccsa").is_dir():
        raise UserError(f"{args.before} is not a checkout: it has no folder projects/ccsa")
    atexit.register(end)
    rows, every = [], []
    for size in args.shapes:
        arguments = {"size": size, "recurrence": args.recurrence, "scale": args.scale}
        pairs = compare(args.before.resolve(), arguments, args.turns)
        ratios = [after / before for before, after in pairs]
        every += ratios
        middle, low, high = interval(ratios)
        times = [f"{1e3 * np.median(column):.1f}" for column in zip(*pairs, strict=True)]
        rows.append([str(tuple(size)), *times, f"{middle:.3f}", f"{low:.3f} to {high:.3f}"])
        print(f"{rows[-1]}", file=sys.stderr, flush=True)
    middle, low, high = interval(every)
    rows.append(["all turns", "", "", f"{middle:.3f}", f"{low:.3f} to {high:.3f}"])
    headers = ["(B, C, *S)", "before, ms", "after, ms", "after / before", "95 % interval"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
