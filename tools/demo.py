#!/usr/bin/env python
"""Draw the predictions of a model on images, videos or the frames of a camera.

    RUN=output/digits/ccnet_mask_rcnn/1
    python tools/demo.py --weights $RUN --input datasets/digits/val/0000*.jpg --output drawn/
    python tools/demo.py --weights $RUN --input a.jpg folder/ '*.png' clip.mp4 --output drawn/
    python tools/demo.py --weights $RUN --input folder/ --coco predictions.json
    python tools/demo.py --config-file configs/ccnet_mask_rcnn.yaml --weights model.pth --webcam

KEY VALUE pairs at the end override the configuration. Without --output and --coco the drawings
are shown in a window: Esc or q ends the program, any other key shows the next one.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ccsa.engine import describe_device, trained_cfg
from ccsa.engine.own_data import add_data_arguments
from ccsa.engine.trained_model import add_trained_model_arguments
from ccsa.errors import UserError, reports_user_errors
from ccsa.prediction import CocoFile, Predictor
from ccsa.prediction.coco_file import describe
from ccsa.prediction.demo import Demo, Window
from ccsa.visualization.media import choose_targets, find_inputs, is_video

# A key of the configuration that has a section, such as MODEL.DEVICE.
CONFIG_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+")


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:  # NaN fails too
        raise argparse.ArgumentTypeError(f"'{text[:60]}' is not a number from 0 to 1")
    return value


def camera(text: str) -> int:
    """Parse the number of a camera."""
    value = int(text)
    if not 0 <= value < 1000:
        raise argparse.ArgumentTypeError(
            f"'{text[:60]}' is not the number of a camera; the first is 0"
        )
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_trained_model_arguments(parser)
    add_data_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="images, folders, glob patterns and videos")
    source.add_argument("--video-input", metavar="FILE", help="one video, whatever its suffix is")
    source.add_argument(
        "--webcam",
        nargs="?",
        type=camera,
        const=0,
        metavar="N",
        help="a camera, by default number 0",
    )
    parser.add_argument(
        "--output", help="a folder, or a file if there is one input; by default a window is opened"
    )
    parser.add_argument(
        "--coco",
        metavar="JSON",
        help="write the predictions for the images to a COCO JSON file, for review",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files of --output and --coco that exist; by default they are refused",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=fraction,
        default=0.5,
        metavar="SCORE",
        help="draw objects with at least this score (default: 0.5)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="override the configuration; INPUT.CLIP.STEP counts the frames of the video, whatever "
        "INPUT.CLIP.SOURCE is",
    )
    parser.add_argument(
        "--opts",
        dest="more_opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="the same KEY VALUE pairs, as the last option",
    )
    args = parser.parse_args()
    args.input, options = split_options(args.input or [])
    args.opts = [*options, *args.opts, *args.more_opts]
    return args


def split_options(words: list[str]) -> tuple[list[str], list[str]]:
    """Split the words after --input into inputs and KEY VALUE pairs, which may follow directly.

    Example:
        >>> split_options(["a.jpg", "folder/", "MODEL.DEVICE", "cpu"])
        (['a.jpg', 'folder/'], ['MODEL.DEVICE', 'cpu'])
    """
    for index, word in list(enumerate(words))[1:]:
        if CONFIG_KEY.fullmatch(word) and not Path(word).exists():
            return words[:index], words[index:]
    return words, []


def open_coco_file(args: argparse.Namespace, inputs: Sequence[str], demo: Demo) -> CocoFile:
    """Return the file of --coco, whose file names are relative to the folder of the inputs."""
    folders = [Path(file).absolute().parent for file in inputs]
    predictor = demo.predictor
    return CocoFile(
        Path(args.coco),
        Path(os.path.commonpath(folders)),
        predictor.categories,
        description=describe(predictor.cfg.MODEL.WEIGHTS, predictor.confidence),
        overwrite=args.overwrite,
        option="--coco",
    )


def draw_files(demo: Demo, inputs: Sequence[str], outputs: Sequence[Path | Window | None]) -> None:
    """Draw every input. An input that cannot be read is reported, and the others are drawn.

    Raises:
        UserError: an input could not be drawn; raised at the end, with the names of all of them.
    """
    failed = []
    for file, output in tqdm(list(zip(inputs, outputs, strict=True)), disable=len(inputs) < 2):
        try:
            if output is not None and is_video(file):
                goes_on = demo.draw_video(file, output)
            else:
                goes_on = demo.draw_image(file, output)
            if not goes_on:
                break
        except UserError as error:
            if len(inputs) == 1:
                raise
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed.append(file)
    if demo.images:
        first = outputs[0]
        where = ""
        if isinstance(first, Path):
            where = f" in {first if len(outputs) == 1 else first.parent}"
        done = "predicted" if first is None else "drawn"
        print(f"{demo.images} images {done}{where}; {demo.timing}")
    if demo.coco is not None and len(demo.coco):
        demo.coco.write()
        print(
            f"{len(demo.coco.annotations)} annotations of {len(demo.coco)} images: {demo.coco.path}"
            f" (--data {demo.coco.path} --images {demo.coco.root} reads them)"
        )
    if failed:
        raise UserError(
            f"{len(failed)} of {len(inputs)} inputs could not be drawn: {', '.join(failed)}"
        )


def check_coco_option(args: argparse.Namespace, inputs: Sequence[str]) -> None:
    """Check before the model is loaded that --coco can be written and that its inputs are images.

    Raises:
        UserError: it cannot, or they are not.
    """
    videos = [file for file in inputs if is_video(file)]
    if args.webcam is not None or videos:
        source = videos[0] if videos else "--webcam"
        raise UserError(f"--coco is for images, and {source} is not one; remove it, or --coco")
    CocoFile(Path(args.coco), Path(), [], overwrite=args.overwrite, option="--coco")


@reports_user_errors
def main() -> None:
    args = parse_args()
    if args.webcam is not None and args.output:
        raise UserError("--webcam draws into a window; remove --output")
    inputs = find_inputs(args.input or [args.video_input]) if args.webcam is None else []
    if args.coco:
        check_coco_option(args, inputs)
    targets = []
    if args.output:
        targets = choose_targets(inputs, args.output, overwrite=args.overwrite)
    window = None if args.output or args.coco else Window()
    cfg = trained_cfg(args)
    print(describe_device(cfg.MODEL.DEVICE))
    print(f"weights: {cfg.MODEL.WEIGHTS or 'random'}")
    predictor = Predictor.of(cfg, confidence=args.confidence_threshold)
    if predictor.load_report:  # empty for random weights
        print(*predictor.load_report, sep="\n")
    demo = Demo(predictor)
    if args.coco:
        demo.coco = open_coco_file(args, inputs, demo)
    if window is None:
        draw_files(demo, inputs, targets or [None] * len(inputs))
    elif args.webcam is None:
        draw_files(demo, inputs, [window] * len(inputs))
    else:
        demo.draw_video(args.webcam, window)


if __name__ == "__main__":
    main()
