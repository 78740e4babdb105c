"""Checks of annotations that need no file: boxes, masks, classes and splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask as coco_mask
from detectron2.structures import BoxMode

from ccsa.data.problems import Problems
from ccsa.data.records import polygon_box, rle_box

Records = Sequence[Mapping[str, Any]]

_TOLERANCE = 1.0  # pixels by which a box or a polygon may exceed its image
_OVERLAP = 0.25  # a box and its mask overlap less than that only if one of them is wrong
_AREA_FACTOR = 2  # between the area of an annotation and that of its mask
_SMALL = 16  # pixels; outlines of smaller masks differ much from their pixels


def check_annotations(split: str, records: Records, problems: Problems) -> None:
    """Check the boxes and masks of a split against its images.

    Args:
        split: its name.
        records: Detectron2's standard dicts.
        problems: where problems are reported.
    """
    mismatches: list[tuple[str, str]] = []
    areas: list[tuple[str, str] | None] = []
    for record in records:
        if "annotations" not in record:
            continue
        file = str(record["file_name"])
        annotations = record["annotations"]
        for number, annotation in enumerate(annotations, 1):
            if annotation.get("iscrowd"):
                continue
            where = f"annotation {number} of the image"
            box = _corners(annotation)
            _check_box(box, record, file, where, problems)
            mask = annotation.get("segmentation")
            if mask and isinstance(mask, list):
                x, y, w, h = polygon_box(mask)
                if _exceeds((x, y, x + w, y + h), record):
                    text = f"{where}: a polygon reaches from {x:.0f}, {y:.0f} to {x + w:.0f}, "
                    text += f"{y + h:.0f} in an image of {record['width']} x {record['height']}"
                    problems.add("polygon_outside_image", file, text)
            if mask and _overlap(box, mask) < _OVERLAP:
                shown = [round(float(v), 1) for v in box]
                mismatches.append((file, f"{where}: the box (x1, y1, x2, y2) is {shown}"))
            if mask and "area" in annotation:
                text = _area_problem(annotation["area"], mask)
                areas.append((file, f"{where}: {text}") if text else None)
        if annotations and all(a.get("iscrowd") for a in annotations):
            problems.add("crowd_only_image", file, f"{split}: all annotations are crowd regions")
    for file, text in mismatches:
        problems.add("box_mask_mismatch", file, text)
    wrong = [found for found in areas if found]
    if 2 * len(wrong) > len(areas):
        for file, text in wrong:
            problems.add("area_mismatch", file, text)


def check_splits(
    splits: Mapping[str, Records],
    classes: Sequence[str],
    source: str | Path,
    problems: Problems,
    *,
    masks: bool,
) -> None:
    """Check what splits contain as a whole: objects, masks and classes.

    Args:
        splits: records by name; ``train`` is what is trained on.
        classes: names of the classes of objects.
        source: what messages name.
        problems: where problems are reported.
        masks: whether the model needs masks.
    """
    counts: dict[str, Counter[int]] = {}
    for name, records in splits.items():
        if not records:
            problems.add("empty_split", source, f"{name} has no image")
            continue
        if not any("annotations" in record for record in records):
            continue
        annotations = [a for record in records for a in record.get("annotations", ())]
        objects = [a for a in annotations if not a.get("iscrowd")]
        counts[name] = Counter(a["category_id"] for a in objects)
        if not annotations:
            problems.add("empty_split", source, f"{name} has {len(records)} images, no annotation")
        elif not objects and name == "train":
            problems.add("all_crowd", source, f"{name}: all {len(annotations)} are crowd regions")
        lacking = sum("segmentation" not in a for a in objects)
        if masks and name == "train" and 2 * lacking > len(objects):
            problems.add(
                "mostly_without_masks", source, f"{name}: {lacking} of {len(objects)} have no mask"
            )
    if "train" not in counts:
        return
    for index, name in enumerate(classes):
        found = [split for split, counted in counts.items() if counted[index]]
        if "train" not in found:
            where = f", only in {' and '.join(found)}" if found else ""
            problems.add("class_without_objects", source, f"class {name} has no object{where}")
        elif len(counts) > 1 and found == ["train"]:
            problems.add("class_in_one_split", source, f"class {name} has objects in train only")


def _check_box(
    box: Sequence[float], record: Mapping, file: str, where: str, problems: Problems
) -> None:
    x1, y1, x2, y2 = (float(value) for value in box)
    width, height = record["width"], record["height"]
    shown = f"{where}: the box reaches from {x1:.0f}, {y1:.0f} to {x2:.0f}, {y2:.0f} in an image "
    shown += f"of {width} x {height} pixels"
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        problems.add("box_beyond_image", file, shown)
    elif _exceeds((x1, y1, x2, y2), record):
        problems.add("box_outside_image", file, shown)


def _exceeds(box: Sequence[float], record: Mapping[str, Any]) -> bool:
    x1, y1, x2, y2 = box
    return (
        min(x1, y1) < -_TOLERANCE
        or x2 > record["width"] + _TOLERANCE
        or y2 > record["height"] + _TOLERANCE
    )


def _corners(annotation: Mapping[str, Any]) -> list[float]:
    """Return the box (x1, y1, x2, y2) of an annotation."""
    mode, box = annotation["bbox_mode"], annotation["bbox"]
    if mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        box = BoxMode.convert(list(box), BoxMode(mode), BoxMode.XYXY_ABS)
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x1 + x2, y1 + y2] if mode == BoxMode.XYWH_ABS else [x1, y1, x2, y2]


def _overlap(box: Sequence[float], mask: Any) -> float:
    """Return the intersection over union of a box (x1, y1, x2, y2) and the box of a mask."""
    x, y, w, h = polygon_box(mask) if isinstance(mask, list) else rle_box(_compressed(mask))
    x1, y1, x2, y2 = box
    common = max(0.0, min(x2, x + w) - max(x1, x)) * max(0.0, min(y2, y + h) - max(y1, y))
    union = (x2 - x1) * (y2 - y1) + w * h - common
    return common / union if union > 0 else 1.0  # boxes without area are reported elsewhere


def _area_problem(area: Any, mask: Any) -> str:
    """Return what is wrong with the area of an annotation; empty if it suits the mask."""
    if isinstance(mask, list):  # overlapping polygons count twice, which a factor of 2 allows
        found = sum(abs(_signed_area(polygon)) for polygon in mask)
    else:
        found = float(coco_mask.area(_compressed(mask)))
    if found < _SMALL or not isinstance(area, int | float):
        return ""
    if found / _AREA_FACTOR <= area <= found * _AREA_FACTOR:
        return ""
    return f"the area is {area:.4g}, but the mask has {found:.4g} pixels"


def _signed_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon by the shoelace formula."""
    xs, ys = list(polygon[0::2]), list(polygon[1::2])
    points = zip(xs, ys, strict=True)
    following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True)) / 2


def _compressed(rle: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(rle["counts"], list):
        return coco_mask.frPyObjects(rle, *rle["size"])
    return rle
