"""PASCAL VOC: ``JPEGImages``, ``SegmentationClass``, ``SegmentationObject`` and ``ImageSets``.

Both label images are palette PNGs: indices of classes, and numbers of objects, whose class is that
of their pixels. 255 is the border of objects, which belongs to none.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ccsa.data.formats.image_files import usable_images
from ccsa.data.formats.label_images import read_label_image
from ccsa.data.formats.layout import SPLIT_NAMES, read_class_names
from ccsa.data.formats.text_files import read_text, shown
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header, make_annotation, rles_of_labels
from ccsa.errors import UserError

logger = logging.getLogger(__name__)

BORDER = 255
BACKGROUND = "background"
# The classes of VOC 2012, used where no classes.txt lists others.
VOC_CLASSES = [
    BACKGROUND,
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
]


_MARK = re.compile(r"\s+(-1|0|1)$")


def matches(folder: Path) -> bool:
    """Whether the folder has the layout of VOC."""
    return _root(folder) is not None


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder."""
    root = _root(folder)
    if root is None:
        raise UserError(f"{folder} has no JPEGImages with SegmentationClass; see docs/OWN_DATA.md")
    classes = read_class_names(folder, problems) or read_class_names(root, problems)
    classes = classes or _label_map(root, problems) or VOC_CLASSES
    images, labels, objects = (
        {path.stem: path for path in usable_images(root / name, root, problems)}
        for name in ("JPEGImages", "SegmentationClass", "SegmentationObject")
    )
    lists = _lists(root, images, problems)
    splits = _splits(lists) or {"train": sorted(labels)}
    listed = {stem for stems in (*lists.values(), *splits.values()) for stem in stems}
    for stem in sorted(set(images) - listed):
        where = "no list in ImageSets/Segmentation names it" if lists else "it has no label"
        problems.add("unlisted_image", images[stem], where)
    # Objects have the classes without background; labels have all.
    return [
        Split(
            name, classes, _records(root, stems, images, labels, objects, classes, problems), root
        )
        for name, stems in splits.items()
        if not _is_without_labels(name, stems, labels)
    ]


def _is_without_labels(split: str, stems: list[str], labels: Mapping[str, Path]) -> bool:
    """Whether a test split has no label at all, as that of VOC, which is not public."""
    if split != "test" or any(stem in labels for stem in stems):
        return False
    logger.warning("The test split has no labels (%d images); it is left out.", len(stems))
    return True


def _root(folder: Path) -> Path | None:
    places = [folder, *sorted(folder.glob("VOC2*")), *sorted(folder.glob("VOCdevkit/VOC*"))]
    for place in places:
        if (place / "JPEGImages").is_dir() and (place / "SegmentationClass").is_dir():
            return place
    return None


def _label_map(root: Path, problems: Problems) -> list[str] | None:
    """Return the class names in CVAT's ``labelmap.txt``: ``name:color:parts:actions`` per line."""
    file = root / "labelmap.txt"
    if not file.is_file():
        return None
    lines = [line.strip() for line in read_text(file, problems).splitlines()]
    return [line.partition(":")[0] for line in lines if line and not line.startswith("#")] or None


def _lists(root: Path, images: Mapping[str, Path], problems: Problems) -> dict[str, list[str]]:
    """Return the names of images in each list of ``ImageSets/Segmentation``, by the name of the
    list."""
    files = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    lists = {}
    for file in files:
        lines = [line.strip() for line in read_text(file, problems).splitlines()]
        names = [_image_name(line, images) for line in lines if line]
        lists[file.stem] = list(dict.fromkeys(names))
    return lists


def _image_name(line: str, images: Mapping[str, Path]) -> str:
    """Return the name of the image in a line of a list, which may be followed by ``-1``, ``0`` or
    ``1``, as in the lists of a class, or end in the suffix of the image."""
    bare = _MARK.sub("", line)
    for name in (line, bare):
        for stem in (name, PurePath(name).stem):
            if stem in images:
                return stem
    return bare


def _splits(lists: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the names of images in each split; of lists without splits, all are ``train``."""
    found = {}
    for split, aliases in SPLIT_NAMES.items():
        alias = next((alias for alias in aliases if alias in lists), None)
        if alias:
            found[split] = lists[alias]
    if not found:  # trainval of VOC, default of CVAT
        names = dict.fromkeys(name for names in lists.values() for name in names)
        return {"train": list(names)} if names else {}
    return found


def _records(
    root: Path,
    stems: list[str],
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    objects: Mapping[str, Path],
    classes: list[str],
    problems: Problems,
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for stem in stems:
        if stem not in images or stem not in labels:
            kind = "missing_image" if stem not in images else "missing_label"
            what = kind.removeprefix("missing_")
            problems.add(kind, root, f"{shown(stem)} of the split has no {what}")
            continue
        if objects and stem not in objects:
            problems.add("missing_label", root, f"{stem} has no file in SegmentationObject")
            continue
        try:
            header = image_header(str(images[stem]))
        except OSError as error:
            problems.add("unreadable_image", images[stem], str(error))
            continue
        size = header.height, header.width
        record = {
            "file_name": str(images[stem]),
            "image_id": len(records) + 1,
            "height": size[0],
            "width": size[1],
            "sem_seg_file_name": str(labels[stem]),
        }
        if stem in objects:
            record["annotations"] = _annotations(
                labels[stem], objects[stem], len(classes), size, problems
            )
        records.append(record)
    return records


def _annotations(
    label: Path, objects: Path, classes: int, size: tuple[int, int], problems: Problems
) -> list[dict[str, Any]]:
    try:
        values, numbers = read_label_image(label), read_label_image(objects)
    except UserError as error:
        kind = "label_channels" if "channels" in str(error) else "unreadable_label"
        problems.add(kind, objects, str(error))
        return []
    if not values.shape == numbers.shape == size:
        problems.add("label_size", objects, f"the label has the shape {numbers.shape}, not {size}")
        return []
    annotations = []
    for number, rle in rles_of_labels(numbers).items():
        if number == BORDER:
            continue
        found, counts = np.unique(values[numbers == number], return_counts=True)
        category = int(found[counts.argmax()])
        if not 0 < category < classes:
            problems.add("unknown_category", objects, f"object {number} has the class {category}")
            continue
        annotation = make_annotation(category, segmentation=rle, size=size)
        annotations.append(annotation)
    return annotations
