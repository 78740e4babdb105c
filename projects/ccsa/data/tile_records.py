"""Training on tiles of large images: one record for each tile, with the objects in it.

A record of a tile is that of its image with ``tile`` (an :class:`Area`), the size of the tile as
``width`` and ``height``, the size of the image as ``image_size``, and the annotations near the
tile. :func:`cut_annotations` clips them when the tile is read.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from detectron2.structures import BoxMode

from ccsa.data.records import Polygons, rle_of_mask
from ccsa.data.tile_grid import Area, tile_areas
from ccsa.errors import UserError

Record = dict[str, Any]


def tile_records(
    records: Iterable[Record],
    size: Sequence[int],
    overlap: Sequence[int],
    min_visible: float,
    *,
    keep_empty: bool,
) -> list[Record]:
    """Return one record for each tile of each image.

    Args:
        records: Detectron2's standard dicts, with ``width`` and ``height``.
        size, overlap: (height, width) of a tile, and the overlap of neighbors.
        min_visible: the smallest share of the box of an object that is inside a tile, below which
            the object does not belong to the tile.
        keep_empty: whether tiles without an object are kept, although the image has annotations.

    Raises:
        UserError: a record has no size, or no tile has an object.
    """
    found = []
    for record in records:
        if "width" not in record or "height" not in record:
            raise UserError(
                f"INPUT.TILES needs the size of each image, and the record of "
                f"{record.get('file_name')} has no width and height; add them"
            )
        image_size = int(record["height"]), int(record["width"])
        annotations = record.get("annotations")
        boxes = _boxes(annotations or ())
        for area in tile_areas(image_size, size, overlap):
            entry = {
                **record,
                "tile": area,
                "image_size": image_size,
                "height": area.bottom - area.top,
                "width": area.right - area.left,
            }
            if annotations is not None:
                shares = _visible_shares(boxes, area)
                entry["annotations"] = [annotations[i] for i in np.flatnonzero(shares > 0)]
                counted = [
                    annotations[i]
                    for i in np.flatnonzero((shares > 0) & (shares >= min_visible))
                    if not annotations[i].get("iscrowd", 0)
                ]
                if not counted and not keep_empty:
                    continue
            found.append(entry)
    if not found:
        raise UserError(
            f"no tile of {size[0]} x {size[1]} pixels (INPUT.TILES.SIZE) has an object to be "
            "trained; check the annotations, or lower INPUT.TILES.MIN_VISIBLE"
        )
    return found


def cut_annotations(record: Record, area: Area, min_visible: float) -> None:
    """Clip the annotations of a record to a tile, in place, in pixels of the tile.

    Objects of which less than ``min_visible`` of the area is inside are left out. Boxes become
    those of the clipped masks.
    """
    if "annotations" in record:
        cut = (cut_annotation(annotation, area) for annotation in record["annotations"])
        record["annotations"] = [
            annotation
            for annotation, share in cut
            if annotation is not None and share > 0 and share >= min_visible
        ]


def cut_annotation(annotation: Record, area: Area) -> tuple[Record | None, float]:
    """Return an annotation clipped to a tile, in pixels of the tile, and the share of its area that
    is inside; None if nothing is."""
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    result = {**annotation, "bbox_mode": BoxMode.XYXY_ABS}
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        pixels = coco_mask.decode(mask)[area.selector]
        if not pixels.any():
            return None, 0.0
        result["segmentation"] = rle_of_mask(pixels)
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        result["bbox"] = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        share = float(pixels.sum()) / max(1.0, float(coco_mask.area(mask)))
    elif mask:
        polygons = clip_polygons(mask, area)
        if not polygons:
            return None, 0.0
        result["segmentation"] = polygons
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
        result["bbox"] = [*points.min(0), *points.max(0)]
        share = _total_area(polygons) / max(1e-9, _total_area(mask))
    else:
        clipped = _clip_box(box, area)
        share = _box_area(clipped) / max(1e-9, _box_area(box))
        result["bbox"] = clipped
    result["bbox"] = [float(value) for value in result["bbox"]]
    if "area" in annotation:
        result["area"] = annotation["area"] * share
    return result, share


def clip_polygons(polygons: Polygons, area: Area) -> Polygons:
    """Return polygons clipped to a tile, in pixels of the tile (Sutherland and Hodgman, 1974).

    The parts of a polygon that is not convex stay connected along the border of the tile, where
    they have no area.

    Example:
        >>> clip_polygons([[0, 0, 4, 0, 4, 4, 0, 4]], Area(1, 2, 9, 9))
        [[0.0, 0.0, 2.0, 0.0, 2.0, 3.0, 0.0, 3.0]]
    """
    found = []
    for polygon in polygons:
        points = np.reshape(np.asarray(polygon, float), (-1, 2))
        for axis, bound, sign in (
            *((0, area.left, 1), (0, area.right, -1)),
            *((1, area.top, 1), (1, area.bottom, -1)),
        ):
            points = _clip_half_plane(points, axis, bound, sign)
        if len(points) >= 3 and _area(points) > 0:
            found.append((points - (area.left, area.top)).ravel().tolist())
    return found


def _clip_half_plane(points: np.ndarray, axis: int, bound: float, sign: int) -> np.ndarray:
    """Return the part of a polygon (N, 2) where ``sign * (coordinate - bound) >= 0``."""
    kept: list[np.ndarray] = []
    for index, point in enumerate(points):
        before = points[index - 1]
        inside, was_inside = (sign * (p[axis] - bound) >= 0 for p in (point, before))
        if inside != was_inside:
            share = (bound - before[axis]) / (point[axis] - before[axis])
            crossing = before + share * (point - before)
            crossing[axis] = bound
            kept.append(crossing)
        if inside:
            kept.append(point)
    return np.array(kept).reshape(-1, 2)


def _area(points: np.ndarray) -> float:
    x, y = points.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _total_area(polygons: Polygons) -> float:
    return sum(_area(np.reshape(np.asarray(p, float), (-1, 2))) for p in polygons)


def _clip_box(box: Sequence[float], area: Area) -> list[float]:
    left, right = np.clip((box[0], box[2]), area.left, area.right) - area.left
    top, bottom = np.clip((box[1], box[3]), area.top, area.bottom) - area.top
    return [left, top, right, bottom]


def _box_area(box: Sequence[float]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _boxes(annotations: Sequence[Record]) -> np.ndarray:
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return np.array(boxes, float).reshape(-1, 4)


def _visible_shares(boxes: np.ndarray, area: Area) -> np.ndarray:
    """Return the share of each box (N, 4) that is inside a tile."""
    corner, end = (area.left, area.top), (area.right, area.bottom)
    inside = np.minimum(boxes[:, 2:], end) - np.maximum(boxes[:, :2], corner)
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
    return (np.clip(inside, 0, None) / sizes).prod(1)
