"""The formats in which a user's data can come; see ``ccsa.data.read_folder``."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ccsa.data.formats import (
    class_masks,
    coco_folder,
    coco_panoptic,
    instance_labels,
    labelme,
    voc,
    yolo,
)
from ccsa.data.problems import Problems
from ccsa.data.records import Split


class Reader(NamedTuple):
    """How a format is recognized and read.

    Attributes:
        matches: called with a folder; returns whether it is in this format.
        read: called with a folder and the list of problems; returns the splits.
    """

    matches: Callable[[Path], bool]
    read: Callable[[Path, Problems], list[Split]]


# In the order of detection: where two match, the first one is more specific.
FORMATS = {
    name: Reader(module.matches, module.read)
    for name, module in {
        "coco_panoptic": coco_panoptic,
        "voc": voc,
        "yolo": yolo,
        "labelme": labelme,
        "coco": coco_folder,
        "instance_labels": instance_labels,
        "class_masks": class_masks,
    }.items()
}
