"""Conventions of COCO files that only show when all annotations of a file are looked at: crowd
marks on single objects, coordinates as fractions of the image, and images without a record."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccsa.data.formats.coco_fields import as_integer
from ccsa.data.formats.image_files import ImageIndex, images_below
from ccsa.data.problems import Problems
from ccsa.data.records import is_number

_CVAT = re.compile(r"instances_\w+\.json")
_SHARE = 0.05  # of the annotations: fewer are real crowd regions (in COCO, one percent)


def masks_are_marked_crowd(entries: Sequence[Any], file: Path, problems: Problems) -> bool:
    """Whether the marks ``iscrowd: 1`` of the run-length encoded masks are to be ignored.

    CVAT marks every mask, and only masks. COCO itself has the same pattern: its few crowd regions
    are its only run-length encoded masks. So the marks are ignored in a file with a name of CVAT
    in which most masks are marked, and more than a few percent of the annotations. In a file with
    another name, they are only reported.

    Args:
        entries: the annotations of the JSON file.
        file: the JSON file.
        problems: where the marks are reported, with their number.
    """
    found = [entry for entry in entries if isinstance(entry, Mapping)]
    masks = [entry for entry in found if isinstance(entry.get("segmentation"), dict)]
    marked = sum(as_integer(entry.get("iscrowd")) == 1 for entry in masks)
    others = sum(as_integer(entry.get("iscrowd")) == 1 for entry in found) - marked
    if others or 2 * marked <= len(masks) or marked < _SHARE * len(found):
        return False
    is_cvat = bool(_CVAT.fullmatch(file.name))
    how = "single objects" if is_cvat else "crowd regions, which are not trained"
    text = f"{marked} of {len(masks)} masks have iscrowd: 1; they are read as {how}"
    problems.add("masks_marked_crowd", file, text)
    return is_cvat


def report_normalized(entries: Sequence[Any], file: Path, problems: Problems) -> None:
    """Report coordinates that are fractions of the image instead of pixels.

    Args:
        entries: the annotations of the JSON file.
        file: the JSON file.
        problems: where one problem per file is added.
    """
    found = [entry for entry in entries if isinstance(entry, Mapping)]
    boxes = [entry.get("bbox") for entry in found]
    polygons = [
        part if isinstance(part, list) else entry["segmentation"]
        for entry in found
        if isinstance(entry.get("segmentation"), list)
        for part in entry["segmentation"]
    ]
    for name, lists in (("boxes", boxes), ("polygons", polygons)):
        values = [row for row in lists if isinstance(row, list) and row]
        within = all(is_number(n) and 0 <= n <= 1 for row in values for n in row)
        if within and any(n for row in values for n in row):
            text = f"the {name} of all {len(found)} annotations are within 0 and 1"
            problems.add("normalized_coordinates", file, text)
            return


def report_unlisted(
    indices: Sequence[ImageIndex], named: set[str], unusable: set[str], problems: Problems
) -> None:
    """Report images in the folders of the annotations that have no record.

    Args:
        indices: the images of each JSON file.
        named: the files of all records.
        unusable: the names of files whose record has been reported.
        problems: where problems are reported.
    """
    skipped = {name.replace("\\", "/").rpartition("/")[2] for name in unusable}
    known = {os.path.normpath(name) for name in named}
    folders = dict.fromkeys(folder for index in indices for folder in index.folders)
    for path in dict.fromkeys(path for folder in folders for path in images_below(folder)):
        if os.path.normpath(path) not in known and path.name not in skipped:
            problems.add("unlisted_image", path, "the image has no record in the annotations")
