"""Faults to plant into clean folders: each changes files so that one kind of problem appears."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from support import own_scenes

ORIENTATION = 0x0112


class Fault(NamedTuple):
    """A fault.

    Attributes:
        kind: of the problem that must be reported.
        layout: the clean folder that it is planted into.
        plant: changes the folder.
        file: the end of the path that the problem must name.
    """

    kind: str
    layout: str
    plant: Callable[[Path], object]
    file: str


FAULTS: list[Fault] = []


def fault(kind: str, layout: str, file: str) -> Callable:
    """Register a function that plants a fault."""

    def register(plant: Callable[[Path], object]) -> Callable[[Path], object]:
        FAULTS.append(Fault(kind, layout, plant, file))
        return plant

    return register


def edit(folder: Path, change: Callable[[dict], object], file: str = "train.json") -> None:
    """Change the content of a JSON file."""
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


def annotation(**values: object) -> Callable[[Path], None]:
    """Return a function that sets fields of the first annotation; None removes a field."""

    def plant(folder: Path) -> None:
        def change(content: dict) -> None:
            first = content["annotations"][0]
            for key, value in values.items():
                first.pop(key, None) if value is None else first.update({key: value})

        edit(folder, change)

    return plant


def image(**values: object) -> Callable[[Path], None]:
    """Return a function that sets fields of the first image record; None removes a field."""

    def plant(folder: Path) -> None:
        def change(content: dict) -> None:
            first = content["images"][0]
            for key, value in values.items():
                first.pop(key, None) if value is None else first.update({key: value})

        edit(folder, change)

    return plant


def first_image(folder: Path, split: str = "train") -> Path:
    """Return the first image of a split."""
    return min((folder / split).glob("*.png"))


def replace_image(change: Callable[[Image.Image], Image.Image], **options: object) -> Callable:
    """Return a function that replaces the first training image."""

    def plant(folder: Path) -> None:
        file = first_image(folder)
        with Image.open(file) as opened:
            changed = change(opened.convert("RGB"))
        changed.save(file, "PNG", **options)

    return plant


def label(change: Callable[[np.ndarray], np.ndarray], split: str = "train") -> Callable:
    """Return a function that changes the first label of class masks."""

    def plant(folder: Path) -> None:
        file = first_image(folder, f"{split}_labels")
        Image.fromarray(change(np.array(Image.open(file)))).save(file)

    return plant


def _binary(values: np.ndarray) -> np.ndarray:
    """Return 255 for every class but 0, as many programs draw masks."""
    return np.uint8(255) * (values > 0)


def every_label(
    change: Callable[[np.ndarray], np.ndarray], split: str = "*"
) -> Callable[[Path], None]:
    """Return a function that changes all labels of class masks, or those of one split."""

    def plant(folder: Path) -> None:
        for file in folder.glob(f"{split}_labels/*.png"):
            Image.fromarray(change(np.array(Image.open(file)))).save(file)

    return plant


def _exif(folder: Path, orientation: int, size: tuple[int, int] | None = None) -> None:
    file = first_image(folder)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    with Image.open(file) as opened:
        opened.convert("RGB").save(file, "PNG", exif=exif)
    if size:
        image(width=size[0], height=size[1])(folder)


def _resize(folder: Path, size: tuple[int, int]) -> None:
    """Give the first training image another size, without objects."""
    replace_image(lambda picture: picture.resize(size))(folder)

    def change(content: dict) -> None:
        content["images"][0].update(width=size[0], height=size[1])
        kept = [a for a in content["annotations"] if a["image_id"] != content["images"][0]["id"]]
        content["annotations"] = kept

    edit(folder, change)


WIDTH, HEIGHT = own_scenes.SIZE[::-1]
FIRST = "scene 001.png"
JSON = "train.json"
RLE = {"size": [HEIGHT, WIDTH]}

# Files
fault("missing_image", "coco", JSON)(lambda f: first_image(f).unlink())
fault("unreadable_image", "coco", FIRST)(
    lambda f: first_image(f).write_bytes(first_image(f).read_bytes()[:400])
)
fault("unreadable_image", "coco", FIRST)(lambda f: first_image(f).write_text("not an image"))
fault("encoding", "coco", JSON)(
    lambda f: (f / JSON).write_bytes(b"\xef\xbb\xbf" + (f / JSON).read_bytes())
)


@fault("outside", "coco", JSON)
def _(folder: Path) -> None:
    shutil.copy(first_image(folder), folder.parent / "elsewhere.png")
    image(file_name="../../elsewhere.png")(folder)


# Fields
fault("missing_field", "coco", JSON)(annotation(category_id=None))
fault("missing_field", "coco", JSON)(annotation(bbox=None, segmentation=None))
fault("missing_field", "coco", JSON)(image(file_name=None))
fault("wrong_type", "coco", JSON)(image(file_name=7))
fault("wrong_type", "coco", JSON)(image(width="wide"))
fault("wrong_type", "coco", JSON)(annotation(iscrowd=7))
fault("wrong_type", "coco", JSON)(annotation(segmentation=7))
fault("wrong_type", "coco", JSON)(lambda f: edit(f, lambda c: c["annotations"].append("none")))
fault("quoted_number", "coco", JSON)(annotation(category_id="1"))
fault("missing_size", "coco", JSON)(image(width=None))
fault("duplicate_image_id", "coco", JSON)(
    lambda f: edit(f, lambda c: c["images"].append({**c["images"][1], "id": 1}))
)
fault("duplicate_annotation_id", "coco", JSON)(annotation(id=2))
fault("annotation_id_zero", "coco", JSON)(annotation(id=0))
fault("unknown_image", "coco", JSON)(annotation(image_id=99))
fault("unknown_category", "coco", JSON)(annotation(category_id=99))
fault("ignored_annotation", "coco", JSON)(annotation(ignore=1))
fault("unknown_category", "yolo", "scene 001.txt")(
    lambda f: (f / "labels/train/scene 001.txt").write_text("7 0.1 0.1 0.5 0.1 0.5 0.5\n")
)


@fault("null_field", "coco", JSON)
def _(folder: Path) -> None:
    edit(folder, lambda content: content["annotations"][0].update(iscrowd=None))


@fault("duplicate_category", "coco", JSON)
def _(folder: Path) -> None:
    edit(folder, lambda content: content["categories"].append({"id": 9, "name": "ring"}))


@fault("duplicate_image_file", "coco", JSON)
def _(folder: Path) -> None:
    edit(folder, lambda content: content["images"].append({**content["images"][0], "id": 99}))


@fault("duplicate_annotation", "coco", JSON)
def _(folder: Path) -> None:
    edit(
        folder,
        lambda content: content["annotations"].append({**content["annotations"][0], "id": 999}),
    )


# Classes
@fault("normalized_coordinates", "coco", JSON)
def _(folder: Path) -> None:
    def change(content: dict) -> None:
        for entry in content["annotations"]:
            entry["bbox"] = [0.1, 0.2, 0.5, 0.25]

    edit(folder, change)


@fault("dropped_category", "roboflow", "_annotations.coco.json")
def _(folder: Path) -> None:
    pass  # Roboflow always writes it


@fault("class_without_objects", "coco", "")
def _(folder: Path) -> None:
    for file in ("train.json", "val.json"):
        edit(folder, lambda content: content["categories"].append({"id": 9, "name": "star"}), file)


@fault("class_in_one_split", "coco", "")
def _(folder: Path) -> None:
    def change(content: dict) -> None:
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 1]

    edit(folder, change, "val.json")


@fault("classes_numbered_differently", "coco", "val.json")
def _(folder: Path) -> None:
    swap = {1: 2, 2: 1, 3: 3}

    def change(content: dict) -> None:
        for entry in content["annotations"]:
            entry["category_id"] = swap[entry["category_id"]]
        for entry in content["categories"]:
            entry["id"] = swap[entry["id"]]

    edit(folder, change, "val.json")


@fault("classes_differ", "coco", "val.json")
def _(folder: Path) -> None:
    edit(folder, lambda c: c["categories"].append({"id": 9, "name": "star"}), "val.json")


@fault("thing_or_stuff", "coco_panoptic", "panoptic_val.json")
def _(folder: Path) -> None:
    edit(folder, lambda c: c["categories"][0].update(isthing=0), "panoptic_val.json")


@fault("unknown_image", "coco_panoptic", "panoptic_train.json")
def _(folder: Path) -> None:
    edit(folder, lambda c: c["images"].pop(0), "panoptic_train.json")


# Boxes and masks
fault("box_mask_mismatch", "coco_polygons", FIRST)(annotation(bbox=[8, 8, 27, 1]))
fault("invalid_box", "coco", JSON)(annotation(bbox=["8", "8", "20", "24"]))
fault("invalid_box", "coco", JSON)(annotation(bbox=[1, 2, 3]))
fault("empty_box", "coco", JSON)(annotation(bbox=[8, 8, 0, 4], segmentation=None))
fault("box_outside_image", "coco", FIRST)(annotation(bbox=[100, 50, 60, 20], segmentation=None))
fault("box_beyond_image", "coco", FIRST)(annotation(bbox=[600, 50, 60, 20], segmentation=None))
fault("invalid_polygon", "coco", JSON)(annotation(segmentation=[[1, 1, 9, 1, 9]]))
fault("invalid_polygon", "coco", JSON)(annotation(segmentation=[[1, 1, 9, 1, 9, 1e9]]))
fault("degenerate_polygon", "coco", JSON)(annotation(segmentation=[[1, 1, 9, 1]]))
fault("polygon_outside_image", "coco_polygons", FIRST)(
    annotation(segmentation=[[90, 50, 160, 50, 160, 80]], bbox=[90, 50, 70, 30])
)
fault("invalid_rle", "coco", JSON)(annotation(segmentation={**RLE, "counts": [5, 5]}))
fault("invalid_rle", "coco", JSON)(annotation(segmentation={**RLE, "counts": "\x7f\x7f"}))
fault("rle_size", "coco", JSON)(annotation(segmentation={"size": [9, 9], "counts": [80, 1]}))
fault("empty_mask", "coco", JSON)(annotation(segmentation={**RLE, "counts": [WIDTH * HEIGHT]}))
fault("missing_mask", "coco", JSON)(annotation(segmentation=None))
fault("masks_marked_crowd", "cvat", "instances_Train.json")(lambda folder: None)


@fault("box_mask_mismatch", "coco", FIRST)
def _(folder: Path) -> None:
    def change(content: dict) -> None:
        for entry in content["annotations"]:
            entry["bbox"] = [1, 1, 3, 3]

    edit(folder, change)


def _crowd(entry: dict) -> None:
    entry["iscrowd"] = 1


@fault("all_crowd", "coco", "")
def _(folder: Path) -> None:
    edit(folder, lambda content: [_crowd(entry) for entry in content["annotations"]])


@fault("crowd_only_image", "coco", FIRST)
def _(folder: Path) -> None:
    edit(folder, lambda c: [_crowd(a) for a in c["annotations"] if a["image_id"] == 1])


# Splits
@fault("empty_split", "coco", "")
def _(folder: Path) -> None:
    edit(folder, lambda content: content.update(annotations=[]), "val.json")


@fault("image_in_two_splits", "coco", "scene 007.png")
def _(folder: Path) -> None:
    with Image.open(first_image(folder)) as opened:  # other bytes, the same pixels
        opened.save(first_image(folder, "val"), compress_level=1)


# Pixels
fault("size_mismatch", "coco_polygons", FIRST)(image(width=WIDTH - 28))
fault("exif_rotation", "coco", FIRST)(lambda f: _exif(f, 6))
fault("exif_orientation", "coco_polygons", FIRST)(lambda f: _exif(f, 6, (HEIGHT, WIDTH)))
fault("bit_depth", "coco", FIRST)(
    replace_image(lambda p: Image.fromarray(np.array(p.convert("L"), np.uint16) * 200))
)
fault("channels", "coco", FIRST)(replace_image(lambda p: p.convert("RGBA")))
fault("mixed_channels", "coco", FIRST)(replace_image(lambda p: p.convert("L")))
fault("tiny_image", "coco", FIRST)(lambda f: _resize(f, (7, 20)))
fault("extreme_aspect_ratio", "coco", FIRST)(lambda f: _resize(f, (400, 10)))
fault("giant_image", "coco", FIRST)(lambda folder: _giant(folder))
fault("too_large_image", "coco_polygons", FIRST)(lambda folder: _huge_header(folder))


def _giant(folder: Path) -> None:
    """Replace the first training image by one of 51 megapixels in gray, without objects."""
    _resize(folder, (20, 20))
    Image.new("1", (7200, 7100)).save(first_image(folder))
    image(width=7200, height=7100)(folder)


def _huge_header(folder: Path) -> None:
    """Write the header of an image that would take gigabytes, without its pixels."""
    import struct
    import zlib

    data = struct.pack(">IIBBBBB", 14_000, 14_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + data
    header = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    content = first_image(folder).read_bytes()
    first_image(folder).write_bytes(content[:8] + header + content[33:])
    image(width=14_000, height=14_000)(folder)


# Labels
LABEL = "train_labels/scene 001.png"
fault("missing_label", "class_masks", "train/scene 001.png")(lambda f: (f / LABEL).unlink())
fault("unreadable_label", "class_masks", LABEL)(lambda f: (f / LABEL).write_text("damaged"))
fault("label_rgb", "class_masks", LABEL)(label(lambda v: np.repeat(v[..., None], 3, 2)))
fault("label_channels", "class_masks", LABEL)(
    label(lambda v: np.stack([v, v + 1, v], 2).astype(np.uint8))
)
fault("label_size", "class_masks", LABEL)(label(lambda v: v[::2, ::2].copy()))
fault("label_out_of_range", "class_masks", LABEL)(label(lambda v: v + np.uint8(9)))
fault("label_out_of_range", "class_masks", "val_labels/scene 007.png")(
    label(lambda v: v + np.uint8(9), "val")
)
fault("only_ignored_pixels", "class_masks", LABEL)(label(lambda v: np.full_like(v, 255)))
fault("ignored_class", "class_masks", "")(every_label(_binary))
fault("ignored_class", "class_masks", "")(every_label(_binary, "val"))
fault("ignored_class", "class_masks", "")(
    lambda f: (every_label(_binary)(f), label(lambda v: np.uint8(1) * (v > 0))(f))
)
fault("ignored_objects", "class_masks", LABEL)(
    lambda f: (
        (f / "classes.txt").write_text("background\nobject\n"),
        every_label(lambda v: np.uint8(1) * (v > 0))(f),
        every_label(lambda v: np.uint8(1) * (v > 0), "val")(f),
        label(_binary)(f),
    )
)
fault("class_or_ignored", "class_masks", "")(
    every_label(lambda v: np.where(v == 1, np.uint8(255), v))
)
fault("single_class", "class_masks", "")(
    lambda f: (every_label(lambda v: v * np.uint8(0))(f), (f / "classes.txt").write_text("cell\n"))
)
fault("class_without_objects", "class_masks", "")(every_label(lambda v: v % np.uint8(3)))
fault("unpaired_label", "class_masks", "train_labels/other.png")(
    lambda f: shutil.copy(f / LABEL, f / "train_labels/other.png")
)
PNG = "panoptic_train/scene 001.png"
fault("segment_mismatch", "coco_panoptic", PNG)(
    lambda f: Image.new("RGB", (WIDTH, HEIGHT), (5, 5, 5)).save(f / PNG)
)
