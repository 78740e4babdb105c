#!/usr/bin/env python
"""Draw the predictions of a model on images, videos or the frames of a camera.

    RUN=output/digits/ccnet_mask_rcnn/1
    python tools/demo.py --weights $RUN --input datasets/digits/val/0000*.jpg --output drawn/
    python tools/demo.py --weights $RUN --input a.jpg folder/ '*.png' clip.mp4 --output drawn/
    python tools/demo.py --config-file configs/ccnet_mask_rcnn.yaml --weights model.pth --webcam

KEY VALUE pairs at the end override the configuration. Without --output the drawings are
shown in a window: Esc or q ends the program, any other key shows the next one.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm

from ccsa.checkpoint import Checkpointer
from ccsa.engine import Trainer, describe_device, trained_cfg
from ccsa.engine.own_data import add_data_arguments
from ccsa.engine.trained_model import add_trained_model_arguments
from ccsa.errors import UserError, reports_user_errors
from ccsa.inference import build_inference
from ccsa.visualization.demo import Demo, Window
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


def with_threshold(cfg: CfgNode, confidence: float) -> CfgNode:
    """Return the configuration with a confidence threshold for every kind of model."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = confidence
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = confidence
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = confidence
    cfg.freeze()
    return cfg


def draw_files(demo: Demo, inputs: Sequence[str], outputs: Sequence[Path | Window]) -> None:
    """Draw every input. An input that cannot be read is reported, and the others are drawn.

    Raises:
        UserError: an input could not be drawn; raised at the end, with the names of all of them.
    """
    failed = []
    for file, output in tqdm(list(zip(inputs, outputs, strict=True)), disable=len(inputs) < 2):
        draw = demo.draw_video if is_video(file) else demo.draw_image
        try:
            if not draw(file, output):
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
        print(f"{demo.images} images drawn{where}; {demo.timing}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(inputs)} inputs could not be drawn: {', '.join(failed)}"
        )


@reports_user_errors
def main() -> None:
    args = parse_args()
    if args.webcam is not None and args.output:
        raise UserError("--webcam draws into a window; remove --output")
    inputs = find_inputs(args.input or [args.video_input]) if args.webcam is None else []
    targets = choose_targets(inputs, args.output) if args.output else []
    window = None if args.output else Window()
    cfg = with_threshold(trained_cfg(args), args.confidence_threshold)
    print(describe_device(cfg.MODEL.DEVICE))
    print(f"weights: {cfg.MODEL.WEIGHTS or 'random'}")
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    if checkpointer.report:  # None for random weights
        print(*checkpointer.report.lines, sep="\n")
    demo = Demo(cfg, build_inference(cfg, model))
    if window is None:
        draw_files(demo, inputs, targets)
    elif args.webcam is None:
        draw_files(demo, inputs, [window] * len(inputs))
    else:
        demo.draw_video(args.webcam, window)


if __name__ == "__main__":
    main()
