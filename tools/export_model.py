#!/usr/bin/env python
"""Export a model as a program that runs without ccsa.

    python tools/export_model.py --weights output/digits/ccnet/1 --format onnx --output ccnet.onnx
    python tools/export_model.py --config-file configs/ccnet_mask_rcnn.yaml --weights model.pth \\
        --format torchscript --output detector.pt --check

A semantic model is exported completely, from an image of any size to its classes, and a detector
to boxes, scores, classes and masks. Of a panoptic model, the backbone with its context
blocks is exported. docs/EXPORT.md describes inputs and outputs, and how to run the
program.
"""

import argparse
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from ccsa.checkpoint import Checkpointer
from ccsa.engine import Trainer, describe_device, trained_cfg
from ccsa.engine.own_data import add_data_arguments
from ccsa.engine.stored_classes import known_classes
from ccsa.engine.trained_model import add_trained_model_arguments
from ccsa.errors import UserError, reports_user_errors
from ccsa.export import (
    FORMATS,
    InstancePart,
    Part,
    SemanticProgram,
    WholePart,
    check_packages,
    detection_differences,
    difference,
    export,
    exported_part,
    program_metadata,
    semantic_differences,
)
from ccsa.export.evaluation import evaluate_program, seconds_in_turns
from ccsa.export.quantization import block_paths, calibration_images, quantize
from ccsa.utils.files import atomic_write, check_new_file

# Float32 sums in another order differ by a few rounding errors per layer.
TOLERANCE = 1e-3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_trained_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--format", required=True, choices=list(FORMATS), help="its format")
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the program with the model at another size; keep no file if they differ",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="quantize convolutions and linear layers of an onnx program to 8-bit integers, with "
        "images of the run's dataset, and report its metric and speed",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def check(part: Part, name: str, file: Path) -> str:
    """Compare the program with the model and return the result as a sentence.

    Raises:
        UserError: they differ.
    """
    (height, width), largest = difference(part, name, file)
    if not largest <= TOLERANCE:  # written so that NaN fails too
        raise UserError(
            f"the {name} program differs from the model by {largest:.1e} of the largest value at "
            f"{height}x{width}; try another --format, or omit --check"
        )
    return (
        f"checked at {height}x{width}, another size than it was written with: largest difference "
        f"from the model: {largest:.1e} of the largest value"
    )


def check_detector(model: Any, part: InstancePart, name: str, file: Path) -> str:
    """Compare the detections of the program with those of the model; return a sentence.

    Raises:
        UserError: they differ at one of the sizes.
    """
    differences = detection_differences(model, part, file)
    for size, found in differences.items():
        if not found.agrees:
            raise UserError(
                f"the {name} program differs from the model on an image ({size}): of "
                f"{found.expected} detections, {found.unmatched} have no counterpart; boxes differ "
                f"by {found.box:.1e} pixels, scores by {found.score:.1e}, and the smallest mask "
                f"IoU is {found.iou:.4f}; try another --format, or omit --check"
            )
    every = differences.values()
    return (
        f"checked in a process without ccsa, on {', '.join(differences)}: the same "
        f"{sum(x.expected for x in every)} detections as the model; boxes within "
        f"{max(x.box for x in every):.1e} pixels, scores within {max(x.score for x in every):.1e}, "
        f"mask IoU at least {min(x.iou for x in every):.4f}"
    )


def check_semantic(model: Any, part: SemanticProgram, name: str, file: Path) -> str:
    """Compare the classes of the program with those of the model; return a sentence.

    Raises:
        UserError: they differ at one of the sizes.
    """
    differences = semantic_differences(model, part, file)
    size, worst = max(differences.items(), key=lambda item: item[1])
    if worst > 0:
        raise UserError(
            f"the {name} program differs from the model on an image ({size}) in the class of "
            f"{worst:.2%} of the pixels; try another --format, or omit --check"
        )
    sizes = ", ".join(differences)
    return f"checked in a process without ccsa, on {sizes}: the same classes as the model"


def to_int8(cfg: CfgNode, model: nn.Module, part: WholePart, file: Path) -> str:
    """Replace a program by its form in 8-bit integers; return what this changes as a sentence.

    Raises:
        UserError: the dataset of the run is not available, or the program cannot be quantized.
    """
    images = calibration_images(cfg)
    whole, layers = FORMATS["onnx"].load(file), 0
    with tempfile.TemporaryDirectory() as folder:
        smaller = Path(folder, "int8.onnx")
        layers = quantize(file, smaller, images, block_paths(model))
        programs = [whole, FORMATS["onnx"].load(smaller)]
        (name, before), (_, after) = (
            evaluate_program(run, part.outputs, cfg, Path(folder, str(i)))
            for i, run in enumerate(programs)
        )
        float_seconds, int_seconds = seconds_in_turns(programs, images)
        file.write_bytes(smaller.read_bytes())
    return (
        f"int8: {layers} layers, calibrated with {len(images)} images; on {cfg.DATASETS.TEST[0]}, "
        f"{name} {after:.2f} instead of {before:.2f} in float32; "
        f"{1e3 * int_seconds:.1f} ms for an image instead of {1e3 * float_seconds:.1f} ms "
        f"({float_seconds / int_seconds:.2f} times as fast, medians in turns on this CPU)"
    )


def describe(metadata: Mapping[str, Any]) -> list[str]:
    """Return lines about the classes and intensities in the metadata of a program."""
    lines = []
    for key in ("thing_classes", "stuff_classes"):
        names = metadata[key]
        if names:
            more = ", ..." if len(names) > 10 else ""
            lines.append(f"{key}: {', '.join(names[:10])}{more}")
    if metadata["intensity_range"]:
        low, high = metadata["intensity_range"]
        lines.append(f"intensity range: {low:g} to {high:g} become 0 and 255")
    if "tiles" in metadata:
        size, overlap = (" x ".join(map(str, metadata["tiles"][k])) for k in ("size", "overlap"))
        lines.append(
            f"tiles: {size} with an overlap of {overlap}; the caller resizes the image and merges "
            "them, as examples/run_onnx.py does"
        )
    return lines


@reports_user_errors
def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    output = Path(args.output).expanduser()
    suffix = FORMATS[args.format].suffix
    if output.suffix != suffix:
        raise UserError(f"--output {output} does not fit {args.format}: name a {suffix} file")
    check_new_file(output, "--output")
    if args.int8 and args.format != "onnx":
        raise UserError(f"--int8 is for --format onnx, not {args.format}")
    check_packages(args.format, "write", *["run"] * (args.check or args.int8))
    cfg = trained_cfg(args, device="cpu")
    print(describe_device(cfg.MODEL.DEVICE))
    print(f"weights: {cfg.MODEL.WEIGHTS or 'random'}")
    model = Trainer.build_model(cfg).eval()
    checkpointer = Checkpointer(model)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    if checkpointer.report:
        print(*checkpointer.report.lines, sep="\n")
    part = exported_part(model, cfg)
    if isinstance(part, SemanticProgram) and args.format == "torch.export":
        # torch.export cannot prove that a bilinear resize to every size is valid.
        part = exported_part(model)
    whole = part if isinstance(part, WholePart) else None
    if args.int8 and whole is None:
        raise UserError(
            "--int8 is for programs of whole models, and of this one only the backbone is exported"
        )
    if args.int8 and cfg.TEST.TILES.ENABLED:
        raise UserError(
            "--int8 evaluates programs on whole images, and this one takes tiles; set "
            "TEST.TILES.ENABLED False"
        )
    if args.int8 and not cfg.DATASETS.TEST:
        raise UserError("--int8 reports the metric on a test dataset; set DATASETS.TEST")
    metadata = program_metadata(cfg, *known_classes(cfg), part=whole)
    with atomic_write(output) as partial:
        export(part, args.format, partial, metadata)
        checked = "not checked: add --check"
        if args.check and isinstance(part, InstancePart):
            checked = check_detector(model, part, args.format, partial)
        elif args.check and isinstance(part, SemanticProgram):
            checked = check_semantic(model, part, args.format, partial)
        elif args.check and isinstance(part, Part):
            checked = check(part, args.format, partial)
        integers = to_int8(cfg, model, whole, partial) if args.int8 and whole else ""
        size = partial.stat().st_size / 2**20
    print(f"written: {output} ({size:.1f} MiB), image -> {', '.join(part.outputs)}")
    inputs = "one image" if part.frames == 1 else f"a clip of {part.frames} frames"
    if whole:
        print(f"sizes: {inputs}, uint8 RGB (height, width, 3) of any height and width")
    else:
        print(
            f"sizes: {inputs}, height and width in multiples of {part.multiple} "
            f"from {2 * part.multiple} up"
        )
    for line in describe(metadata):
        print(line)
    print(checked)
    if integers:
        print(integers)


if __name__ == "__main__":
    main()
