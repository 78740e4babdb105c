#!/usr/bin/env python
"""Run a detector that tools/export_model.py wrote as ONNX, and draw what it finds.

    python examples/run_onnx.py detector.onnx image.jpg result.png

Needs only onnxruntime, NumPy and Pillow. Everything else it has to know is in the program: its
classes, the order of its channels, and its outputs. The program takes an image of any size.
"""

import argparse
import colorsys
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps


class Problem(Exception):
    """What the user can correct, as one sentence."""


def load(file):
    """Return the session of a program and its metadata."""
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise Problem(f"{file} is not a program that onnxruntime can run: {reason}") from error
    properties = session.get_modelmeta().custom_metadata_map
    if "input_channels" not in properties or "outputs" not in properties:
        raise Problem(
            f"{file} is not a detector of tools/export_model.py: its metadata lack the input and "
            "the outputs"
        )
    return session, {key: json.loads(value) for key, value in properties.items()}


def read(file, metadata):
    """Return an image file as uint8 (height, width, 3), upright and in the order of the program."""
    try:
        with Image.open(file) as opened:
            image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except OSError as error:
        raise Problem(f"{file} cannot be read as an image: {error}") from error
    return image if metadata["input_channels"] == "RGB" else np.ascontiguousarray(image[:, :, ::-1])


def detect(session, metadata, image):
    """Return the outputs of the program by name.

    Without masks: boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,) and classes (N,); with
    masks also masks (N, height, width).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise Problem(
            f"the program takes uint8 of shape (height, width, 3), not {image.dtype} of shape "
            f"{image.shape}"
        )
    return dict(zip(metadata["outputs"], session.run(None, {"image": image}), strict=True))


def draw(image, found, metadata, threshold):
    """Return an RGB image with the masks, boxes and names of the detections."""
    names = metadata["thing_classes"]
    shown = np.flatnonzero(found["scores"] >= threshold)
    colors = [
        tuple(int(255 * x) for x in colorsys.hsv_to_rgb(i / max(1, len(shown)), 0.9, 1.0))
        for i in range(len(shown))
    ]
    pixels = image.astype(np.float32)
    for i, color in zip(shown, colors, strict=True):
        if "masks" in found:
            mask = found["masks"][i]
            pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(color, np.float32)
    picture = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for i, color in zip(shown, colors, strict=True):
        x1, y1, x2, y2 = (float(x) for x in found["boxes"][i])
        number = int(found["classes"][i])
        name = names[number] if number < len(names) else f"class {number}"
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color)
        pen.text((x1 + 2, y1), f"{name} {found['scores'][i]:.0%}", fill=color)
    return picture


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the .onnx file")
    parser.add_argument("image", help="the image file")
    parser.add_argument("result", help="the picture to write, such as result.png")
    parser.add_argument("--threshold", type=float, default=0.5, help="the lowest score to draw")
    args = parser.parse_args()
    try:
        if Path(args.result).exists():
            raise Problem(f"{args.result} exists and would be overwritten; name another file")
        session, metadata = load(args.program)
        image = read(args.image, metadata)
        found = detect(session, metadata, image)
        rgb = image if metadata["input_channels"] == "RGB" else image[:, :, ::-1]
        draw(rgb, found, metadata, args.threshold).save(args.result)
    except (Problem, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    for box, score, number in zip(found["boxes"], found["scores"], found["classes"], strict=True):
        if score >= args.threshold:
            names = metadata["thing_classes"]
            name = names[number] if number < len(names) else f"class {number}"
            print(f"{name}\t{score:.3f}\t" + "\t".join(f"{x:.1f}" for x in box))


if __name__ == "__main__":
    main()
