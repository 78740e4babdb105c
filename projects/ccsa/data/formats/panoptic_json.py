"""Panoptic JSON files in COCO's format; the type of every value is checked."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ccsa.data.formats.panoptic_png import Segment
from ccsa.data.formats.text_files import read_json
from ccsa.data.problems import Problems
from ccsa.errors import UserError, shown


class Annotation(NamedTuple):
    """The segments of one image, and the name of the PNG that shows them."""

    image_id: int | str
    file_name: str
    segments: list[Segment]


class Category(NamedTuple):
    """A category of the JSON."""

    id: int
    name: str
    isthing: bool


class PanopticJson(NamedTuple):
    """The content of a JSON file by image id and category id, in the order of the file."""

    path: Path
    annotations: dict[int | str, Annotation]
    categories: dict[int, Category]  # empty for predictions
    images: list[Any]  # unchecked; empty for predictions

    @property
    def isthing(self) -> dict[int, bool]:
        """Return, for each category id, whether it is a thing."""
        return {category.id: category.isthing for category in self.categories.values()}


def read_panoptic_json(
    path: Path, truth: bool = True, problems: Problems | None = None
) -> PanopticJson:
    """Read a panoptic JSON file. Whether its segments fit their PNGs is not checked here, see
    :func:`ccsa.data.formats.panoptic_png.segment_problems`.

    Args:
        path: the file.
        truth: False for predictions, of which only the images and the ids and categories of their
            segments are read, as panopticapi does.
        problems: where an unusual encoding is reported; by default it is an error.

    Raises:
        UserError: the file cannot be read, a key is missing or has the wrong type, or an image or a
            category occurs twice.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file; name a panoptic JSON file")
    try:
        if problems is not None:
            content = read_json(path, problems)
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; name a panoptic JSON file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}); replace it with an intact copy") from error
    try:
        _expect(isinstance(content, dict), "it is not a JSON object with 'annotations'")
        categories = _categories(content) if truth else {}
        annotations: dict[int | str, Annotation] = {}
        for entry in _get(content, "annotations", list, "the file"):
            annotation = _annotation(entry, truth)
            new = annotation.image_id not in annotations
            _expect(new, f"image {annotation.image_id} is annotated twice")
            if _leads_out(annotation.file_name):
                text = (
                    f"'file_name' of image {annotation.image_id} is {shown(annotation.file_name)}, "
                    "which leads out of the folder of the PNGs"
                )
                if problems is None:
                    raise _FormatError(text)
                problems.add("outside", path, text)
                continue
            annotations[annotation.image_id] = annotation
        images = _get(content, "images", list, "the file") if truth and "images" in content else []
    except _FormatError as error:
        reason = str(error)
        reason = reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}..."
        raise UserError(
            f"{path} is not in COCO's panoptic format: {reason}; it needs {_FORMAT}"
        ) from error
    return PanopticJson(path, annotations, categories, images)


_LONGEST = 200  # characters of a reason: ids and values may be of any length
_FORMAT = (
    "'annotations': a list of {image_id, file_name, segments_info: a list of {id, category_id}}, "
    "and for ground truth 'categories': a list of {id, isthing}"
)


class _FormatError(Exception):
    """Raised if the content of a file is wrong; the message says what is wrong with it."""


def _leads_out(name: str) -> bool:
    """Return whether a name does not stay in its folder, under which files are read and written."""
    inner = os.path.normpath(name)
    return os.path.isabs(inner) or inner.split(os.sep)[0] == os.pardir or "\0" in inner


def _expect(condition: bool, message: str) -> None:
    """Raise a _FormatError unless ``condition`` holds."""
    if not condition:
        raise _FormatError(message)


def _get(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return ``entry[key]``, whose type must be ``kind``."""
    _expect(isinstance(entry, dict), f"{where} is not an object")
    _expect(key in entry, f"{where} has no '{key}'")
    value = entry[key]
    # In Python, true is an integer.
    valid = isinstance(value, kind) and not isinstance(value, bool)
    _expect(valid, f"'{key}' of {where} is {str(value)[:40]!r}, which has the wrong type")
    return value


def _categories(content: dict[str, Any]) -> dict[int, Category]:
    """Return the categories of a file by id."""
    categories: dict[int, Category] = {}
    for entry in _get(content, "categories", list, "the file"):
        number = _get(entry, "id", int, "a category")
        where = f"category {number}"
        _expect(number not in categories, f"{where} occurs twice")
        isthing = entry.get("isthing")
        _expect(isthing in (0, 1), f"'isthing' of {where} is {isthing!r} instead of 0 or 1")
        name = _get(entry, "name", str, where) if "name" in entry else str(number)
        categories[number] = Category(number, name, bool(isthing))
    return categories


def _annotation(entry: Any, truth: bool) -> Annotation:
    """Return the annotation of one image."""
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
        valid = area is None or (isinstance(area, int | float) and not isinstance(area, bool))
        _expect(valid, f"'area' of {of} is {str(area)[:40]!r} instead of a number")
        segments.append(Segment(number, category, bool(iscrowd), area))
    return Annotation(image_id, file_name, segments)
