"""Show how far each context block can see.

    python -m experiments.far_cue           criss-cross attention with R = 0, 1, 2; 1 and 5 frames
    python -m experiments.far_cue --all     also non-local, squeeze-and-attention and
                                            squeeze-and-excitation

Small networks are trained on far_cue, whose answer is far away in the image, and on moving_cue,
whose answer is in earlier frames. Every network is trained by tools/train_net.py with its
configuration in configs/far_cue or configs/moving_cue, as many at a time as there are CPU cores.
Runs, table.md and table.png are written to a new folder output/far_cue/<number>. The exit status is
1 if a score is not as docs/FAR_CUE.md explains.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

from ccsa.analysis.runs import read_run
from ccsa.data.synthetic.far_cue import VARIANTS, ensure_far_cue
from ccsa.data.synthetic.moving_cue import ensure_moving_cue
from ccsa.errors import UserError, reports_user_errors
from ccsa.utils.files import atomic_write, write_text
from ccsa.utils.run_folders import new_folder
from experiments.far_cue import moving_cue, picture, training
from experiments.far_cue import networks as far_cue


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.far_cue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="also train the other blocks")
    parser.add_argument("--seed", type=int, default=1, help="the seed of all runs (default: 1)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/far_cue"),
        help="the folder of the numbered folders (default: output/far_cue)",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs for train_net.py")
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    started, args = time.perf_counter(), parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # lets train() stop its processes
    networks = [*far_cue.RECURRENCES, *(far_cue.OTHER_BLOCKS if args.all else ())]
    far = {(v, n.config): f"far_cue/{v}_{n.config}" for n in reversed(networks) for v in VARIANTS}
    clips = {n.config: f"moving_cue/{n.config}" for n in reversed(moving_cue.NETWORKS)}
    # The datasets are written once, before several processes need them.
    ensure_far_cue()
    ensure_moving_cue()
    try:
        folder = new_folder(args.output)
    except OSError as error:
        raise UserError(
            f"cannot write to {args.output} ({error.strerror}); name another folder with --output"
        ) from error
    print(f"output: {folder}")
    configs = [*clips.values(), *far.values()]
    jobs = min(len(configs), training.available_cores())
    training.train(configs, folder, seed=args.seed, options=args.opts, jobs=jobs)

    far_runs = {key: read_run(folder / Path(config).name) for key, config in far.items()}
    clip_runs = {key: read_run(folder / Path(config).name) for key, config in clips.items()}
    print(f"\n{far_cue.table(networks, far_runs)}\n\n{moving_cue.table(clip_runs)}\n")
    deviations = far_cue.deviations(far_runs) + moving_cue.deviations(clip_runs)
    for deviation in deviations:
        print(f"not as expected: {deviation}")
    tables = far_cue.table(networks, far_runs, "github"), moving_cue.table(clip_runs, "github")
    write_text(folder / "table.md", "\n\n".join(tables) + "\n")
    with atomic_write(folder / "table.png") as file:
        picture.draw(networks, far_runs, file)
    print(f"written: {folder / 'table.md'}\nwritten: {folder / 'table.png'}")
    print(f"{len(configs)} networks in {time.perf_counter() - started:.0f} s")
    if deviations and not args.opts:  # other settings have no expected scores
        sys.exit(1)


if __name__ == "__main__":
    main()
