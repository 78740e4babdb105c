"""Predictions as COCO's annotations, which are at the same time COCO's results."""

from collections.abc import Sequence
from typing import Any

import pycocotools.mask as coco_mask
from detectron2.structures import Instances
from torch import Tensor

from ccsa.evaluation.rle import masks_to_rle


def objects_to_coco(
    instances: Instances, category_ids: Sequence[int], image_id: int
) -> list[dict[str, Any]]:
    """Return one dict for each detected object; see :meth:`Prediction.to_coco`.

    Boxes are cut off at the border of the image. Objects without a pixel are left out, because no
    program accepts them as annotations.

    Args:
        instances: with ``pred_boxes``, ``scores``, ``pred_classes``, and optionally ``pred_masks``.
        category_ids: the id of each class.
        image_id: the id of the image.
    """
    boxes = instances.pred_boxes.clone()
    boxes.clip(instances.image_size)
    scores, labels = instances.scores.tolist(), instances.pred_classes.tolist()
    masks = masks_to_rle(instances.pred_masks) if instances.has("pred_masks") else None
    found = []
    for index, (left, top, right, bottom) in enumerate(boxes.tensor.tolist()):
        entry = {
            "image_id": image_id,
            "category_id": category_ids[labels[index]],
            "bbox": [left, top, right - left, bottom - top],
            "score": scores[index],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        if masks is not None:
            entry |= {"segmentation": masks[index], "area": float(coco_mask.area(masks[index]))}
        if entry["area"] > 0 and right > left and bottom > top:
            found.append(entry)
    return found


def regions_to_coco(
    labels: Tensor, category_ids: Sequence[int], image_id: int
) -> list[dict[str, Any]]:
    """Return one dict for each class of pixels that occurs in an image.

    Args:
        labels: (H, W), the class of each pixel.
        category_ids: the id of each class.
        image_id: the id of the image.

    Example:
        >>> import torch
        >>> regions = regions_to_coco(torch.tensor([[0, 2], [0, 2]]), [1, 2, 3], image_id=7)
        >>> [(region["category_id"], region["bbox"]) for region in regions]
        [(1, [0.0, 0.0, 1.0, 2.0]), (3, [1.0, 0.0, 1.0, 2.0])]
    """
    found = []
    for label in labels.unique().tolist():
        (rle,) = masks_to_rle([labels == label])
        entry = {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": coco_mask.toBbox(rle).tolist(),
            "area": float(coco_mask.area(rle)),
            "iscrowd": 0,
            "segmentation": rle,
        }
        found.append(entry)
    return found
