"""Measure criss-cross attention, mmcv's module, the official algorithm and the non-local block.

    python -m benchmarks                         # all suites on the CPU: 15 minutes on 2 cores
    python -m benchmarks --suites operator --shapes 1x512x97x97 2x256x50x84 --repeats 20
    python -m benchmarks --device cuda --dtype bfloat16    # the Triton kernels

It prints tables and writes BENCHMARKS.md, benchmarks.json (all numbers) and benchmarks.png to a new
folder. The contenders take turns, so that other load on the machine affects all of them; without
other load, the spreads are smaller.
"""

import argparse
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import attention, report
from benchmarks.compilation import compilation
from benchmarks.evaluation import coco_rates
from benchmarks.model import whole_model
from benchmarks.panoptic import panoptic_rate
from benchmarks.scaling import PICTURE, draw, scaling
from ccsa.errors import UserError, reports_user_errors
from ccsa.utils.files import atomic_write, write_text
from ccsa.utils.run_folders import new_folder

ROOT = Path(__file__).resolve().parents[1]
SUITES: dict[str, Callable[..., report.Section]] = {
    "operator": attention.operator,
    "block": attention.block,
    "non-local": attention.non_local,
    "scaling": scaling,
    "model": partial(whole_model, configs=ROOT / "configs"),
    "compilation": partial(compilation, configs=ROOT / "configs"),
    "evaluation": lambda options: coco_rates(log=options.log),
    "panoptic": partial(panoptic_rate, writer=ROOT / "tests/support/panoptic_files.py"),
}


def shape(text: str) -> tuple[int, ...]:
    """Parse a shape, e.g. ``1x512x97x97`` or ``1x256x5x45x60``."""
    try:
        sizes = tuple(int(part) for part in text.split("x"))
    except ValueError:
        sizes = ()
    if len(sizes) not in (4, 5) or min(sizes) < 1 or sizes[1] % 8:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a shape; give BxCxHxW or BxCxTxHxW with C divisible by 8, e.g. "
            "1x512x97x97"
        )
    return sizes


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not an integer of at least 1")
    return int(text)


def parse_args() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--suites", nargs="+", choices=list(SUITES), default=list(SUITES), help="default: all"
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=shape,
        metavar="BxCxHxW",
        help="shapes for the operator and the block",
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="default: cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=positive, help="threads of the CPU; default: all cores")
    parser.add_argument("--repeats", type=positive, help="timed turns; default: 3, or 30 on cuda")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="a new folder; default: output/benchmark/N"
    )
    return parser.parse_args()


def output_folder(folder: Path | None) -> Path:
    """Create the requested folder, or the next numbered one under output/benchmark, and return it.

    Raises:
        UserError: the folder exists and is not empty, or it cannot be created.
    """
    if folder is None:
        return new_folder(Path("output/benchmark"))
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--output {folder} already exists; name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create --output {folder}: {error.strerror}") from error
    return folder


@reports_user_errors
def main() -> None:
    args = parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda: no CUDA device is available; omit the option to use the CPU"
        )
    logging.disable(logging.INFO)
    if args.threads and args.threads > (os.cpu_count() or 1):
        raise UserError(f"--threads {args.threads}: this machine has {os.cpu_count()} cores")
    if args.threads:
        torch.set_num_threads(args.threads)
    folder = output_folder(args.output)
    started = time.perf_counter()

    def log(text: str) -> None:
        print(f"[{time.perf_counter() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    options = attention.Options(device, getattr(torch, args.dtype), log=log)
    options.shapes = args.shapes or options.shapes
    options.warmup, options.repeats = (10, 30) if device.type == "cuda" else (1, 3)
    options.repeats = args.repeats or options.repeats

    facts = report.machine(device)
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    sections = []
    for name in args.suites:
        section = SUITES[name](options)
        sections.append(section)
        print(f"\n{section.title}\n\n{section.table()}\n")
        for note in section.notes:
            print(f"note: {note}")
        # Written after every suite, so that an interrupt loses one suite at most.
        for file, text in (
            ("BENCHMARKS.md", report.markdown(sections, facts, command)),
            ("benchmarks.json", report.as_json(sections, facts, command)),
        ):
            write_text(folder / file, text)
        if name == "scaling":
            with atomic_write(folder / PICTURE) as part:
                draw(section, part)
    log("done")
    print(f"\nwritten: {folder}/BENCHMARKS.md, benchmarks.json")


if __name__ == "__main__":
    main()
