#!/usr/bin/env python
"""Draw what a model sees in images, videos or a camera.

    RUN=output/digits/ccnet_mask_rcnn/1
    python tools/demo.py --weights $RUN --input datasets/digits/val/0000*.jpg --output shown/
    python tools/demo.py --weights $RUN --input a.jpg folder/ '*.png' clip.mp4 --output shown/
    python tools/demo.py --config-file configs/ccnet_mask_rcnn.yaml --weights model.pth --webcam

Without --output the drawings are shown in a window: any key goes on, Esc ends.
"""

import argparse
import sys
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm

from ccsa.checkpoint import Checkpointer
from ccsa.engine import Trainer, add_config_arguments, describe_device, trained_cfg
from ccsa.errors import UserError, reports_user_errors
from ccsa.visualization import media
from ccsa.visualization.demo import Demo, Window


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights",
        metavar="RUN_OR_FILE",
        help="folder of a run, or a .pth, .safetensors or .pkl file",
    )
    add_config_arguments(parser, help="default: the configuration of the run")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="images, folders, globs, videos")
    source.add_argument("--video-input", metavar="FILE", help="one video, whatever it is called")
    source.add_argument(
        "--webcam", nargs="?", type=int, const=0, metavar="N", help="a camera, by default number 0"
    )
    parser.add_argument("--output", help="a file for one input, else a folder; by default a window")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="by default 0.5")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="KEY VALUE ..., last; INPUT.CLIP.STEP is in frames of the video, whatever its SOURCE",
    )
    return parser.parse_args()


def with_threshold(cfg: CfgNode, confidence: float) -> CfgNode:
    """The configuration, for what any kind of model is this sure of."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = confidence
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = confidence
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = confidence
    cfg.freeze()
    return cfg


def draw_files(
    demo: Demo, inputs: list[str], targets: list[Path | None], window: Window | None
) -> None:
    """Draw every input; one that cannot be read is reported, and the rest is drawn.

    Raises:
        UserError: at the end, naming what could not be read.
    """
    failed = []
    for file, target in tqdm(list(zip(inputs, targets, strict=True)), disable=len(inputs) < 2):
        draw = demo.draw_video if media.is_video(file) else demo.draw_image
        try:
            if not draw(file, target, window):
                break
        except UserError as error:
            if len(inputs) == 1:
                raise
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed.append(file)
    if demo.images:
        where = "" if window else f" in {targets[0] if len(targets) == 1 else targets[0].parent}"
        print(f"{demo.images} images drawn{where}; {demo.timing}")
    if failed:
        raise UserError(f"{len(failed)} of {len(inputs)} inputs not drawn: {', '.join(failed)}")


@reports_user_errors
def main() -> None:
    args = parse_args()
    if args.webcam is not None and args.output:
        raise UserError("--webcam is shown in a window; leave --output away")
    inputs = media.find_inputs(args.input or [args.video_input]) if args.webcam is None else []
    targets = media.choose_targets(inputs, args.output) if args.output else [None] * len(inputs)
    window = None if args.output else Window()
    cfg = with_threshold(trained_cfg(args), args.confidence_threshold)
    print(describe_device(cfg.MODEL.DEVICE))
    print(f"weights: {cfg.MODEL.WEIGHTS or 'random'}")
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    print(*checkpointer.report.lines, sep="\n")
    demo = Demo(cfg, model)
    if args.webcam is None:
        draw_files(demo, inputs, targets, window)
    else:
        demo.draw_video(args.webcam, None, window)


if __name__ == "__main__":
    main()
