"""Panoptic datasets: their splits, and reading, writing and preparing their files.

Importing this package registers Cityscapes with the labels that Panoptic FPN is trained on, and
adds the command that prepares the labels to Detectron2's metadata of COCO panoptic. ``FAMILIES``
holds the datasets by name, ``PREPARED`` those that tools/prepare_dataset.py prepares.
"""

from pathlib import Path

from detectron2.data import MetadataCatalog

from ccsa.data.family import Family
from ccsa.data.formats.panoptic_json import Annotation, Category, PanopticJson, read_panoptic_json
from ccsa.data.formats.panoptic_png import (
    Segment,
    read_segment_ids,
    relabel_segments,
    segment_problems,
    write_segment_ids,
)
from ccsa.data.panoptic import cityscapes
from ccsa.data.panoptic.coco import COCO, DIGITS
from ccsa.data.panoptic.splits import PanopticSplit
from ccsa.data.paths import datasets_root

__all__ = [
    "FAMILIES",
    "PREPARED",
    "Annotation",
    "Category",
    "PanopticJson",
    "PanopticSplit",
    "Segment",
    "read_panoptic_json",
    "read_segment_ids",
    "relabel_segments",
    "segment_problems",
    "write_segment_ids",
]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (DIGITS, COCO, cityscapes.CITYSCAPES)
}
PREPARED: dict[str, Family] = {family.name: family for family in (COCO, cityscapes.CITYSCAPES)}

for _split in COCO.splits(Path()):
    MetadataCatalog.get(_split.name).prepare_command = COCO.prepare_command
cityscapes.register_all(datasets_root())
