"""Drawing of the ground truth of an image, in the style of the predictions next to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode

from ccsa.data.panoptic import read_segment_ids
from ccsa.data.records import rle_of_polygons
from ccsa.data.tasks import decode_mask, has_label, panoptic_segments, semantic_label
from ccsa.visualization.painter import OPACITY, ClassColorVisualizer

_IGNORED = 255


def draw_annotations(
    image: np.ndarray,
    record: Mapping[str, Any],
    metadata: Metadata,
    resize: T.Transform,
    kind: str,
) -> np.ndarray:
    """Draw the annotations that correspond to a kind of prediction.

    If the record has no annotations of that kind, all of its annotations are drawn.

    Args:
        image: RGB of shape (H, W, 3), uint8, already resized.
        record: one image in Detectron2's standard dataset format, or one of a user's own data.
        metadata: classes and colors, see :func:`ccsa.visualization.class_metadata`.
        resize: the transform from the pixels of the record to those of ``image``.
        kind: ``panoptic_seg``, ``instances``, ``sem_seg`` or ``proposals``.

    Returns:
        RGB of shape (H, W, 3), uint8.
    """
    painter = ClassColorVisualizer(image, metadata, boxes=kind != "panoptic_seg")
    things = record.get("annotations") or ()
    stuff = "sem_seg" in record or has_label(record)
    segments = _segments(record) if kind == "panoptic_seg" else None
    if segments is not None:
        ids = torch.from_numpy(_resize_labels(segments[0], resize))
        painter.draw_panoptic_seg(ids, segments[1], alpha=OPACITY)
        return painter.output.get_image()
    if stuff and (kind in ("panoptic_seg", "sem_seg") or not things):
        labels = _semantic_labels(record, resize)
        if kind == "panoptic_seg" and things:
            labels[labels == 0] = _IGNORED  # label 0 is all things, drawn as instances below
        painter.draw_sem_seg(labels, alpha=OPACITY)
    if things and (kind != "sem_seg" or not stuff):
        size = record.get("height"), record.get("width")
        draw_objects(painter, things, resize, size)
    return painter.output.get_image()


def draw_objects(
    painter: ClassColorVisualizer,
    annotations: Sequence[Mapping[str, Any]],
    resize: T.Transform,
    size: tuple[int | None, int | None],
) -> None:
    """Draw objects, of which any may have no mask.

    Args:
        painter: draws into its picture.
        annotations: in Detectron2's standard format.
        resize: the transform from the pixels of the annotations to those of the picture.
        size: (height, width) of the image of the annotations; None if unknown.
    """
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    corners = resize.apply_box(np.array(boxes, float).reshape(-1, 4))
    masks = [_mask(a, resize, size, painter) for a in annotations]
    metadata = painter.metadata
    numbers = [a["category_id"] for a in annotations]
    names = metadata.get("thing_classes")
    labels = [names[n] if names else str(n) for n in numbers]
    crowds = [bool(a.get("iscrowd")) for a in annotations]
    painter.overlay_instances(
        boxes=corners,
        masks=masks if any(mask is not None for mask in masks) else None,
        labels=[
            f"{label} (crowd)" if c else label for label, c in zip(labels, crowds, strict=True)
        ],
        assigned_colors=[tuple(v / 255 for v in metadata.thing_colors[n]) for n in numbers],
    )


def _mask(
    annotation: Mapping[str, Any],
    resize: T.Transform,
    size: tuple[int | None, int | None],
    painter: ClassColorVisualizer,
) -> np.ndarray | None:
    """Return the mask (H, W) of an object in the pixels of the picture, or None."""
    mask = annotation.get("segmentation")
    if not mask:
        return None
    shape = painter.output.height, painter.output.width
    if isinstance(mask, list):
        polygons = [resize.apply_coords(np.reshape(p, (-1, 2)).astype(float)) for p in mask]
        rle = rle_of_polygons([p.ravel().tolist() for p in polygons], shape)
        return decode_mask({"segmentation": rle}, shape).astype(np.uint8)
    height, width = mask["size"] if None in size else size
    original = decode_mask(annotation, (int(height or 0), int(width or 0)))
    return resize.apply_segmentation(original.astype(np.uint8))


def _segments(record: Mapping[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]] | None:
    """Return the ids (H, W) and the segments of a record, or None if it is not panoptic."""
    if "things" in record.get("labels", ()):
        return panoptic_segments(record)
    if "pan_seg_file_name" in record:
        return read_segment_ids(Path(record["pan_seg_file_name"])), record["segments_info"]
    return None


def _semantic_labels(record: Mapping[str, Any], resize: T.Transform) -> np.ndarray:
    """Return the resized semantic labels (H, W) of a record."""
    labels = record.get("sem_seg")
    if labels is None:
        labels = semantic_label(record)
    return _resize_labels(np.asarray(labels), resize)


def _resize_labels(labels: np.ndarray, resize: T.Transform) -> np.ndarray:
    """Resize labels with nearest-neighbor interpolation.

    Detectron2 resizes floating point values only; float32 represents ids up to 2^24 exactly.
    """
    return resize.apply_segmentation(labels.astype(np.float32)).astype(np.int64)
