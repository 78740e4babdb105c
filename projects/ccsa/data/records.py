"""What every reader of a user's data produces: splits of Detectron2's standard dicts.

An annotation is ``{"category_id", "bbox", "bbox_mode", "iscrowd", "area"}`` and, if the object has
a mask, ``"segmentation"``: polygons (a list of ``[x, y, ...]``) or a compressed RLE whose counts
are text. ``category_id`` is an index into the classes of the split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import pycocotools.mask as coco_mask
from detectron2.structures import BoxMode
from PIL import Image

from ccsa.data.image_reader import is_file, tiff_layout
from ccsa.errors import UserError
from ccsa.utils.files import regular_file

Polygons = list[list[float]]
Rle = dict[str, Any]

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".gif", ".avif"),
)
ROTATING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_ORIENTATION = 0x0112
_LARGEST = 1e300  # integers of thousands of digits do not fit into a float


@dataclass
class Split:
    """One split of a dataset.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        classes: class names; ``category_id`` of the annotations is an index into them.
        records: Detectron2's standard dicts.
        source: the annotation file, or the folder of images.
        stuff: names of the classes that are not countable objects (panoptic data only).
    """

    name: str
    classes: list[str]
    records: list[dict[str, Any]] = field(default_factory=list)
    source: Path = Path()
    stuff: list[str] = field(default_factory=list)


class Header(NamedTuple):
    """What the header of an image file says, without decoding its pixels.

    Attributes:
        width, height: as displayed, that is, after the EXIF orientation.
        stored: (width, height) as stored.
        mode: Pillow's mode, e.g. ``RGB``, ``L``, ``I;16``.
        orientation: the EXIF orientation, 1 for none.
        frames: number of pages.
    """

    width: int
    height: int
    stored: tuple[int, int]
    mode: str
    orientation: int
    frames: int


def image_header(file: str) -> Header:
    """Read the header of an image file; the result is cached until the file changes.

    Raises:
        OSError: the file does not exist, is not a regular file, or is not an image.
    """
    path = Path(file)
    if not is_file(path):  # opening a named pipe would wait forever
        raise FileNotFoundError(f"{file} is not a file")
    stamp = path.stat()
    return _read_header(file, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=200_000)
def _read_header(file: str, modified: int, length: int) -> Header:
    try:
        layout = tiff_layout(Path(file))
        if layout is not None and not layout.pillow_reads_it:
            stored, mode, orientation = layout[:2], "RGB", layout.orientation
            frames = 1
        else:
            with Image.open(regular_file(Path(file))) as image:
                orientation = int(image.getexif().get(_ORIENTATION, 1) or 1)
                stored, mode = image.size, image.mode
                if layout is not None:  # Pillow exchanges the sides of some TIFF files
                    stored, orientation = layout[:2], layout.orientation
                frames = _count_frames(image)
    except (OSError, UserError):
        raise
    except Image.DecompressionBombError as error:
        raise OSError(
            f"{file} is too large to be read ({error}); cut it into tiles, or resize it"
        ) from error
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        raise OSError(f"{file} is not a readable image ({error})") from error
    width, height = stored[::-1] if orientation in ROTATING else stored
    return Header(width, height, stored, mode, orientation, frames)


def _count_frames(image: Image.Image) -> int:
    """Return the number of pages; of an animation, which would have to be decoded, 2."""
    if image.format == "TIFF":
        return int(getattr(image, "n_frames", 1))
    return 1 + bool(getattr(image, "is_animated", False))


def make_annotation(
    category: int,
    *,
    box: Sequence[float] | None = None,
    segmentation: Polygons | Rle | None = None,
    iscrowd: int = 0,
    area: float | None = None,
    size: tuple[int, int],
) -> dict[str, Any]:
    """Return an annotation in Detectron2's standard form.

    Args:
        category: index of the class.
        box: ``[x, y, width, height]`` in pixels; by default that of the mask.
        segmentation: polygons or a compressed RLE; None for a box without mask.
        iscrowd: 1 for a crowd region.
        area: in pixels; by default that of the mask, or of the box if there is no mask.
        size: (height, width) of the image.
    """
    rle = None
    if segmentation and (box is None or area is None):
        rle = (
            segmentation if isinstance(segmentation, dict) else rle_of_polygons(segmentation, size)
        )
    if box is None:
        box = polygon_box(segmentation) if isinstance(segmentation, list) else rle_box(rle)
    if area is None:
        area = float(coco_mask.area(rle)) if rle is not None else float(box[2] * box[3])
    annotation = {
        "category_id": category,
        "bbox": [float(value) for value in box],
        "bbox_mode": BoxMode.XYWH_ABS,
        "iscrowd": iscrowd,
        "area": area,
    }
    if segmentation:
        annotation["segmentation"] = segmentation
    return annotation


def polygon_box(polygons: Any) -> list[float]:
    """Return the box ``[x, y, width, height]`` around polygons."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def rle_box(rle: Any) -> list[float]:
    """Return the box ``[x, y, width, height]`` around the pixels of an RLE."""
    return coco_mask.toBbox(rle).tolist()


def rle_of_polygons(polygons: Polygons, size: tuple[int, int]) -> Rle:
    """Rasterize polygons as the COCO API does.

    Args:
        polygons: lists ``[x, y, ...]`` in pixels, at least three points each.
        size: (height, width) of the image.
    """
    return as_text(coco_mask.merge(coco_mask.frPyObjects(polygons, *size)))


def rle_of_mask(mask: np.ndarray) -> Rle:
    """Encode a mask (H, W) of any type, nonzero inside, as a compressed RLE."""
    return as_text(coco_mask.encode(np.asfortranarray(mask != 0).astype(np.uint8, order="F")))


def rles_of_labels(values: np.ndarray) -> dict[int, Rle]:
    """Return the mask of each positive value of a label image (H, W) as a compressed RLE.

    The runs of all values are found at once, so the time does not grow with their number.

    Example:
        >>> sorted(rles_of_labels(np.array([[0, 3], [7, 3]])))
        [3, 7]
    """
    height, width = values.shape
    flat = values.T.ravel()  # COCO's run lengths follow the columns
    if not flat.size:
        return {}
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    labels = flat[starts]
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] > 0]
    numbers, first = np.unique(labels[order], return_index=True)
    result = {}
    for number, runs in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
        edges = np.stack([starts[runs], ends[runs]], 1).ravel()
        counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
        rle = {"size": [height, width], "counts": counts.tolist()}
        result[number] = as_text(coco_mask.frPyObjects(rle, height, width))
    return result


def as_text(rle: Rle) -> Rle:
    """Return the RLE with counts as text, which JSON can store."""
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(n) for n in rle["size"]], "counts": text}


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number that a float can hold. (To Python, true is an
    integer.)"""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST  # also false for not-a-number


def use_one_mask_format(splits: Sequence[Split]) -> str:
    """Give all masks the format that ``INPUT.MASK_FORMAT`` can name once.

    Returns:
        ``polygon`` if every mask consists of polygons; otherwise every mask becomes an RLE and
        ``bitmask`` is returned.
    """
    masks = [
        (record, annotation)
        for split in splits
        for record in split.records
        for annotation in record.get("annotations", ())
        if "segmentation" in annotation
    ]
    # Crowd regions are always RLE and are never trained, so they do not decide.
    if all(isinstance(a["segmentation"], list) for _, a in masks if not a["iscrowd"]):
        return "polygon"
    for record, annotation in masks:
        if isinstance(annotation["segmentation"], list):
            size = record["height"], record["width"]
            annotation["segmentation"] = rle_of_polygons(annotation["segmentation"], size)
    return "bitmask"
