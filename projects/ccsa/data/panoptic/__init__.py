"""Panoptic datasets: reading, writing, checking and preparing their files.

Importing this registers Cityscapes as Panoptic FPN is trained on it, and adds to Detectron2's
metadata of COCO panoptic how its labels are made.
"""

from pathlib import Path

from detectron2.data import MetadataCatalog

from ccsa.data.formats.panoptic_json import Annotation, Category, PanopticJson, read_panoptic_json
from ccsa.data.formats.panoptic_png import (
    Segment,
    read_segment_ids,
    relabel_segments,
    segment_troubles,
    write_segment_ids,
)
from ccsa.data.panoptic import cityscapes
from ccsa.data.panoptic.catalog import COCO, FAMILIES, PREPARED
from ccsa.data.panoptic.splits import PanopticSplit
from ccsa.data.synthetic.storage import datasets_root

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
    "segment_troubles",
    "write_segment_ids",
]

for _split in COCO.splits(Path()):
    MetadataCatalog.get(_split.name).prepare_command = COCO.prepare_command
cityscapes.register_all(datasets_root())
