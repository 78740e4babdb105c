#!/usr/bin/env python
"""Parameters, FLOPs, time and memory of a configuration's model, or CCNet's table of costs.

    python tools/analyze_model.py --config-file configs/ccnet_mask_rcnn.yaml
    python tools/analyze_model.py --config-file configs/lip/ccnet_R_50_os16_473_150ep.yaml
    python tools/analyze_model.py --paper

The model has random weights and sees one image, which is noise unless --image names one; what
depends on the image (proposals, detections) is counted for it. One multiply-add is one FLOP, except
with --paper.
"""

import argparse
import logging

import numpy as np
import torch
from detectron2.modeling import ROIHeads
from fvcore.nn import flop_count_table
from tabulate import tabulate

from ccsa.analysis.comparison import three_digits
from ccsa.analysis.flops import flop_analysis
from ccsa.analysis.measure import measure
from ccsa.engine.setup import describe_device, setup_cfg
from ccsa.engine.trainer import Trainer
from ccsa.errors import reports_user_errors
from ccsa.inference.predictor import Predictor
from ccsa.insertion import context_blocks
from ccsa.visualization.media import read_image
from experiments.ccnet_costs import NOTES, paper_table


def size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH``."""
    parts = text.split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no size; give HEIGHTxWIDTH, e.g. 800x1333")
    return int(parts[0]), int(parts[1])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", metavar="FILE")
    what.add_argument("--paper", action="store_true", help="CCNet's table, ours beside the paper's")
    image = parser.add_mutually_exclusive_group()
    image.add_argument("--image", metavar="FILE", help="prepared as at test time")
    image.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="of the noise that the model sees, not resized; default: the configuration's test "
        "size, 3 to 4",
    )
    parser.add_argument("--depth", type=int, default=2, help="of the modules that are listed")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    if args.paper:
        print(paper_table())
        for note in NOTES:
            print(f"note: {note}")
        return
    cfg = setup_cfg(args)
    cfg.defrost()
    if args.size:
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = min(args.size), max(args.size)
    short = cfg.INPUT.MIN_SIZE_TEST or 800
    shape = args.size or (short, min(short * 4 // 3, cfg.INPUT.MAX_SIZE_TEST))
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image = read_image(args.image) if args.image else noise
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    predictor = Predictor(cfg, model)
    inputs = [predictor.prepare(predictor.still(image))]
    analysis = flop_analysis(model, inputs)
    print(flop_count_table(analysis, max_depth=args.depth))
    cost = measure(cfg, model, image, warmup=1, repeats=3)
    height, width = inputs[0]["image"].shape[-2:]
    counts = analysis.by_module()
    blocks = [
        [
            name,
            f"{three_digits(sum(p.numel() for p in block.parameters()) / 1e6)} M parameters, "
            f"{three_digits(counts[f'model.{name}'] / 1e9)} G",
        ]
        for name, block in context_blocks(model)
    ]
    rows = [
        ["parameters", f"{three_digits(cost.parameters / 1e6)} M"],
        ["FLOPs", f"{three_digits(cost.flops / 1e9)} G (one multiply-add is one)"],
        ["time", f"{three_digits(cost.seconds * 1e3)} ms (median of 3)"],
        ["memory", f"{three_digits(cost.memory / 2**20)} MiB beyond the weights"],
    ]
    print(f"\none image of {height}x{width}, {describe_device(cfg.MODEL.DEVICE)}")
    print(tabulate([*rows, *blocks], tablefmt="plain"))
    if any(isinstance(module, ROIHeads) for module in model.modules()):
        print(
            "note: boxes and masks are counted for what random weights find in this image; "
            "to compare detectors, compare their backbones"
        )


if __name__ == "__main__":
    main()
