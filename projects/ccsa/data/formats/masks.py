"""Checking the masks of JSON annotations before pycocotools sees them: it crashes on some values.

COCO's compressed run lengths are text: groups of 5 bits, least significant first, each in a
character from 48 on; bit 6 says that another group follows, and from the third count on the
difference to the count two before is stored.
"""

from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from ccsa.data.formats.text_files import shown
from ccsa.data.records import Polygons, Rle, as_text, is_number, rle_of_polygons

FAR = 10  # a coordinate this many image sizes away is not a coordinate of this image
LONGEST = 20_000_000  # pixels of an outline; pycocotools needs memory for each
LARGEST_SIDE, LARGEST_IMAGE = 500_000, 2**31  # pixels; beyond these, pycocotools crashes


class MaskError(Exception):
    """A mask cannot be used. ``args`` are the kind of problem and what is wrong."""


def parse_segmentation(value: Any, size: tuple[int, int]) -> Polygons | Rle | None:
    """Return a ``segmentation`` of COCO in one of two forms: polygons, or a compressed RLE.

    Args:
        value: ``[[x, y, ...], ...]``, ``[x, y, ...]``, ``{"size", "counts"}`` with a list or text,
            or nothing (None, ``[]``, ``{}``).
        size: (height, width) of the image.

    Returns:
        None if there is no mask.

    Raises:
        MaskError: with the kind of problem and a text for the message.
    """
    if value is None or value == [] or value == {} or value == [[]] or value == "":
        return None
    if isinstance(value, dict):
        return _rle(value, size)
    if not isinstance(value, list):
        raise MaskError("wrong_type", f"'segmentation' is {shown(value)}")
    if all(not isinstance(part, list) for part in value):
        value = [value]
    return _polygons(value, size)


def _polygons(value: list, size: tuple[int, int]) -> Polygons:
    if not is_image_size(size):
        raise MaskError("invalid_polygon", f"the image is {size[1]} x {size[0]} pixels large")
    far = FAR * max(*size, 1)
    polygons: Polygons = []
    degenerate = ""
    for polygon in value:
        if not isinstance(polygon, list):
            raise MaskError("wrong_type", f"'segmentation' contains {shown(polygon)}")
        if not all(is_number(number) for number in polygon):
            bad = next(number for number in polygon if not is_number(number))
            raise MaskError("invalid_polygon", f"a polygon contains {shown(bad)}")
        if len(polygon) % 2:
            raise MaskError(
                "invalid_polygon", f"a polygon has {len(polygon)} numbers, not x, y pairs"
            )
        if any(abs(number) > far for number in polygon):
            bad = next(number for number in polygon if abs(number) > far)
            raise MaskError("invalid_polygon", f"a polygon has the coordinate {shown(bad)}")
        if len(polygon) * far > LONGEST and _length(polygon) > LONGEST:
            raise MaskError("invalid_polygon", f"a polygon is {_length(polygon):.0f} pixels long")
        if len(polygon) < 6:
            degenerate = f"a polygon has {len(polygon) // 2} points"
        else:
            polygons.append([float(number) for number in polygon])
    if not polygons:
        raise MaskError("degenerate_polygon", degenerate or "there is no polygon")
    return polygons


def is_image_size(size: tuple[int, int]) -> bool:
    """Whether an image may have this (height, width)."""
    height, width = size
    return min(size) > 0 and max(size) <= LARGEST_SIDE and height * width <= LARGEST_IMAGE


def covers_no_pixel(polygons: Polygons, size: tuple[int, int]) -> bool:
    """Whether the mask of polygons has no pixel, as that of points on one straight line.

    Only thin ones are rasterized: one whose area in pixels exceeds its perimeter is thicker than a
    pixel.

    Args:
        polygons: lists ``[x, y, ...]`` in pixels, at least three points each.
        size: (height, width) of the image.
    """
    height, width = size
    for polygon in polygons:
        xs, ys = polygon[0::2], polygon[1::2]
        steps = list(zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True))
        area = abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in steps)) / 2
        perimeter = sum(abs(next_x - x) + abs(next_y - y) for x, y, next_x, next_y in steps)
        inside = min(xs) >= 0 and min(ys) >= 0 and max(xs) <= width and max(ys) <= height
        if inside and area > perimeter:
            return False
    return not coco_mask.area(rle_of_polygons(polygons, size))


def _length(polygon: list) -> float:
    """Return the number of pixels on the outline of a polygon ``[x, y, ...]``."""
    points = np.reshape(np.asarray(polygon, float), (-1, 2))
    return float(np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum())


def _rle(value: dict, size: tuple[int, int]) -> Rle:
    given, counts = value.get("size"), value.get("counts")
    if not (
        isinstance(given, list)
        and len(given) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in given)
    ):
        raise MaskError("invalid_rle", f"'size' of the mask is {shown(given)}")
    if tuple(given) != tuple(size):
        raise MaskError(
            "rle_size",
            f"the mask is {shown(given[1])} x {shown(given[0])} pixels, the image {size[1]} x "
            f"{size[0]}",
        )
    if not is_image_size(size):
        raise MaskError("invalid_rle", f"the image is {size[1]} x {size[0]} pixels large")
    if isinstance(counts, str):
        lengths = decode_counts(counts)
    elif isinstance(counts, list):
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in counts):
            raise MaskError("invalid_rle", "'counts' contains something other than integers")
        lengths = counts
    else:
        raise MaskError("invalid_rle", f"'counts' of the mask is {shown(counts)}")
    if any(n < 0 for n in lengths):
        raise MaskError("invalid_rle", "'counts' contains a negative run")
    if sum(lengths) != size[0] * size[1]:
        raise MaskError(
            "invalid_rle", f"'counts' covers {shown(sum(lengths))} of {size[0] * size[1]} pixels"
        )
    if sum(lengths[1::2]) == 0:
        raise MaskError("empty_mask", "the mask has no pixel")
    if isinstance(counts, str):
        return {"size": list(given), "counts": counts}
    return as_text(coco_mask.frPyObjects({"size": given, "counts": counts}, *size))


def decode_counts(text: str) -> list[int]:
    """Decode COCO's compressed run lengths.

    Raises:
        MaskError: the text is not in that form.

    Example:
        >>> decode_counts("04L4")
        [0, 4, -4, 8]
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise MaskError("invalid_rle", f"'counts' contains the character {character!r}")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            if shift > 60:
                raise MaskError("invalid_rle", "'counts' contains a run that is too long")
            continue
        if code & 0x10:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        lengths.append(value)
        value = shift = 0
    if shift:
        raise MaskError("invalid_rle", "'counts' ends too early")
    return lengths
