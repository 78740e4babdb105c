#!/usr/bin/env python
"""Write a page that shows what the context blocks of a model attend to.

    RUN=output/digits/ccnet_mask_rcnn/1
    python tools/explore.py --weights $RUN --input datasets/digits/val/00000*.jpg --output page.html
    python tools/explore.py --weights output/far_cue/1/any_ccnet_R1 \
        --weights output/far_cue/1/any_ccnet_R2 --input photo.png --output page.html
    python tools/explore.py --weights output/moving_cue/T5/1 \
        --input datasets/moving_cue/val/0001_[1-5].png --output page.html

The page is one file that any browser opens from the disk, without a network. Several runs are
shown side by side. A model of clips needs the frames of each clip, in order of time, or videos.
Images of the run's datasets are also shown with their ground truth.
docs/EXPLORER.md explains the page.
"""

import argparse
from pathlib import Path
from typing import Any

from ccsa.engine import trained_cfg
from ccsa.errors import UserError, reports_user_errors
from ccsa.prediction import Predictor
from ccsa.report.explorer import LARGEST, explore, write_page
from ccsa.report.explorer_truth import find_truth
from ccsa.visualization.media import find_inputs, is_video


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights",
        action="append",
        required=True,
        metavar="RUN",
        help="the folder of a run, or a checkpoint in it; repeat it to compare runs",
    )
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        help="images, folders and glob patterns; for a model of clips, frames or videos",
    )
    parser.add_argument("--output", required=True, type=Path, help="the page, an .html file")
    parser.add_argument(
        "--largest",
        type=int,
        default=LARGEST,
        metavar="N",
        help=f"reduce larger feature maps to at most N rows and columns (default: {LARGEST})",
    )
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not measure whether predictions depend on the attended positions, which takes 22 "
        "predictions for each image and block",
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="override the configuration of every run; the last option",
    )
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Check what can be checked before a model is loaded.

    Raises:
        UserError: the output or the largest size is not valid.
    """
    if args.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {args.output} must end with .html")
    if args.largest < 2:
        raise UserError(f"--largest must be at least 2, not {args.largest}")


@reports_user_errors
def main() -> None:
    args = parse_args()
    inputs = find_inputs(args.input)
    check(args)
    videos = [file for file in inputs if is_video(file)]
    runs: list[dict[str, Any]] = []
    for run in args.weights:
        cfg = trained_cfg(argparse.Namespace(weights=run, config_file="", opts=args.opts))
        predictor = Predictor.of(cfg)
        if videos and predictor.clip is None:
            raise UserError(f"{videos[0]} is a video, and {run} takes images; name images")
        truth = find_truth(cfg, inputs)
        page = explore(run, predictor, inputs, args.largest, check=not args.no_check, truth=truth)
        runs.append(page)
    write_page(runs, args.output)
    what = "clips" if "frames" in runs[0]["images"][0] else "images"
    size = args.output.stat().st_size / 1e6
    print(f"written: {args.output} ({size:.1f} MB, {len(runs[0]['images'])} {what})")


if __name__ == "__main__":
    main()
