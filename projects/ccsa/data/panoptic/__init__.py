"""Panoptic datasets: reading, writing, checking and preparing their files.

Importing this adds to Detectron2's metadata of COCO panoptic how its labels are made.
"""

from pathlib import Path

from detectron2.data import MetadataCatalog

from ccsa.data.panoptic.annotations import Annotation, Category, PanopticJson, read_panoptic_json
from ccsa.data.panoptic.catalog import COCO, FAMILIES, PREPARED, PanopticSplit
from ccsa.data.panoptic.segments import (
    Segment,
    read_segment_ids,
    relabel_segments,
    segment_troubles,
    write_segment_ids,
)

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
