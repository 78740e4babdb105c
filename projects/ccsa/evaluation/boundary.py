"""The boundary IoU of masks (Cheng et al., "Boundary IoU", CVPR 2021), fast enough for COCO.

The boundary of a mask is its pixels within 2 % of the image diagonal from its edge, and two masks
have min(IoU of the masks, IoU of their boundaries). A pair whose masks have an IoU below the lowest
threshold cannot match, so the boundaries of other pairs only are computed, each inside the box of
its mask. The results are those of faster-coco-eval, which computes the boundaries of all objects.

This module is imported only if faster-coco-eval is installed.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as coco_mask
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from ccsa.evaluation.rle import decode_box

WIDTH = 0.02  # of a boundary, relative to the diagonal of the image


class BoundaryEvaluation(COCOeval_faster):
    """faster-coco-eval, with boundaries only for the pairs that can match."""

    def _prepare(self) -> None:
        self.params.compute_boundary = False  # otherwise those of all objects
        super()._prepare()

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Return the IoU of the detections and objects of an image and category, (D, G)."""
        ious = super().computeIoU(imgId, catId)
        if self.params.iouType != "boundary" or len(ious) == 0:
            return ious
        key = [imgId], [catId] if self.params.useCats else self.params.catIds
        objects, found = (
            dataset.get_instances(*key, bool(self.params.useCats))[0][0]
            for dataset in (self.gt_dataset, self.dt_dataset)
        )
        order = np.argsort([-d["score"] for d in found], kind="mergesort")
        crowd = np.array([bool(g.get("iscrowd", 0)) for g in objects])
        possible = (ious >= self.params.iouThrs[0] - 1e-9) & ~crowd
        edges: dict[tuple[str, int], Boundary] = {}
        for d, g in np.argwhere(possible).tolist():
            entries = {("d", d): found[order[d]]["rle"], ("g", g): objects[g]["rle"]}
            if all(_is_thin(rle) for rle in entries.values()):
                continue  # the boundaries are the masks
            for which, rle in entries.items():
                if which not in edges:
                    edges[which] = Boundary(rle)
            one, other = (edges[which] for which in entries)
            ious[d, g] = min(ious[d, g], one.iou(other))
        return ious


class Boundary:
    """The boundary of a mask, stored inside the box of the mask.

    Args:
        rle: the mask in COCO's compressed form.

    Attributes:
        left, top: the corner of the box.
        pixels: (height, width) of the box, uint8; 1 on the boundary.
        area: the number of pixels on the boundary.
    """

    def __init__(self, rle: Mapping[str, Any]):
        self.left, self.top, mask = decode_box(rle)
        size = 2 * depth(rle) + 1
        if min(mask.shape) < size:
            self.pixels = mask
        else:
            # Outside its box the mask is 0, inside and outside the image.
            padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            self.pixels = mask - cv2.erode(padded, np.ones((size, size), np.uint8))[1:-1, 1:-1]
        self.area = int(np.count_nonzero(self.pixels))

    def iou(self, other: "Boundary") -> float:
        """Return the IoU of two boundaries in one image."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        (h, w), (other_h, other_w) = self.pixels.shape, other.pixels.shape
        right = min(self.left + w, other.left + other_w)
        bottom = min(self.top + h, other.top + other_h)
        if right <= left or bottom <= top:
            return 0.0
        mine, theirs = (
            x.pixels[top - x.top : bottom - x.top, left - x.left : right - x.left]
            for x in (self, other)
        )
        common = int(np.count_nonzero(mine & theirs))
        return common / (self.area + other.area - common)


def depth(rle: Mapping[str, Any]) -> int:
    """Return the width of a boundary in pixels, for the image of a mask."""
    return max(1, round(WIDTH * float(np.hypot(*rle["size"]))))


def _is_thin(rle: Mapping[str, Any]) -> bool:
    """Return whether all pixels of a mask are on its boundary, because its box is narrow."""
    return min(coco_mask.toBbox(rle)[2:]) <= 2 * depth(rle)
