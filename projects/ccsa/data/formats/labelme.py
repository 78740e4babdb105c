"""LabelMe: one JSON file per image, with polygons, rectangles, circles and masks.

Shapes of one ``group_id`` and label are the parts of one object.
"""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from PIL import Image

from ccsa.data.formats.image_files import ImageIndex
from ccsa.data.formats.layout import json_kind, read_class_names, split_folders
from ccsa.data.formats.text_files import read_json, shown
from ccsa.data.problems import Problems
from ccsa.data.records import (
    Rle,
    Split,
    as_text,
    image_header,
    is_number,
    make_annotation,
    rle_of_mask,
    rle_of_polygons,
)
from ccsa.errors import UserError

_CIRCLE_POINTS = 64
_SKIPPED = ("point", "points", "line", "linestrip")  # shapes without an area
_LOOKED_AT = 5
_FAR = 10


def matches(folder: Path) -> bool:
    """Whether the folder, or its folders of splits, contain JSON files of LabelMe."""
    places = [folder, *split_folders(folder).values()]
    places += [place / "annotations" for place in places]
    files = [file for place in places for file in sorted(place.glob("*.json"))[:_LOOKED_AT]]
    return any(json_kind(file) == "labelme" for file in files)


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder; without folders of splits, everything is ``train``."""
    places = {
        split: place for split, place in split_folders(folder).items() if any(place.rglob("*.json"))
    }
    contents = {
        split: _read_files(place, problems)
        for split, place in (places or {"train": folder}).items()
    }
    labels = {
        str(shape["label"]).strip()
        for files in contents.values()
        for content in files.values()
        for shape in content["shapes"]
        if isinstance(shape, dict) and isinstance(shape.get("label"), str)
    }
    listed = read_class_names(folder, problems) or []
    listed = [name for name in listed if name not in ("__ignore__", "_background_")]
    classes = [*listed, *sorted(labels - set(listed))] if labels & set(listed) else sorted(labels)
    return [
        Split(
            split,
            classes,
            _records(files, classes, ImageIndex([places.get(split, folder)], folder), problems),
            places.get(split, folder),
        )
        for split, files in contents.items()
    ]


def _read_files(folder: Path, problems: Problems) -> dict[Path, dict[str, Any]]:
    contents = {}
    for file in sorted(folder.rglob("*.json")):
        try:
            content = read_json(file, problems)
        except UserError as error:
            problems.add("wrong_type", file, str(error).removeprefix(f"{file} "))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            problems.add("missing_field", file, "the file has no list 'shapes'")
            continue
        contents[file] = content
    return contents


def _records(
    files: dict[Path, dict], classes: list[str], images: ImageIndex, problems: Problems
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for file, content in files.items():
        path = _image(file, content, images)
        if path is None:
            name = content.get("imagePath")
            problems.add("missing_image", file, f"imagePath {shown(name)} does not exist")
            continue
        try:
            header = image_header(str(path))
        except OSError as error:
            problems.add("unreadable_image", path, str(error))
            continue
        given = content.get("imageWidth"), content.get("imageHeight")
        size = header.height, header.width
        if is_number(given[0]) and is_number(given[1]) and min(given) > 0:
            size = int(given[1]), int(given[0])
        records.append(
            {
                "file_name": str(path),
                "image_id": len(records) + 1,
                "height": size[0],
                "width": size[1],
                "annotations": _annotations(file, content["shapes"], classes, size, problems),
            }
        )
    return records


def _image(file: Path, content: dict, images: ImageIndex) -> Path | None:
    """Return the image beside the JSON file, as ``imagePath`` says or with the same stem."""
    name = content.get("imagePath")
    if isinstance(name, str) and name:
        beside = file.parent / name.replace("\\", "/")
        if beside.is_file() and images.is_inside(beside):
            return beside
        found = images.find(name)
        if found is not None:
            return found
    same = [p for p in images.files() if p.stem == file.stem and p.suffix != ".json"]
    return same[0] if len(same) == 1 else None


def _annotations(
    file: Path, shapes: list, classes: list[str], size: tuple[int, int], problems: Problems
) -> list[dict[str, Any]]:
    objects: dict[Any, list[Any]] = {}  # by label and group: polygons and RLEs
    for number, shape in enumerate(shapes, 1):
        where = f"shape {number}"
        if not isinstance(shape, dict):
            problems.add("wrong_type", file, f"{where} is {shown(shape)}")
            continue
        label = shape.get("label")
        if not isinstance(label, str) or label.strip() not in classes:
            problems.add("wrong_type", file, f"{where}: 'label' is {shown(label)}")
            continue
        try:
            part = _part(shape, size)
        except _ShapeError as error:
            problems.add(error.args[0], file, f"{where} ({label}): {error.args[1]}")
            continue
        if part is None:
            kind = shape.get("shape_type")
            problems.add("degenerate_polygon", file, f"{where} ({label}) is a {kind}, without area")
            continue
        group = shape.get("group_id")
        key = (label.strip(), number, None) if group is None else (label.strip(), None, str(group))
        objects.setdefault(key, []).append(part)
    annotations = []
    for (label, _, _), parts in objects.items():
        segmentation: Any = parts
        if any(isinstance(part, dict) for part in parts):
            segmentation = _union(parts, size)
        annotation = make_annotation(classes.index(label), segmentation=segmentation, size=size)
        if annotation["area"] <= 0 or min(annotation["bbox"][2:]) <= 0:
            problems.add("empty_mask", file, f"an object of class {label} has no area")
            continue
        annotations.append(annotation)
    return annotations


def _union(parts: list[Any], size: tuple[int, int]) -> Rle:
    rles = [part if isinstance(part, dict) else rle_of_polygons([part], size) for part in parts]
    return as_text(coco_mask.merge(rles))


class _ShapeError(Exception):
    """A shape cannot be used: kind of problem, and what is wrong."""


def _part(shape: dict, size: tuple[int, int]) -> list[float] | Rle | None:
    """Return the polygon ``[x, y, ...]`` or the RLE of a shape; None if it has no area."""
    kind = shape.get("shape_type") or "polygon"
    if kind in _SKIPPED:
        return None
    points = _points(shape, size)
    if kind == "mask":
        return _mask(shape, points, size)
    if kind == "rectangle":
        if len(points) != 2 and len(points) != 4:
            raise _ShapeError("invalid_polygon", f"a rectangle has {len(points)} points")
        xs, ys = zip(*points, strict=True)
        points = [(x, y) for x, y in _corners(min(xs), min(ys), max(xs), max(ys))]
    elif kind == "circle":
        if len(points) != 2:
            raise _ShapeError("invalid_polygon", f"a circle has {len(points)} points")
        (x, y), edge = points
        radius = math.dist(points[0], edge)
        turns = [2 * math.pi * i / _CIRCLE_POINTS for i in range(_CIRCLE_POINTS)]
        points = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]
    elif kind != "polygon":
        raise _ShapeError("wrong_type", f"the shape type {shown(kind)} is not supported")
    if len(points) < 3:
        raise _ShapeError("degenerate_polygon", f"a polygon has {len(points)} points")
    return [float(value) for point in points for value in point]


def _points(shape: dict, size: tuple[int, int]) -> list[tuple[float, float]]:
    points = shape.get("points")
    if not isinstance(points, list):
        raise _ShapeError("missing_field", f"'points' is {shown(points)}")
    far = _FAR * max(*size, 1)
    for point in points:
        right = isinstance(point, list) and len(point) == 2 and all(map(is_number, point))
        if not right or max(map(abs, point)) > far:
            raise _ShapeError("invalid_polygon", f"a point is {shown(point)}")
    return [(float(x), float(y)) for x, y in points]


def _corners(x1: float, y1: float, x2: float, y2: float) -> list[tuple[float, float]]:
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def _mask(shape: dict, points: list[tuple[float, float]], size: tuple[int, int]) -> Rle:
    """Return the RLE of a mask, a PNG in base64 that covers the box between two points."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(shape.get("mask") or "")))) as image:
            small = np.array(image.convert("1"))
    except Exception as error:  # whatever Pillow raises for a damaged image
        raise _ShapeError("invalid_rle", "the mask is not a PNG in base64") from error
    if not points:
        raise _ShapeError("missing_field", "the mask has no points")
    x, y = round(points[0][0]), round(points[0][1])
    mask = np.zeros(size, bool)
    height, width = small.shape
    top, left = max(y, 0), max(x, 0)
    part = small[top - y : size[0] - y, left - x : size[1] - x]
    mask[top : y + height, left : x + width] = part
    if not mask.any():
        raise _ShapeError("empty_mask", "the mask has no pixel in the image")
    return rle_of_mask(mask)
