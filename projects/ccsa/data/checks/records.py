"""Checks of the fields of Detectron2's standard dicts, whoever wrote them.

After :func:`check_fields`, every field that training and evaluation use exists and has its type, so
that the other checks need not defend themselves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ccsa.data.formats.masks import MaskError, parse_segmentation
from ccsa.data.formats.text_files import shown
from ccsa.data.problems import Problems
from ccsa.data.records import image_header

_FILE_FIELDS = ("sem_seg_file_name", "pan_seg_file_name")


def check_fields(
    split: str,
    records: Sequence[Any],
    problems: Problems,
    *,
    classes: int = 0,
    validated: bool = False,
) -> list[dict[str, Any]]:
    """Check the fields of all records of a split.

    Args:
        split: its name.
        records: what a dataset function returned.
        problems: where problems are reported.
        classes: number of classes of objects; 0 if unknown.
        validated: whether a reader of this project has checked the masks already.

    Returns:
        Copies of the usable records, with the usable annotations and with the size of the image.
    """
    usable = []
    ids: dict[Any, str] = {}
    for position, record in enumerate(records, 1):
        where = f"record {position} of {split}"
        if not isinstance(record, Mapping):
            problems.add("wrong_type", split, f"{where} is {shown(record)}, not a dictionary")
            continue
        file = record.get("file_name")
        if not isinstance(file, str | Path) or not str(file):
            kind = "wrong_type" if "file_name" in record else "missing_field"
            problems.add(kind, split, f"{where}: 'file_name' is {shown(file)}")
            continue
        result = {**record, "file_name": str(file)}
        if not _check_record(result, ids, where, problems):
            continue
        if "annotations" in record:
            result["annotations"] = _usable(result, problems, classes, validated)
        usable.append(result)
    return usable


def _check_record(
    record: dict[str, Any], ids: dict[Any, str], where: str, problems: Problems
) -> bool:
    """Check the fields of a record other than its annotations; return whether it is usable."""
    file = record["file_name"]
    size = record.get("height"), record.get("width")
    if None in size:
        if "annotations" in record:  # labels need no sizes, and load_sem_seg gives none
            problems.add("missing_size", file, f"{where} has no width and height")
        try:
            header = image_header(file)
        except OSError:
            header = None  # the check of the file reports it
        record["height"], record["width"] = (header.height, header.width) if header else (1, 1)
        if header is None and "annotations" in record:
            record["annotations"] = []
    elif not all(_is_integer(value) and int(value or 0) > 0 for value in size):
        text = f"{where}: 'height' and 'width' are {shown(size[0])} and {shown(size[1])}"
        problems.add("wrong_type", file, text)
        return False
    number = record.get("image_id")
    if number is None:
        if "annotations" in record or "segments_info" in record:
            problems.add("missing_field", file, f"{where} has no 'image_id'")
    elif not isinstance(number, str) and not _is_integer(number):
        problems.add("wrong_type", file, f"{where}: 'image_id' is {shown(number)}")
    elif ids.setdefault(number, file) != file:
        problems.add("duplicate_image_id", file, f"{where} has the id {number} of {ids[number]}")
    for key in _FILE_FIELDS:
        if key in record and not isinstance(record[key], str | Path):
            problems.add("wrong_type", file, f"{where}: '{key}' is {shown(record[key])}")
            return False
    if "annotations" in record and not isinstance(record["annotations"], list | tuple):
        text = f"{where}: 'annotations' is {shown(record['annotations'])}, not a list"
        problems.add("wrong_type", file, text)
        return False
    return _check_segments(record, where, problems)


def _check_segments(record: Mapping[str, Any], where: str, problems: Problems) -> bool:
    file = record["file_name"]
    if "pan_seg_file_name" not in record:
        return True
    if not isinstance(record.get("segments_info"), list | tuple):
        kind = "wrong_type" if "segments_info" in record else "missing_field"
        text = f"{where}: 'segments_info' is {shown(record.get('segments_info'))}, not a list"
        problems.add(kind, file, text)
        return False
    for segment in record["segments_info"]:
        fields = ("id", "category_id")
        if not isinstance(segment, Mapping) or not all(_is_integer(segment.get(f)) for f in fields):
            text = f"{where}: a segment is {shown(segment)}, without integers 'id', 'category_id'"
            problems.add("wrong_type", file, text)
            return False
    return True


def _usable(
    record: Mapping[str, Any], problems: Problems, classes: int, validated: bool
) -> list[dict[str, Any]]:
    """Check the annotations of a record; return those that can be used."""
    usable = []
    size = record["height"], record["width"]
    for number, annotation in enumerate(record["annotations"], 1):
        where = f"annotation {number} of the image"
        if not isinstance(annotation, Mapping):
            text = f"{where} is {shown(annotation)}, not a dictionary"
            problems.add("wrong_type", record["file_name"], text)
            continue
        found = _problem(annotation, classes)
        if found is None and not validated:
            found = _mask_problem(annotation, size)
        if found is None:
            usable.append(dict(annotation))
        else:
            problems.add(found[0], record["file_name"], f"{where}: {found[1]}")
    return usable


def _problem(annotation: Mapping[str, Any], classes: int) -> tuple[str, str] | None:
    """Return the kind and text of the first problem with the fields of an annotation."""
    for key in ("bbox", "bbox_mode", "category_id"):
        if key not in annotation:
            return "missing_field", f"'{key}' is missing"
    category = annotation["category_id"]
    if not _is_integer(category):
        return "wrong_type", f"'category_id' is {shown(category)}, not an integer"
    if category < 0 or (classes and category >= classes):
        return (
            "unknown_category",
            f"'category_id' is {category}, the classes are 0 to {classes - 1}",
        )
    try:
        mode = BoxMode(annotation["bbox_mode"])
    except ValueError:
        return "wrong_type", f"'bbox_mode' is {shown(annotation['bbox_mode'])}, not a BoxMode"
    box = annotation["bbox"]
    length = 5 if mode == BoxMode.XYWHA_ABS else 4
    if not _finite(box, length):
        return "invalid_box", f"'bbox' is {shown(box)}, not {length} finite numbers"
    if mode == BoxMode.XYXY_ABS and (box[2] < box[0] or box[3] < box[1]):
        text = f"'bbox' is {shown(list(box))}, but (x1, y1, x2, y2) needs x1 < x2 and y1 < y2"
        return "invalid_box", text
    if mode == BoxMode.XYWH_ABS and min(box[2], box[3]) < 0:
        return "invalid_box", f"'bbox' is {shown(list(box))}, with a negative width or height"
    if annotation.get("iscrowd", 0) not in (0, 1):
        return "wrong_type", f"'iscrowd' is {shown(annotation['iscrowd'])} instead of 0 or 1"
    return None


def _mask_problem(annotation: Mapping[str, Any], size: tuple[int, int]) -> tuple[str, str] | None:
    mask = annotation.get("segmentation")
    if isinstance(mask, dict) and isinstance(mask.get("counts"), bytes):
        mask = {**mask, "counts": mask["counts"].decode("ascii", "replace")}
    if isinstance(mask, list):
        mask = [part.tolist() if isinstance(part, np.ndarray) else part for part in mask]
        if any(not isinstance(part, list) for part in mask):
            return "wrong_type", f"'segmentation' is {shown(mask)}, not a list of polygons"
        short = [len(part) for part in mask if len(part) < 6]
        if short and len(short) < len(mask):  # Detectron2 cannot draw such a polygon
            return "invalid_polygon", f"a polygon has {short[0]} numbers, less than three points"
    try:
        parse_segmentation(mask, size)
    except MaskError as error:
        return error.args[0], error.args[1]
    return None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _finite(box: Any, length: int) -> bool:
    if not isinstance(box, list | tuple | np.ndarray) or len(box) != length:
        return False
    if any(isinstance(value, str | bool) or value is None for value in box):
        return False
    try:
        return bool(np.isfinite(np.asarray(box, float)).all())
    except (TypeError, ValueError):
        return False
