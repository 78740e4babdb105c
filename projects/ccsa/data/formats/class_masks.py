"""Class masks: one label image per image, whose values are class indices; 255 is ignored.

The images are gray, palette or 1-bit PNGs. ``classes.txt`` lists the names, that of value 0 first.
"""

import logging
from pathlib import Path

import numpy as np

from ccsa.data.formats.label_images import read_label_image
from ccsa.data.formats.layout import find_pairs, matched, read_class_names
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header
from ccsa.errors import UserError

logger = logging.getLogger(__name__)

FOLDER_NAMES = ("labels", "masks", "annotations", "semantic", "gt")
IGNORE = 255
_LOOKED_AT = 20


def matches(folder: Path) -> bool:
    """Whether the folder has images with label images and names of classes, or label images that
    do not number objects."""
    from ccsa.data.formats import instance_labels  # the two formats exclude each other

    if not find_pairs(folder, FOLDER_NAMES):
        return False
    numbered = instance_labels.number_objects(folder)
    if numbered is None:
        logger.warning(
            "The labels in %s have too few values to show whether they are classes or numbers of "
            "objects; they are read as classes. If they number objects, use --data-format "
            "instance_labels.",
            folder,
        )
    return numbered is not True


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder."""
    pairs = find_pairs(folder, FOLDER_NAMES)
    if not pairs:
        raise UserError(f"{folder} has no folders of images and labels; see docs/OWN_DATA.md")
    names = read_class_names(folder, problems)
    splits = []
    for pair in pairs:
        split = Split(pair.split, names or [], source=pair.labels)
        for image, label in matched(pair, folder, problems):
            try:
                header = image_header(str(image))
            except OSError as error:
                problems.add("unreadable_image", image, str(error))
                continue
            split.records.append(
                {
                    "file_name": str(image),
                    "image_id": len(split.records) + 1,
                    "height": header.height,
                    "width": header.width,
                    "sem_seg_file_name": str(label),
                }
            )
        splits.append(split)
    if names is None:
        names = _numbered_classes(splits, folder, problems)
        for split in splits:
            split.classes = list(names)
    return splits


def _numbered_classes(splits: list[Split], folder: Path, problems: Problems) -> list[str]:
    """Return names for the values in the labels, where no file lists any.

    Raises:
        UserError: the values look like gray levels rather than indices.
    """
    values: set[int] = set()
    for split in splits:
        for record in split.records:
            file = record["sem_seg_file_name"]
            try:
                values.update(np.unique(read_label_image(file)).tolist())
            except UserError as error:
                kind = "label_channels" if "channels" in str(error) else "unreadable_label"
                problems.add(kind, file, str(error))
    values.discard(IGNORE)
    if min(values, default=0) < 0:
        raise UserError(f"{folder} has labels with negative values; number the classes from 0")
    highest = max(values, default=0)
    if highest > 2 * len(values) + 8:
        raise UserError(
            f"{folder} has no classes.txt, and its labels contain values up to {highest}; write "
            "the class names into classes.txt, one per line, that of value 0 first"
        )
    return [f"class {i}" for i in range(max(highest + 1, 2))]
