"""The steps that Detectron2's detectors share, in operations that every export format has.

Detectron2 branches on the number of boxes and changes tensors in place, which traces cannot record.
Here every step is one formula for any number of boxes, none included. The comments name the
function of Detectron2 whose result a step has.

R: boxes before a step, N: detections, K: classes, M: side of a predicted mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor
from torchvision.ops import nms

from ccsa.export.canvas import Canvas, sizes


def anchors(generator: DefaultAnchorGenerator, features: Sequence[Tensor]) -> list[Tensor]:
    """Return the anchors (rows * columns * A, 4) of each feature map (1, C, rows, columns)."""
    result = []
    for x, stride, cells in zip(features, generator.strides, generator.cell_anchors, strict=True):
        offset = generator.offset
        # The positions come from the feature map, so that a trace does not store its size.
        ones = torch.ones_like(x[0, 0])
        y = (ones.cumsum(0) - 1 + offset) * stride
        x = (ones.cumsum(1) - 1 + offset) * stride
        shifts = torch.stack((x, y, x, y), 2).reshape(-1, 1, 4)
        result.append((shifts + cells.reshape(1, -1, 4)).reshape(-1, 4))
    return result


def per_anchor(x: Tensor, values: int) -> Tensor:
    """Return predictions (1, A * values, rows, columns) as (rows * columns * A, values)."""
    rows, columns = x.shape[2], x.shape[3]
    x = x.reshape(-1, values, rows, columns)  # (A, values, rows, columns)
    return x.permute(2, 3, 0, 1).reshape(-1, values)


def top(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the highest scores of (R,), at most ``most``, and their indices."""
    if torch.jit.is_tracing():
        limit: Any = sizes(scores)[0].clamp(max=most)
        return scores.topk(limit)
    return scores.topk(torch.sym_min(scores.shape[0], most))


def clipped(boxes: Tensor, size: Tensor) -> Tensor:
    """Return boxes (..., 4) inside an image of ``size`` (height, width)."""
    height, width = size[0].float(), size[1].float()
    limits = torch.stack((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), limits)


def not_empty(boxes: Tensor, least: float = 0.0) -> Tensor:
    """Return whether both sides of boxes (R, 4) are longer than ``least``."""
    return (boxes[:, 2] - boxes[:, 0] > least) & (boxes[:, 3] - boxes[:, 1] > least)


def separate_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return the indices that non-maximum suppression within each group keeps, best first.

    As in ``batched_nms``, boxes of different groups are shifted apart. A box that is added and
    removed again gives boxes without any the largest coordinate 0.
    """
    largest = torch.cat((boxes.reshape(-1), boxes.new_zeros(1))).max()
    shifted = boxes + (groups.to(boxes.dtype) * (largest + 1))[:, None]
    return nms(shifted, scores, threshold)


def pooled(pooler: ROIPooler, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Return the pooled features (R, C, P, P) of boxes (R, 4): ``ROIPooler.forward``.

    Each level pools its own boxes; then the rows are brought back into the order of the boxes.
    """
    rois = torch.cat((torch.zeros_like(boxes[:, :1]), boxes), 1)
    levels = list(pooler.level_poolers)
    if len(levels) == 1:
        return levels[0](features[0], rois)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = pooler.canonical_level + torch.log2(areas.sqrt() / pooler.canonical_box_size + 1e-8)
    level = level.floor().clamp(min=pooler.min_level, max=pooler.max_level).long()
    parts, indices = [], []
    for i, (pool, x) in enumerate(zip(levels, features, strict=True), pooler.min_level):
        chosen = (level == i).nonzero().reshape(-1)
        parts.append(pool(x, rois.index_select(0, chosen)))
        indices.append(chosen)
    order = torch.cat(indices).argsort()
    return torch.cat(parts).index_select(0, order)


def with_spare(boxes: Tensor) -> Tensor:
    """Append one box, because some runtimes have no convolution of an empty batch."""
    return torch.cat((boxes, boxes.new_tensor([[0.0, 0.0, 8.0, 8.0]])))


def chosen_detections(
    boxes: Tensor, scores: Tensor, threshold: float, nms_threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (N, 4), scores (N,) and classes (N,): ``fast_rcnn_inference_single_image``.

    Args:
        boxes: (R, K, 4), or (R, 1, 4) if the classes share them; inside the image.
        scores: (R, K).
        threshold: detections must have a higher score.
        nms_threshold: IoU from which the weaker of two boxes of a class is removed.
        most: the largest number of detections; negative for no limit.
    """
    found = (scores > threshold).nonzero()
    rows, classes = found[:, 0], found[:, 1]
    scores = scores[rows, classes]
    boxes = boxes[rows, classes] if boxes.shape[1] != 1 else boxes[:, 0][rows]
    keep = separate_nms(boxes, scores, classes, nms_threshold)
    if most >= 0:
        keep = keep[:most]
    return boxes[keep], scores[keep], classes[keep]


def in_image(boxes: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Return boxes of the canvas in pixels of the image, and which of them are not empty there:
    ``detector_postprocess``."""
    y, x = canvas.scale[0], canvas.scale[1]
    boxes = clipped(boxes * torch.stack((x, y, x, y)), canvas.image)
    return boxes, not_empty(boxes)


def pasted(masks: Tensor, boxes: Tensor, image: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the masks (N, H, W) in the image, bool: ``paste_masks_in_image``.

    Bilinear sampling with zeros outside is one matrix of weights per axis.

    Args:
        masks: (N, M, M), probabilities inside the boxes.
        boxes: (N, 4), in pixels of the image.
        image: (3, H, W) or (H, W); only its size is used.
        threshold: the probability from which a pixel belongs to the mask.
    """
    side = masks.shape[-1]
    cells = torch.arange(side, device=masks.device).float()
    ones = torch.ones_like(image[:, :1, 0] if image.dim() == 3 else image[:, :1]).float()
    rows = ones.reshape(-1).cumsum(0) - 0.5  # centers of the pixels
    across = torch.ones_like(image[:1, :, 0] if image.dim() == 3 else image[:1]).float()
    columns = across.reshape(-1).cumsum(0) - 0.5

    def weights(centers: Tensor, start: Tensor, end: Tensor) -> Tensor:  # (N, len(centers), M)
        at = (centers - start) / (end - start) * side - 0.5
        return (1 - (at[..., None] - cells).abs()).clamp(min=0)

    down = weights(rows, boxes[:, 1:2], boxes[:, 3:4])
    right = weights(columns, boxes[:, 0:1], boxes[:, 2:3])
    return torch.matmul(torch.matmul(down, masks), right.transpose(1, 2)) >= threshold


def rows_of(tensors: Sequence[Tensor], keep: Tensor) -> list[Any]:
    """Return the rows of tensors of length N that the mask ``keep`` (N,) selects."""
    index = keep.nonzero().reshape(-1)
    return [x.index_select(0, index) for x in tensors]
