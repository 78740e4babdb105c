#!/usr/bin/env python
"""Print the parameters, FLOPs, time and memory of a configuration's model for one image.

    python tools/analyze_model.py --config-file configs/ccnet_mask_rcnn.yaml
    python tools/analyze_model.py --config-file configs/lip/ccnet_R_50_os16_473_150ep.yaml

The model has random weights. Its input is one image of noise, or the file given by --image. Work
that depends on the image (proposals and detections) is counted for that image. One multiply-add
counts as one FLOP. CCNet's table of costs is computed by `python -m experiments.ccnet_costs`.
"""

import argparse
import logging
from collections.abc import Mapping

import numpy as np
import torch

import ccsa  # noqa: F401  first, because it silences a warning of the imports below

# isort: split
from detectron2.modeling import ROIHeads
from tabulate import tabulate
from torch import nn

from ccsa.analysis import count_parameters, flop_analysis, measure
from ccsa.analysis.comparison import three_digits
from ccsa.data.image_reader import intensity_range, read_image
from ccsa.engine.checks import check_model
from ccsa.engine.own_data import add_data_arguments
from ccsa.engine.setup import add_config_arguments, describe_device, setup_cfg
from ccsa.engine.trainer import Trainer
from ccsa.errors import reports_user_errors
from ccsa.inference.predictor import ModelPredictor
from ccsa.insertion import context_blocks


def size(text: str) -> tuple[int, int]:
    """Parse ``HEIGHTxWIDTH``."""
    parts = text.split("x")
    if len(parts) != 2 or not all(
        p.isdecimal() and len(p) < 7 and 0 < int(p) <= 100_000 for p in parts
    ):
        raise argparse.ArgumentTypeError(
            f"'{text[:60]}' is not a size; give HEIGHTxWIDTH, e.g. 800x1333"
        )
    return int(parts[0]), int(parts[1])


def depth(text: str) -> int:
    """Parse a number of levels."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is not a number of levels; give 0 or more")
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser, required=True)
    add_data_arguments(parser)
    image = parser.add_mutually_exclusive_group()
    image.add_argument(
        "--image", metavar="FILE", help="use this image, prepared as it is at test time"
    )
    image.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="use noise of this size, which is not resized; the default is the configuration's "
        "test size with an aspect ratio of 3 to 4",
    )
    parser.add_argument(
        "--depth", type=depth, default=2, help="list modules down to this depth (default: 2)"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def module_table(model: nn.Module, flops: Mapping[str, int], depth: int) -> str:
    """Return a table of parameters and FLOPs of the modules down to ``depth``."""
    rows = []
    for path, module in model.named_modules(prefix="model"):
        level, parameters = path.count("."), count_parameters(module)
        if level <= depth and (parameters or flops.get(path)):
            name = f"{'  ' * level}{path.removeprefix('model.')}"
            rows.append(
                [
                    name,
                    f"{three_digits(parameters / 1e6)} M",
                    f"{three_digits(flops.get(path, 0) / 1e9)} G",
                ]
            )
    headers = ["module", "parameters", "FLOPs"]
    return tabulate(rows, headers, "pipe", colalign=("left", "right", "right"))


@reports_user_errors
def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    cfg = setup_cfg(args)
    check_model(cfg)
    cfg.defrost()
    if args.size:
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = min(args.size), max(args.size)
    short = cfg.INPUT.MIN_SIZE_TEST or 800
    shape = args.size or (short, min(short * 4 // 3, cfg.INPUT.MAX_SIZE_TEST))
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    intensities = intensity_range(cfg.INPUT.INTENSITY_RANGE)
    image = read_image(args.image, intensity_range=intensities) if args.image else noise
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    predictor = ModelPredictor(cfg, model)
    inputs = [predictor.prepare(predictor.still(image))]
    flops = flop_analysis(model, inputs).by_module()
    print(module_table(model, flops, args.depth))
    cost = measure(cfg, model, image, warmup=1, repeats=3)
    height, width = inputs[0]["image"].shape[-2:]
    blocks = [
        [
            name,
            f"{three_digits(count_parameters(block) / 1e6)} M parameters, "
            f"{three_digits(flops.get(f'model.{name}', 0) / 1e9)} G",
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
            "note: boxes and masks are counted for what random weights detect in this image; "
            "to compare detectors, compare their backbones"
        )


if __name__ == "__main__":
    main()
