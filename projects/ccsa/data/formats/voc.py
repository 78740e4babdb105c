"""PASCAL VOC: ``JPEGImages``, ``SegmentationClass``, ``SegmentationObject`` and ``ImageSets``.

Both label images are palette PNGs: indices of classes, and numbers of objects, whose class is that
of their pixels. 255 is the border of objects, which belongs to none.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.formats.label_images import read_label_image
from ccsa.data.formats.layout import SPLIT_NAMES, images_in, labels_by_stem, read_class_names
from ccsa.data.formats.text_files import read_text
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header, make_annotation, rle_of_mask
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
    classes = read_class_names(folder, problems) or read_class_names(root, problems) or VOC_CLASSES
    # Objects have the classes without background; labels have all.
    return [
        Split(name, classes, _records(root, stems, classes, problems), root)
        for name, stems in _splits(root, problems).items()
    ]


def _root(folder: Path) -> Path | None:
    places = [folder, folder / "VOC2012", *sorted(folder.glob("VOCdevkit/VOC*"))]
    for place in places:
        if (place / "JPEGImages").is_dir() and (place / "SegmentationClass").is_dir():
            return place
    return None


def _splits(root: Path, problems: Problems) -> dict[str, list[str]]:
    """Return the stems of each split; without lists, every image with labels is ``train``."""
    found = {}
    for split, aliases in SPLIT_NAMES.items():
        for alias in aliases:
            file = root / "ImageSets" / "Segmentation" / f"{alias}.txt"
            if file.is_file():
                lines = [line.split() for line in read_text(file, problems).splitlines()]
                found[split] = [words[0] for words in lines if words]
                break
    return found or {"train": sorted(labels_by_stem(root / "SegmentationClass"))}


def _records(
    root: Path, stems: list[str], classes: list[str], problems: Problems
) -> list[dict[str, Any]]:
    images = {path.stem: path for path in images_in(root / "JPEGImages")}
    labels, objects = (labels_by_stem(root / f"Segmentation{x}") for x in ("Class", "Object"))
    records: list[dict[str, Any]] = []
    for stem in stems:
        if stem not in images or stem not in labels:
            kind = "missing_image" if stem not in images else "missing_label"
            problems.add(kind, root, f"{stem} of the split has no {kind.removeprefix('missing_')}")
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
        problems.add("unreadable_label", objects, str(error))
        return []
    if not values.shape == numbers.shape == size:
        problems.add("label_size", objects, f"the label has the shape {numbers.shape}, not {size}")
        return []
    annotations = []
    for number in np.unique(numbers):
        if number in (0, BORDER):
            continue
        mask = numbers == number
        category = int(np.bincount(values[mask].ravel()).argmax())
        if not 0 < category < classes:
            problems.add("unknown_category", objects, f"object {number} has the class {category}")
            continue
        annotation = make_annotation(category, segmentation=rle_of_mask(mask), size=size)
        annotations.append(annotation)
    return annotations
