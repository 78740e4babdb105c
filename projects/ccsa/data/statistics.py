"""What a plan for training needs to know about a dataset: sizes, counts and classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.tasks import TaskData, semantic_label

_LABELS_READ = 200  # label images whose pixels are counted


@dataclass(frozen=True)
class Statistics:
    """Statistics of the records of one split.

    Attributes:
        images: number of images.
        size: median (height, width) of the images, in pixels.
        largest: the largest (height, width).
        object_sizes: square root of the area of each object, in pixels.
        object_shares: the same, as a share of the shorter side of its image.
        counts: number of objects in each image.
        class_counts: number of objects (or, without objects, of images) of each class.
        class_images: number of images in which each class occurs.
    """

    images: int
    size: tuple[int, int]
    largest: tuple[int, int]
    object_sizes: np.ndarray
    object_shares: np.ndarray
    counts: np.ndarray
    class_counts: dict[str, int]
    class_images: dict[str, int]


def statistics(task: TaskData, split: str = "train") -> Statistics:
    """Compute the statistics of a split. Crowd regions are not objects."""
    records = task.splits[split]
    sizes = np.array([(r["height"], r["width"]) for r in records] or [(1, 1)])
    objects = [[a for a in r.get("annotations", ()) if not a["iscrowd"]] for r in records]
    lengths, shares = [], []
    for record, annotations in zip(records, objects, strict=True):
        short = min(record["height"], record["width"])
        for annotation in annotations:
            length = max(annotation["area"], 1.0) ** 0.5
            lengths.append(length)
            shares.append(length / short)
    names, found = _classes(task, records, objects)
    return Statistics(
        images=len(records),
        size=(int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))),
        largest=(int(sizes[:, 0].max()), int(sizes[:, 1].max())),
        object_sizes=np.array(lengths),
        object_shares=np.array(shares),
        counts=np.array([len(annotations) for annotations in objects]),
        class_counts={name: sum(c[i] for c in found) for i, name in enumerate(names)},
        class_images={name: sum(c[i] > 0 for c in found) for i, name in enumerate(names)},
    )


def _classes(
    task: TaskData, records: Sequence[dict[str, Any]], objects: Sequence[list]
) -> tuple[list[str], list[Counter]]:
    """Return the class names, and how often each class occurs in each image."""
    if task.thing_classes:
        return task.thing_classes, [Counter(a["category_id"] for a in found) for found in objects]
    counted = []
    step = max(1, -(-len(records) // _LABELS_READ))
    for record in records[::step]:
        if Path(record["file_name"]).exists():
            counted.append(Counter(dict.fromkeys(np.unique(semantic_label(record)).tolist(), 1)))
    return task.stuff_classes, counted
