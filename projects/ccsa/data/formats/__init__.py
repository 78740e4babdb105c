"""Readers and writers of annotation formats: label images, lists of ids, panoptic JSON and PNG,
MATLAB files."""

from ccsa.data.formats.id_lists import read_id_list, write_id_list
from ccsa.data.formats.label_images import IGNORE, read_label_image, write_label_image
from ccsa.data.formats.panoptic_json import read_panoptic_json
from ccsa.data.formats.panoptic_png import read_segment_ids, write_segment_ids

__all__ = [
    "IGNORE",
    "read_id_list",
    "read_label_image",
    "read_panoptic_json",
    "read_segment_ids",
    "write_id_list",
    "write_label_image",
    "write_segment_ids",
]
