"""Predictions for large images at a smaller size, so that drawing them needs little memory."""

from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances

_MASKS = "pred_masks"


def shrunk_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return (height, width) with the same proportions, whose longer side is at most ``longest``.

    Example:
        >>> shrunk_size((6000, 8000), 4000), shrunk_size((30, 40), 4000)
        ((3000, 4000), (30, 40))
    """
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def shrunk_outputs(
    outputs: dict[str, Any], size: tuple[int, int], target: tuple[int, int]
) -> dict[str, Any]:
    """Return the outputs of a model for an image of ``size`` at the size ``target``.

    Masks and class scores are sampled, one mask at a time. Outputs that are not drawn are left out.

    Args:
        outputs: under Detectron2's names, on the CPU.
        size, target: (height, width) in pixels.
    """
    rows, columns = (torch.arange(new) * old // new for old, new in zip(size, target, strict=True))
    found = {}
    if "instances" in outputs:
        found["instances"] = _shrunk_instances(outputs["instances"], size, target)
    if "sem_seg" in outputs:
        found["sem_seg"] = outputs["sem_seg"][:, rows][:, :, columns]
    if "panoptic_seg" in outputs:
        ids, segments = outputs["panoptic_seg"]
        found["panoptic_seg"] = ids[rows][:, columns], segments
    return found


def _shrunk_instances(
    instances: Instances, size: tuple[int, int], target: tuple[int, int]
) -> Instances:
    boxes: Boxes = instances.pred_boxes.clone()
    boxes.scale(target[1] / size[1], target[0] / size[0])
    result = Instances(target, pred_boxes=boxes)
    for name in ("scores", "pred_classes"):
        result.set(name, instances.get(name))
    if instances.has(_MASKS):
        masks = np.zeros((len(instances), *target), np.uint8)
        for out, mask in zip(masks, instances.get(_MASKS), strict=True):
            pixels = np.asarray(mask).astype(np.uint8)
            out[:] = cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_NEAREST)
        result.set(_MASKS, torch.from_numpy(masks).bool())
    return result
