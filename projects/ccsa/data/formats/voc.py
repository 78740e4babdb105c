"""PASCAL VOC: ``JPEGImages``, ``SegmentationClass``, ``SegmentationObject`` and ``ImageSets``.

Both label images are palette PNGs: indices of classes, and numbers of objects, whose class is that
of their pixels. 255 is the border of objects, which belongs to none.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.formats.image_files import usable_images
from ccsa.data.formats.label_images import read_label_image
from ccsa.data.formats.layout import SPLIT_NAMES, read_class_names
from ccsa.data.formats.text_files import read_text, shown
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header, make_annotation, rles_of_labels
from ccsa.errors import UserError

BORDER = 255
BACKGROUND = "background"
# The classes of VOC 2012, used where no classes.txt lists others.
VOC_CLASSES = [
    BACKGROUND,
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
]


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
    # Objects have the classes without background; labels have all.
    return [
        Split(name, classes, _records(root, stems, classes, problems), root)
        for name, stems in _splits(root, problems).items()
    ]


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


def _by_stem(folder: Path, root: Path, problems: Problems) -> dict[str, Path]:
    return {path.stem: path for path in usable_images(folder, root, problems)}


def _splits(root: Path, problems: Problems) -> dict[str, list[str]]:
    """Return the stems of each split; without lists, every image with labels is ``train``."""
    found = {}
    for split, aliases in SPLIT_NAMES.items():
        for alias in aliases:
            file = root / "ImageSets" / "Segmentation" / f"{alias}.txt"
            if file.is_file():
                lines = [line.split() for line in read_text(file, problems).splitlines()]
                found[split] = list(dict.fromkeys(words[0] for words in lines if words))
                break
    return found or {"train": sorted(_by_stem(root / "SegmentationClass", root, Problems()))}


def _records(
    root: Path, stems: list[str], classes: list[str], problems: Problems
) -> list[dict[str, Any]]:
    images, labels, objects = (
        _by_stem(root / name, root, problems)
        for name in ("JPEGImages", "SegmentationClass", "SegmentationObject")
    )
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
