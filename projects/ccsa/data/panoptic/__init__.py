"""Panoptic datasets: reading, writing, checking and preparing their files."""

from ccsa.data.panoptic.annotations import Annotation, Category, PanopticJson, read_panoptic_json
from ccsa.data.panoptic.catalog import FAMILIES, PREPARED, PanopticSplit
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
