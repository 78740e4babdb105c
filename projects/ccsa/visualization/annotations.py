"""Drawing of the ground truth of an image, in the style of the predictions next to it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils import transform_instance_annotations
from PIL import Image

from ccsa.data.panoptic import read_segment_ids
from ccsa.visualization.painter import OPACITY, ClassColorVisualizer

_IGNORED = 255


def draw_annotations(
    image: np.ndarray,
    record: dict[str, Any],
    metadata: Metadata,
    resize: T.Transform,
    kind: str,
) -> np.ndarray:
    """Draw the annotations that correspond to a kind of prediction.

    If the record has no annotations of that kind, all of its annotations are drawn.

    Args:
        image: RGB of shape (H, W, 3), uint8, already resized.
        record: one image in Detectron2's standard dataset format.
        metadata: classes and colors, see :func:`ccsa.visualization.class_metadata`.
        resize: the transform from the pixels of the record to those of ``image``.
        kind: ``panoptic_seg``, ``instances``, ``sem_seg`` or ``proposals``.

    Returns:
        RGB of shape (H, W, 3), uint8.
    """
    painter = ClassColorVisualizer(image, metadata, boxes=kind != "panoptic_seg")
    things = bool(record.get("annotations"))
    stuff = "sem_seg" in record or "sem_seg_file_name" in record
    if kind == "panoptic_seg" and "pan_seg_file_name" in record:
        segments = _panoptic_ids(record["pan_seg_file_name"], resize)
        painter.draw_panoptic_seg(segments, record["segments_info"], alpha=OPACITY)
        return painter.output.get_image()
    if stuff and (kind in ("panoptic_seg", "sem_seg") or not things):
        labels = _semantic_labels(record, resize)
        if kind == "panoptic_seg" and things:
            labels[labels == 0] = _IGNORED  # label 0 is all things, drawn as instances below
        painter.draw_sem_seg(labels, alpha=OPACITY)
    if things and (kind != "sem_seg" or not stuff):
        size = image.shape[:2]
        annotations = [
            transform_instance_annotations(copy.deepcopy(a), resize, size)
            for a in record["annotations"]
        ]
        painter.draw_dataset_dict({"annotations": annotations})
    return painter.output.get_image()


def _panoptic_ids(file_name: str, resize: T.Transform) -> torch.Tensor:
    """Return the resized segment ids (H, W) of a panoptic PNG."""
    return torch.from_numpy(_resize_labels(read_segment_ids(Path(file_name)), resize))


def _semantic_labels(record: dict[str, Any], resize: T.Transform) -> np.ndarray:
    """Return the resized semantic labels (H, W) of a record."""
    labels = record.get("sem_seg")
    if labels is None:
        with Image.open(record["sem_seg_file_name"]) as file:
            labels = np.asarray(file)
    return _resize_labels(np.asarray(labels), resize)


def _resize_labels(labels: np.ndarray, resize: T.Transform) -> np.ndarray:
    """Resize labels with nearest-neighbor interpolation.

    Detectron2 resizes floating point values only; float32 represents ids up to 2^24 exactly.
    """
    return resize.apply_segmentation(labels.astype(np.float32)).astype(np.int64)
