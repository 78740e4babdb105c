"""LabelMe: one JSON file per image, with polygons, rectangles, circles and masks.

Shapes of one ``group_id`` and label are the parts of one object.
"""

import base64
import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from PIL import Image

from ccsa.data.formats.image_files import ImageIndex, images_below
from ccsa.data.formats.layout import json_kind, read_class_names, split_folders
from ccsa.data.formats.masks import FAR, MaskError, is_image_size, parse_segmentation
from ccsa.data.formats.text_files import read_json, shown
from ccsa.data.image_reader import is_file
from ccsa.data.problems import Problems
from ccsa.data.records import (
    IMAGE_SUFFIXES,
    Header,
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
_POLYGONS = ("polygon", "rotation")
_NO_CLASSES = ("__ignore__", "_background_")  # in LabelMe's labels.txt
_LOOKED_AT = 5


def matches(folder: Path) -> bool:
    """Whether the folder, or its folders of splits, contain JSON files of LabelMe."""
    places = [folder, *split_folders(folder).values()]
    places += [place / name for place in places for name in ("annotations", "images", "labels")]
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
        if isinstance(shape, dict)
        and isinstance(shape.get("label"), str)
        and shape["label"].strip()
    }
    listed = read_class_names(folder, problems) or []
    listed = [name for name in listed if name not in _NO_CLASSES]
    labels -= set(_NO_CLASSES)
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
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
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
    seen: set[str] = set()
    for file, content in files.items():
        path = _image(file, content, images)
        if path is None:
            problems.add(*_missing(file, content, images))
            continue
        images.report_outside(path, file, problems)
        name = content.get("imagePath")
        if not isinstance(name, str):
            kind = "null_field" if name is None else "wrong_type"
            problems.add(kind, file, f"'imagePath' is {shown(name)}; {path.name} is used")
        if os.path.normpath(path) in seen:
            problems.add("duplicate_image_file", file, f"another file is of {path.name}, too")
        seen.add(os.path.normpath(path))
        try:
            header = image_header(str(path))
        except OSError as error:
            problems.add("unreadable_image", path, str(error))
            continue
        size = _size(file, content, header, problems)
        records.append(
            {
                "file_name": str(path),
                "image_id": len(records) + 1,
                "height": size[0],
                "width": size[1],
                "annotations": _annotations(file, content["shapes"], classes, size, problems),
            }
        )
    for folder in images.folders:
        for path in images_below(folder):
            if os.path.normpath(path) not in seen and not path.with_suffix(".json").exists():
                problems.add("unlisted_image", path, "the image has no JSON file")
    return records


def _image(file: Path, content: dict, images: ImageIndex) -> Path | None:
    """Return the image beside the JSON file, as ``imagePath`` says or with the same stem."""
    name = content.get("imagePath")
    if isinstance(name, str) and name:
        beside = file.parent / name.replace("\\", "/")
        if is_file(beside) and images.is_usable(beside):
            return beside
        found = images.find(name)
        if found is not None:
            return found
    same = [p for s in IMAGE_SUFFIXES for p in (file.with_suffix(s), file.with_suffix(s.upper()))]
    found = next((p for p in same if is_file(p) and images.is_usable(p)), None)
    return found or images.same_stem(file.stem)


def _missing(file: Path, content: dict, images: ImageIndex) -> tuple[str, Path, str]:
    """Return the problem that an image is missing: kind, file and message."""
    name = content.get("imagePath")
    if content.get("imageData"):
        return (
            *("missing_image", file),
            f"imagePath {shown(name)} does not exist; the pixels are only embedded as 'imageData': "
            "save them as an image file",
        )
    if not isinstance(name, str) or not name:
        return "missing_image", file, f"imagePath is {shown(name)}"
    kind, reason = images.failure(name)
    return kind, file, f"imagePath {shown(name, 200)}: {reason}"


def _size(file: Path, content: dict, header: Header, problems: Problems) -> tuple[int, int]:
    """Return (height, width) as annotated; those of the file if the JSON has none."""
    given = content.get("imageHeight"), content.get("imageWidth")
    if given == (None, None):
        return header.height, header.width
    if all(is_number(n) for n in given):
        height, width = given
        size = int(height or 0), int(width or 0)
        if is_image_size(size):
            return size
    problems.add(
        "wrong_type", file, f"imageHeight and imageWidth are {shown(given[0])}, {shown(given[1])}"
    )
    return header.height, header.width


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
        if isinstance(label, str) and label.strip() in _NO_CLASSES:
            continue
        if not isinstance(label, str) or label.strip() not in classes:
            problems.add("wrong_type", file, f"{where}: 'label' is {shown(label)}")
            continue
        try:
            part = _part(shape, size)
        except MaskError as error:
            problems.add(error.args[0], file, f"{where} ({label}): {error.args[1]}")
            continue
        if part is None:
            text = f"{where} ({label}) is a {shape.get('shape_type')}, without area"
            problems.add("degenerate_polygon", file, text)
            continue
        group = shape.get("group_id")
        if isinstance(group, bool) or not isinstance(group, int | str | None):
            problems.add("wrong_type", file, f"{where} ({label}): 'group_id' is {shown(group)}")
            group = None
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


def _part(shape: dict, size: tuple[int, int]) -> list[float] | Rle | None:
    """Return the polygon ``[x, y, ...]`` or the RLE of a shape; None if it has no area.

    Raises:
        MaskError: the shape is damaged or of an unknown type.
    """
    kind = shape.get("shape_type") or "polygon"
    if kind in _SKIPPED:
        return None
    points = _points(shape, size)
    if kind == "mask":
        return _mask(shape, points, size)
    if kind == "rectangle":
        if len(points) not in (2, 4):
            raise MaskError("invalid_polygon", f"a rectangle has {len(points)} points")
        xs, ys = zip(*points, strict=True)
        (x1, x2), (y1, y2) = (min(xs), max(xs)), (min(ys), max(ys))
        points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    elif kind == "circle":
        if len(points) != 2:
            raise MaskError("invalid_polygon", f"a circle has {len(points)} points")
        x, y = points[0]
        radius = math.dist(*points)
        turns = [2 * math.pi * i / _CIRCLE_POINTS for i in range(_CIRCLE_POINTS)]
        points = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]
    elif kind not in _POLYGONS:
        raise MaskError("wrong_type", f"the shape type {shown(kind)} is not supported")
    polygons = parse_segmentation([[value for point in points for value in point]], size)
    if not isinstance(polygons, list):
        raise MaskError("degenerate_polygon", "a polygon has no points")
    return polygons[0]


def _points(shape: dict, size: tuple[int, int]) -> list[tuple[float, float]]:
    points = shape.get("points")
    if not isinstance(points, list):
        raise MaskError("missing_field", f"'points' is {shown(points)}")
    far = FAR * max(*size, 1)
    for point in points:
        right = isinstance(point, list) and len(point) == 2 and all(map(is_number, point))
        if not right or max(map(abs, point)) > far:
            raise MaskError("invalid_polygon", f"a point is {shown(point)}")
    return [(float(x), float(y)) for x, y in points]


def _mask(shape: dict, points: list[tuple[float, float]], size: tuple[int, int]) -> Rle:
    """Return the RLE of a mask, a PNG in base64 that covers the box between two points."""
    if not points:
        raise MaskError("missing_field", "the mask has no points")
    encoded = str(shape.get("mask") or "")
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            fits = image.width <= 2 * size[1] and image.height <= 2 * size[0]
            small = np.array(image.convert("L")) > 0 if fits else None
    except Exception as error:  # whatever Pillow raises for a damaged image
        raise MaskError("invalid_rle", "the mask is not a PNG in base64") from error
    if small is None:
        raise MaskError("rle_size", "the mask is larger than the image")
    x, y = int(points[0][0]), int(points[0][1])
    mask = np.zeros(size, bool)
    (top, bottom), (left, right) = (
        (max(0, min(start, limit)), max(0, min(start + length, limit)))
        for start, length, limit in zip((y, x), small.shape, size, strict=True)
    )
    mask[top:bottom, left:right] = small[top - y : bottom - y, left - x : right - x]
    if not mask.any():
        raise MaskError("empty_mask", "the mask has no pixel in the image")
    return rle_of_mask(mask)
