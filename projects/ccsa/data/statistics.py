"""What a plan for training needs to know about a dataset: sizes, counts and classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ccsa.data.image_reader import Range, intensity_percentiles, is_deep
from ccsa.data.tasks import TaskData, semantic_label
from ccsa.errors import UserError

_LABELS_READ = 100  # label images whose pixels are counted, at most
_PIXELS_READ = 50_000_000  # of these label images together
_HEADERS = 5000  # images that are searched for ones of more than 8 bits
_SAMPLE = 32  # of these, images that decide about the range of intensities


@dataclass(frozen=True)
class Statistics:
    """Statistics of the records of one split. Crowd regions are not objects.

    Attributes:
        images: number of images.
        short, long: medians of the shorter and the longer sides of the images, in pixels.
        ratio: the 95th percentile of the longer side divided by the shorter side.
        longest: the longest side of all images, in pixels.
        object_sizes: square root of the area of the box of each object, in pixels.
        object_shares: the same, as a share of the shorter side of its image.
        object_ratios: height of the box of each object divided by its width.
        counts: number of objects in each image.
        class_counts: number of objects of each class; without objects, the number of images that
            contain it.
        class_images: number of images in which each class occurs.
        counted: number of images that ``class_counts`` and ``class_images`` refer to.
    """

    images: int
    short: int
    long: int
    ratio: float
    longest: int
    object_sizes: np.ndarray
    object_shares: np.ndarray
    object_ratios: np.ndarray
    counts: np.ndarray
    class_counts: dict[str, int]
    class_images: dict[str, int]
    counted: int


def statistics(task: TaskData, split: str = "train") -> Statistics:
    """Compute the statistics of a split.

    Of data with a class per pixel, at most 100 label images are read.
    """
    records = task.splits[split]
    sizes = np.array([(r["height"], r["width"]) for r in records] or [(1, 1)], float)
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    objects = [[a for a in r.get("annotations", ()) if not a["iscrowd"]] for r in records]
    counts = np.array([len(annotations) for annotations in objects], int)
    boxes = np.array([a["bbox"][2:] for annotations in objects for a in annotations], float)
    boxes = np.maximum(boxes.reshape(-1, 2), 1.0)  # width, height
    lengths = np.sqrt(boxes.prod(axis=1))
    names, found = _classes(task, records, objects)
    return Statistics(
        images=len(records),
        short=int(np.median(short)),
        long=int(np.median(long)),
        ratio=float(np.percentile(long / short, 95)),
        longest=int(long.max()),
        object_sizes=lengths,
        object_shares=lengths / np.repeat(short[: len(records)], counts),
        object_ratios=boxes[:, 1] / boxes[:, 0],
        counts=counts,
        class_counts={name: sum(c[i] for c in found) for i, name in enumerate(names)},
        class_images={name: sum(c[i] > 0 for c in found) for i, name in enumerate(names)},
        counted=len(found),
    )


def _classes(
    task: TaskData, records: Sequence[dict[str, Any]], objects: Sequence[list]
) -> tuple[list[str], list[Counter]]:
    """Return the class names, and how often each class occurs in each image."""
    if task.thing_classes:
        return task.thing_classes, [Counter(a["category_id"] for a in found) for found in objects]
    counted: list[Counter] = []
    pixels = 0
    step = max(1, -(-len(records) // _LABELS_READ))
    for record in records[::step]:
        pixels += record["height"] * record["width"]
        if counted and pixels > _PIXELS_READ:
            break
        try:
            label = semantic_label(record)
        except UserError:  # the checks of the dataset report it
            continue
        counted.append(Counter(np.unique(label).tolist()))
    return task.stuff_classes, counted


class Intensities(NamedTuple):
    """The range of intensities of a training set.

    Attributes:
        range: its 0.1 and 99.9 percentiles.
        images: number of images that they were computed from.
    """

    range: Range
    images: int


def training_intensities(task: TaskData) -> Intensities | None:
    """Return the range of intensities of the training images of more than 8 bits, from a sample of
    them; None if there are none.

    Raises:
        UserError: an image of the sample cannot be read.
    """
    files = [str(record["file_name"]) for record in task.splits["train"]]
    deep = [file for file in _spread(files, _HEADERS) if is_deep(file)]
    sample = _spread(deep, _SAMPLE)
    found = intensity_percentiles(sample) if sample else None
    if found is None:
        return None
    low, high = (round(value, 6) for value in found)
    return Intensities((low, high), len(sample))


def _spread(files: list[str], count: int) -> list[str]:
    """Return about ``count`` of the files, evenly spread."""
    return files[:: max(1, -(-len(files) // count))]
