#!/usr/bin/env python
"""Run a program that tools/export_model.py wrote as ONNX, and draw what it finds.

    python examples/run_onnx.py detector.onnx image.jpg result.png
    python examples/run_onnx.py ccnet.onnx image.jpg result.png --tile 512 --overlap 64

Needs only onnx_tiles.py next to it, onnxruntime, NumPy and Pillow. Everything else it has to know
is in the program: its classes, the order of its channels, its outputs, and its tiles. The program
is a detector or a semantic model, and takes an image of any size.
"""

import argparse
import colorsys
import json
import sys
from pathlib import Path

import numpy as np
import onnx_tiles
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
            f"{file} is not a program of tools/export_model.py for images of any size: its "
            "metadata lack the input and the outputs"
        )
    metadata = {key: json.loads(value) for key, value in properties.items()}
    if not {"boxes", "semantic"} & set(metadata["outputs"]):
        raise Problem(
            f"{file} has the outputs {', '.join(metadata['outputs'])}; only detectors and semantic "
            "models are drawn"
        )
    if metadata["frames"] != 1:
        raise Problem(f"{file} takes clips of {metadata['frames']} frames, not an image")
    return session, metadata


def read(file, metadata):
    """Return an image file as uint8 (height, width, 3), upright and in the order of the program."""
    try:
        with Image.open(file) as opened:
            image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except OSError as error:
        raise Problem(f"{file} cannot be read as an image: {error}") from error
    return image if metadata["input_channels"] == "RGB" else np.ascontiguousarray(image[:, :, ::-1])


def tiles(metadata, size, overlap):
    """Return the size and the overlap of tiles, each [vertical, horizontal].

    Args:
        metadata: of the program, whose tiles are used unless the other arguments are given.
        size: the height and width of a tile, 0 for the whole image, or None.
        overlap: the overlap of neighbors in pixels, or None.
    """
    known = metadata.get("tiles")
    if size == 0 or (size is None and known is None):
        if overlap is not None:
            raise Problem("--overlap needs tiles; add --tile SIZE")
        return None
    sides = known["size"] if size is None else [size, size]
    if overlap is not None:
        shared = [overlap, overlap]
    else:
        shared = known["overlap"] if size is None else [max(1, size // 3)] * 2
    least = 1 if "boxes" in metadata["outputs"] else 0
    if min(sides) < 1 or any(not least <= o < t for o, t in zip(shared, sides, strict=True)):
        raise Problem(
            f"tiles of {sides[0]} x {sides[1]} pixels cannot overlap by {shared[0]} and "
            f"{shared[1]}; the overlap must be at least {least} and smaller than the tile"
        )
    return sides, shared


def detect(session, metadata, image, size=None, overlap=None):
    """Return the outputs of the program by name, merged from tiles if there are several.

    A semantic program returns semantic (height, width), a detector boxes (N, 4) as x1, y1, x2, y2
    in pixels, scores (N,), classes (N,), and with masks also masks, N :class:`onnx_tiles.Mask`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise Problem(
            f"the program takes uint8 of shape (height, width, 3), not {image.dtype} of shape "
            f"{image.shape}"
        )

    def run(pixels):
        outputs = session.run(None, {"image": pixels})
        return dict(zip(metadata["outputs"], outputs, strict=True))

    shape = resized_shape(image.shape[:2], metadata)
    chosen = tiles(metadata, size, overlap) or (shape, (0, 0))
    most = metadata.get("most_detections", -1)
    return onnx_tiles.run_on_tiles(run, image, shape, *chosen, most)


def resized_shape(shape, metadata):
    """Return the (height, width) that the image needs; a program without tiles resizes it."""
    shorter, longer = metadata["shorter_side"], metadata["longer_side_at_most"]
    if not metadata.get("tiles") or shorter == 0:
        return tuple(shape)
    scale = shorter / min(shape)
    # The shorter side is exact, as in Detectron2.
    exact = [float(shorter) if n == min(shape) else n * scale for n in shape]
    shrink = min(1.0, longer / max(exact))
    return tuple(max(1, int(n * shrink + 0.5)) for n in exact)


def color(number, count):
    """Return one of ``count`` colors; the brightness alternates between neighboring hues."""
    value = (1.0, 0.7, 0.45)[number % 3]
    return tuple(int(255 * x) for x in colorsys.hsv_to_rgb(number / max(1, count), 0.9, value))


def class_name(names, number):
    return names[number] if number < len(names) else f"class {number}"


def draw(image, found, metadata, threshold):
    """Return an RGB image with the masks, boxes and names of the detections."""
    shown = np.flatnonzero(found["scores"] >= threshold)
    colors = [color(i, len(shown)) for i in range(len(shown))]
    pixels = image.astype(np.float32)
    for i, each in zip(shown, colors, strict=True):
        if "masks" in found:
            mask = found["masks"][i]
            left, top, right, bottom = mask.box
            part = pixels[top:bottom, left:right]
            part[mask.pixels] = 0.5 * part[mask.pixels] + 0.5 * np.array(each, np.float32)
    picture = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for i, each in zip(shown, colors, strict=True):
        x1, y1, x2, y2 = (float(x) for x in found["boxes"][i])
        name = class_name(metadata["thing_classes"], int(found["classes"][i]))
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=each)
        pen.text((x1 + 2, y1), f"{name} {found['scores'][i]:.0%}", fill=each)
    return picture


def draw_classes(image, semantic, metadata):
    """Return an RGB image under the transparent colors of its classes (height, width)."""
    count = max(len(metadata["stuff_classes"]), int(semantic.max()) + 1)
    palette = np.array([color(i, count) for i in range(count)], np.float32)
    return Image.fromarray((0.5 * image + 0.5 * palette[semantic]).astype(np.uint8))


def rows(found, metadata, threshold):
    """Return the lines to print: detections, or the classes with their share of the pixels."""
    if "semantic" in found:
        counts = np.bincount(found["semantic"].ravel())
        order = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]]
        names = [class_name(metadata["stuff_classes"], i) for i in order]
        shares = counts[order] / found["semantic"].size
        return [f"{name}\t{share:.2%}" for name, share in zip(names, shares, strict=True)]
    lines = []
    for box, score, number in zip(found["boxes"], found["scores"], found["classes"], strict=True):
        if score >= threshold:
            name = class_name(metadata["thing_classes"], number)
            lines.append("\t".join([name, f"{score:.3f}", *(f"{x:.1f}" for x in box)]))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the .onnx file")
    parser.add_argument("image", help="the image file")
    parser.add_argument("result", help="the picture to write, such as result.png")
    parser.add_argument("--threshold", type=float, default=0.5, help="the lowest score to draw")
    parser.add_argument(
        "--tile",
        type=int,
        metavar="SIZE",
        help="run on tiles of this height and width in pixels, 0 for the whole image; the default "
        "is what the program was exported with",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="how many pixels of neighboring tiles overlap, at least the size of large objects; "
        "the default is that of the program, or a third of --tile",
    )
    args = parser.parse_args()
    try:
        if Path(args.result).exists():
            raise Problem(f"{args.result} exists and would be overwritten; name another file")
        session, metadata = load(args.program)
        image = read(args.image, metadata)
        found = detect(session, metadata, image, args.tile, args.overlap)
        rgb = image if metadata["input_channels"] == "RGB" else image[:, :, ::-1]
        if "semantic" in found:
            picture = draw_classes(rgb, found["semantic"], metadata)
        else:
            picture = draw(rgb, found, metadata, args.threshold)
        picture.save(args.result)
    except (Problem, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    for line in rows(found, metadata, args.threshold):
        print(line)


if __name__ == "__main__":
    main()
