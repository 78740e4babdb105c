"""Instance label images: one integer per object and 0 for background, often as 16-bit TIFF.

All objects are of one class, named in ``classes.txt`` or ``object``.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ccsa.data.formats.label_images import IGNORE, read_label_image
from ccsa.data.formats.layout import find_pairs, matched, read_class_names
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header, make_annotation, rles_of_labels
from ccsa.errors import UserError

FOLDER_NAMES = ("masks", "labels", "instances", "instance_labels")
_LOOKED_AT = 12  # label images that decide about the format
_MANY = 100  # values in one image are numbers of objects, even if 255 is one of them


def matches(folder: Path) -> bool:
    """Whether label images number objects: deep integers, or values that are single regions."""
    return number_objects(folder) is True


def number_objects(folder: Path) -> bool | None:
    """Whether label images number objects rather than classes; None if no image shows it."""
    pairs = find_pairs(folder, FOLDER_NAMES)
    if not pairs:
        return False
    try:
        names = read_class_names(folder, Problems())
    except UserError:  # reported by the reader
        names = None
    if names is not None and len(names) > 1:
        return False
    labels = [label for _, label in matched(pairs[0], folder, Problems())]
    step = max(1, len(labels) // _LOOKED_AT)
    is_named = names is not None  # one name, so that values above 1 are no classes
    votes = [_numbers_objects(label, is_named) for label in labels[::step]]
    if False in votes:
        return False
    return True if True in votes else None


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder."""
    pairs = find_pairs(folder, FOLDER_NAMES)
    if not pairs:
        raise UserError(f"{folder} has no folders of images and labels; see docs/OWN_DATA.md")
    names = read_class_names(folder, problems) or ["object"]
    if len(names) > 1:
        raise UserError(
            f"instance label images store one class, but {folder} lists {len(names)}: "
            f"{', '.join(names[:5])}; if the labels are classes, use --data-format class_masks, "
            "otherwise name one class"
        )
    splits = []
    for pair in pairs:
        split = Split(pair.split, names[:1], source=pair.labels)
        for image, label in matched(pair, folder, problems):
            record = _record(image, label, problems)
            if record is not None:
                split.records.append({**record, "image_id": len(split.records) + 1})
        splits.append(split)
    return splits


def _record(image: Path, label: Path, problems: Problems) -> dict[str, Any] | None:
    try:
        header = image_header(str(image))
    except OSError as error:
        problems.add("unreadable_image", image, str(error))
        return None
    try:
        values = read_label_image(label)
    except UserError as error:
        kind = "label_channels" if "channels" in str(error) else "unreadable_label"
        problems.add(kind, label, str(error))
        return None
    size = header.height, header.width
    if values.shape != size:
        problems.add(
            "label_size",
            label,
            f"the label has {values.shape[1]} x {values.shape[0]} pixels, its image "
            f"{size[1]} x {size[0]}",
        )
        return None
    lowest = int(values.min(initial=0))
    if lowest < 0:
        problems.add("label_out_of_range", label, f"the label contains the value {lowest}")
    rles = rles_of_labels(values)
    annotations = [make_annotation(0, segmentation=rle, size=size) for rle in rles.values()]
    return {
        "file_name": str(image),
        "height": size[0],
        "width": size[1],
        "annotations": annotations,
    }


def _numbers_objects(file: Path, is_named: bool) -> bool | None:
    """Whether the values of a label image are numbers of objects rather than classes; None if it
    does not show.

    Args:
        file: the label image.
        is_named: whether one class is named, which cannot have two values.
    """
    try:
        values = read_label_image(file)
    except UserError:
        return None
    numbers = np.unique(values)
    numbers = numbers[numbers > 0]
    deep = values.dtype.itemsize > 1
    if len(numbers) == 0:
        return None
    if deep and numbers[-1] > 255:
        return True
    if not deep and IGNORE in numbers and len(numbers) < _MANY:
        return False
    if len(numbers) < 3:
        return True if deep or (is_named and numbers[-1] > 1) else None
    # Classes occur in several regions; an object is one region.
    regions = [cv2.connectedComponents((values == n).astype(np.uint8))[0] - 1 for n in numbers[:20]]
    return bool(np.mean(regions) < 1.2)
