"""Try mutated inputs, and report the faults.

    PYTHONPATH=projects:tests:. python -m support.fuzz --first 7 --count 1 --kind weights

The process ends with status 1 if there is a fault. It is a process of its own, because the tools
run in forked processes, which is unsafe after a process has used many threads.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from support.fuzz import FAULTS, attempt_of, judge, make_world
from support.fuzz.kinds import KINDS

ROOT = Path(__file__).resolve().parents[3]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--first", type=int, default=0, help="the number of the first attempt")
    parser.add_argument("--count", type=int, default=10, help="the attempts of each kind")
    args = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(ROOT, Path(folder, "world"))
        for kind in args.kind or KINDS:
            for number in range(args.first, args.first + args.count):
                verdict = judge(attempt_of(KINDS, kind, number, world, Path(folder, "scratch")))
                if verdict.outcome in FAULTS:
                    faults += 1
                    print(f"{kind} {number}: {verdict}\n", flush=True)
    print(f"{len(args.kind or KINDS) * args.count} attempts, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
