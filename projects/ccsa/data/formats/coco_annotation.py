"""Reading single annotations of COCO instances JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccsa.data.formats.coco_fields import FieldReader, as_integer, as_number
from ccsa.data.formats.masks import (
    FAR,
    LARGEST_SIDE,
    MaskError,
    covers_no_pixel,
    parse_segmentation,
)
from ccsa.data.formats.text_files import shown
from ccsa.data.problems import Problems
from ccsa.data.records import is_number, make_annotation


class AnnotationReader(FieldReader):
    """Reads annotations, fills in what they lack, and reports what is wrong with them.

    Args:
        file: the JSON file.
        index: the class by category id.
        problems: where problems are reported.
        crowds_are_objects: whether masks marked ``iscrowd: 1`` are single objects, as in CVAT.
    """

    def __init__(
        self,
        file: Path,
        index: Mapping[int, int],
        problems: Problems,
        *,
        crowds_are_objects: bool = False,
    ):
        super().__init__(file, problems)
        self.index, self.crowds_are_objects = index, crowds_are_objects

    def read(self, entry: Mapping, record: Mapping, where: str) -> dict[str, Any] | None:
        """Return an annotation in Detectron2's standard form; None if it cannot be used.

        Args:
            entry: the annotation in the JSON file.
            record: its image.
            where: what messages call the annotation.
        """
        category = self.integer(entry, "category_id", where)
        if category not in self.index:
            kind = "unknown_category" if "category_id" in entry else "missing_field"
            self.report(kind, f"{where}: category_id is {shown(entry.get('category_id'))}")
            return None
        size = record["height"], record["width"]
        try:
            segmentation = parse_segmentation(entry.get("segmentation"), size)
        except MaskError as error:
            kind, reason = error.args
            self.report(kind, f"{where}: {reason}")
            if kind != "degenerate_polygon":
                return None
            segmentation = None
        if isinstance(segmentation, list) and covers_no_pixel(segmentation, size):
            self.report("empty_mask", f"{where}: the polygon covers no pixel of the image")
            return None
        box = self._box(entry, where)
        if box is None and segmentation is None:
            if not entry.get("bbox"):
                self.report("missing_field", f"{where} has neither 'bbox' nor 'segmentation'")
            return None
        if box is not None and (box[2] <= 0 or box[3] <= 0):
            if segmentation is None:
                self.report("empty_box", f"{where}: the box is {box}")
                return None
            self.report("box_mask_mismatch", f"{where}: the box {box} has no area, its mask has")
            box = None  # that of the mask
        if segmentation is None:
            self.report("missing_mask", f"{where} has no mask")
        iscrowd = self._crowd(entry, where)
        if self.crowds_are_objects and isinstance(entry.get("segmentation"), dict):
            iscrowd = 0
        area = self._area(entry, where)
        annotation = make_annotation(
            self.index[category],
            box=box,
            segmentation=segmentation,
            iscrowd=iscrowd,
            area=area,
            size=size,
        )
        if min(annotation["bbox"][2:]) <= 0:
            self.report("empty_box", f"{where}: the mask has the box {annotation['bbox']}")
            return None
        return annotation

    def _box(self, entry: Mapping, where: str) -> list[float] | None:
        box = entry.get("bbox")
        if box is None or box == []:
            return None
        valid = isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
        if not valid or max(map(abs, box)) > FAR * LARGEST_SIDE:
            self.report("invalid_box", f"{where}: 'bbox' is {shown(box)}")
            return None
        return [float(value) for value in box]

    def _area(self, entry: Mapping, where: str) -> float | None:
        """Return the area; None if it must be that of the mask."""
        area = entry.get("area")
        if isinstance(area, str) and (number := as_number(area)) is not None:
            self.report("quoted_number", f"{where}: 'area' is {shown(area)}")
            area = number
        if area is None:
            if "area" in entry:
                self.report("null_field", f"{where}: 'area' is null")
            return None
        if not is_number(area):
            self.report("wrong_type", f"{where}: 'area' is {shown(area)}")
            return None
        return float(area) if area > 0 else None

    def _crowd(self, entry: Mapping, where: str) -> int:
        if as_integer(entry.get("ignore", 0)) == 1:
            self.report("ignored_annotation", f"{where} has ignore: 1")
            return 1
        if "iscrowd" not in entry:
            return 0
        value = entry["iscrowd"]
        if value is None:
            self.report("null_field", f"{where}: 'iscrowd' is null")
            return 0
        number = int(value) if isinstance(value, bool) else as_integer(value)
        if isinstance(value, str) and number in (0, 1):
            self.report("quoted_number", f"{where}: 'iscrowd' is {shown(value)}")
        if number not in (0, 1):
            self.report("wrong_type", f"{where}: 'iscrowd' is {shown(value)} instead of 0 or 1")
            return 0
        return int(number)
