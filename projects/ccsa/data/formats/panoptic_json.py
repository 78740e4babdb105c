"""Panoptic JSON files in COCO's format, read with every type checked."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ccsa.data.formats.panoptic_png import Segment
from ccsa.errors import UserError


class Annotation(NamedTuple):
    """The segments of one image, and the PNG that shows them."""

    image_id: int | str
    file_name: str
    segments: list[Segment]


class Category(NamedTuple):
    id: int
    name: str
    isthing: bool


class PanopticJson(NamedTuple):
    """What a JSON file holds, by image id and category id, in the file's order."""

    path: Path
    annotations: dict[int | str, Annotation]
    categories: dict[int, Category]  # none of predictions
    images: list[Any]  # as they are; none of predictions

    @property
    def isthing(self) -> dict[int, bool]:
        """{category id: whether it is a thing}."""
        return {category.id: category.isthing for category in self.categories.values()}


def read_panoptic_json(path: Path, truth: bool = True) -> PanopticJson:
    """Read ``annotations`` and ``categories``; segments are taken as they are, see
    :func:`segment_troubles`.

    Args:
        truth: False for predictions, of which no more is read than images and their segments' ids
            and categories, as panopticapi does.

    Raises:
        UserError: the file cannot be read, a key is missing or of the wrong type, or an image or a
            category is there twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; name a panoptic JSON file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}); put a good copy in its place") from error
    try:
        _expect(isinstance(content, dict), "it is no JSON object with 'annotations'")
        categories = _categories(content) if truth else {}
        annotations: dict[int | str, Annotation] = {}
        for entry in _get(content, "annotations", list, "the file"):
            annotation = _annotation(entry, truth)
            twice = f"image {annotation.image_id} is annotated twice"
            _expect(annotation.image_id not in annotations, twice)
            annotations[annotation.image_id] = annotation
        images = _get(content, "images", list, "the file") if truth and "images" in content else []
    except _FormatError as error:
        raise UserError(
            f"{path} is not in COCO's panoptic format: {error}; it needs {_FORMAT}"
        ) from error
    return PanopticJson(path, annotations, categories, images)


_FORMAT = (
    "'annotations': a list of {image_id, file_name, segments_info: a list of {id, category_id}}, "
    "and as ground truth 'categories': a list of {id, isthing}"
)


class _FormatError(Exception):
    """What is wrong in a file."""


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _FormatError(otherwise)


def _get(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    _expect(isinstance(entry, dict), f"{where} is no object")
    _expect(key in entry, f"{where} has no '{key}'")
    value = entry[key]
    # To Python true is an integer.
    right = isinstance(value, kind) and not isinstance(value, bool)
    _expect(right, f"'{key}' of {where} is {str(value)[:40]!r}, of the wrong type")
    return value


def _categories(content: dict) -> dict[int, Category]:
    categories: dict[int, Category] = {}
    for entry in _get(content, "categories", list, "the file"):
        number = _get(entry, "id", int, "a category")
        where = f"category {number}"
        _expect(number not in categories, f"{where} is there twice")
        isthing = entry.get("isthing")
        _expect(isthing in (0, 1), f"'isthing' of {where} is {isthing!r} instead of 0 or 1")
        name = _get(entry, "name", str, where) if "name" in entry else str(number)
        categories[number] = Category(number, name, bool(isthing))
    return categories


def _annotation(entry: Any, truth: bool) -> Annotation:
    image_id = _get(entry, "image_id", (int, str), "an annotation")
    where = f"image {image_id}"
    file_name = _get(entry, "file_name", str, where)
    segments = []
    for segment in _get(entry, "segments_info", list, where):
        number = _get(segment, "id", int, f"a segment of {where}")
        of = f"segment {number} of {where}"
        category = _get(segment, "category_id", int, of)
        if not truth:
            segments.append(Segment(number, category))
            continue
        iscrowd, area = segment.get("iscrowd", 0), segment.get("area")
        _expect(iscrowd in (0, 1), f"'iscrowd' of {of} is {iscrowd!r} instead of 0 or 1")
        right = area is None or (isinstance(area, int | float) and not isinstance(area, bool))
        _expect(right, f"'area' of {of} is {str(area)[:40]!r} instead of a number")
        segments.append(Segment(number, category, bool(iscrowd), area))
    return Annotation(image_id, file_name, segments)
