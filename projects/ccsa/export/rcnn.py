"""Faster, Mask and Cascade R-CNN, RetinaNet: from an image to boxes, scores, classes and masks.

Each class shares the weights of a Detectron2 model and repeats its inference for one image in the
operations of :mod:`ccsa.export.detections`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, RetinaNet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import Tensor

from ccsa.errors import UserError
from ccsa.export import detections as d
from ccsa.export.canvas import Canvas
from ccsa.export.whole import WholePart

Features = Mapping[str, Tensor]


class InstancePart(WholePart):
    """Base class: from a uint8 RGB image (H, W, 3) to detections in pixels of that image.

    Attributes:
        outputs: names of the results: boxes (N, 4) as x1, y1, x2, y2; scores (N,); classes (N,),
            int64; and with masks, masks (N, H, W), bool.
        threshold: every score is higher.
        most: the largest number of detections; negative for no limit.
    """

    threshold: float
    most: int

    def __init__(self, cfg: CfgNode, model: Any):
        super().__init__(cfg, model)
        self.outputs = ["boxes", "scores", "classes"]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of an image (H, W, 3), in the order of ``outputs``."""
        canvas = self.preparation(image)
        return self.detect(self.backbone(canvas.pixels), canvas, image)

    def detect(self, features: Features, canvas: Canvas, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, from the feature maps of the canvas of an image (H, W, 3)."""
        raise NotImplementedError


class RCNNPart(InstancePart):
    """A GeneralizedRCNN with an RPN and standard or cascaded heads for boxes and masks.

    Raises:
        UserError: a part of the model is of another kind.
    """

    def __init__(self, cfg: CfgNode, model: Any):
        super().__init__(cfg, model)
        rpn, heads = model.proposal_generator, model.roi_heads
        _check_kind(rpn, RPN, "MODEL.PROPOSAL_GENERATOR.NAME")
        _check_kind(rpn.anchor_generator, DefaultAnchorGenerator, "MODEL.ANCHOR_GENERATOR.NAME")
        _check_kind(heads, StandardROIHeads, "MODEL.ROI_HEADS.NAME")
        if getattr(heads, "keypoint_on", False):
            raise UserError(
                "keypoints cannot be exported; set MODEL.KEYPOINT_ON False to export the rest"
            )
        self.rpn, self.heads = rpn, heads
        predictor = heads.box_predictor
        last = predictor if isinstance(predictor, FastRCNNOutputLayers) else predictor[-1]
        self.threshold, self.nms_threshold = last.test_score_thresh, last.test_nms_thresh
        self.most = last.test_topk_per_image
        if heads.mask_on:
            self.outputs.append("masks")

    def proposals(self, features: Features, canvas: Canvas) -> Tensor:
        """Return the proposals (R, 4) on the canvas: ``RPN.forward``."""
        rpn = self.rpn
        maps = [features[name] for name in rpn.in_features]
        logits, deltas = rpn.rpn_head(maps)
        boxes, scores, levels = [], [], []
        for i, grid in enumerate(d.anchors(rpn.anchor_generator, maps)):
            best, index = d.top(d.per_anchor(logits[i], 1)[:, 0], rpn.pre_nms_topk[False])
            chosen = d.per_anchor(deltas[i], 4)[index]
            boxes.append(rpn.box2box_transform.apply_deltas(chosen, grid[index]))
            scores.append(best)
            levels.append(torch.full_like(index, i))
        every = d.clipped(torch.cat(boxes), canvas.used)
        kept, score, level = d.rows_of(
            (every, torch.cat(scores), torch.cat(levels)), d.not_empty(every, rpn.min_box_size)
        )
        keep = d.separate_nms(kept, score, level, rpn.nms_thresh)
        return kept[keep[: rpn.post_nms_topk[False]]]

    def candidates(self, maps: list[Tensor], boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (R, K or 1, 4) inside the canvas and scores (R, K) of proposals (R, 4)."""
        heads = self.heads
        if not isinstance(heads, CascadeROIHeads):
            predictor = heads.box_predictor
            x = heads.box_head(d.pooled(heads.box_pooler, maps, boxes))
            logits, deltas = predictor(x)
            boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)
            boxes = boxes.reshape(-1, boxes.shape[1] // 4, 4)
            return d.clipped(boxes, size), probabilities(predictor, logits)
        scores = []
        for stage, predictor in enumerate(heads.box_predictor):
            if stage:
                boxes = d.clipped(boxes, size)
            x = heads.box_head[stage](d.pooled(heads.box_pooler, maps, boxes))
            logits, deltas = predictor(x)
            boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)
            scores.append(probabilities(predictor, logits))
        mean = sum(scores[1:], scores[0]) * (1.0 / len(scores))
        return d.clipped(boxes, size)[:, None], mean

    def detect(self, features: Features, canvas: Canvas, image: Tensor) -> tuple[Tensor, ...]:
        heads = self.heads
        maps = [features[name] for name in heads.box_in_features]
        proposals = d.with_spare(self.proposals(features, canvas))
        boxes, probability = self.candidates(maps, proposals, canvas.used)
        boxes, scores, classes = d.chosen_detections(
            boxes[:-1], probability[:-1], self.threshold, self.nms_threshold, self.most
        )
        outside, keep = d.in_image(boxes, canvas)
        boxes, outside, scores, classes = d.rows_of((boxes, outside, scores, classes), keep)
        if not heads.mask_on:
            return outside, scores, classes
        masks = self.masks(features, boxes, classes)
        return outside, scores, classes, d.pasted(masks, outside, image)

    def masks(self, features: Features, boxes: Tensor, classes: Tensor) -> Tensor:
        """Return the probabilities (N, M, M) of boxes (N, 4) on the canvas with their classes."""
        heads = self.heads
        maps = [features[name] for name in heads.mask_in_features]
        x = d.pooled(heads.mask_pooler, maps, d.with_spare(boxes))
        logits = heads.mask_head.layers(x)[:-1]  # (N, K or 1, M, M)
        if logits.shape[1] == 1:
            return logits[:, 0].sigmoid()
        index = torch.ones_like(classes).cumsum(0) - 1
        return logits[index, classes].sigmoid()


class RetinaNetPart(InstancePart):
    """A RetinaNet."""

    def __init__(self, cfg: CfgNode, model: Any):
        super().__init__(cfg, model)
        _check_kind(model.anchor_generator, DefaultAnchorGenerator, "MODEL.ANCHOR_GENERATOR.NAME")
        # The registered modules are those that the program computes with.
        self.head, self.anchor_generator = model.head, model.anchor_generator
        self.names = list(model.head_in_features)
        self.transform, self.num_classes = model.box2box_transform, model.num_classes
        self.threshold, self.most_candidates = model.test_score_thresh, model.test_topk_candidates
        self.nms_threshold, self.most = model.test_nms_thresh, model.max_detections_per_image

    def detect(self, features: Features, canvas: Canvas, image: Tensor) -> tuple[Tensor, ...]:
        maps = [features[name] for name in self.names]
        logits, deltas = self.head(maps)
        boxes, scores, classes = [], [], []
        for i, grid in enumerate(d.anchors(self.anchor_generator, maps)):
            probability = d.per_anchor(logits[i], self.num_classes).sigmoid()
            found = (probability > self.threshold).nonzero()
            best, index = d.top(probability[found[:, 0], found[:, 1]], self.most_candidates)
            anchor, label = found[index, 0], found[index, 1]
            chosen = d.per_anchor(deltas[i], 4)[anchor]
            boxes.append(self.transform.apply_deltas(chosen, grid[anchor]))
            scores.append(best)
            classes.append(label)
        box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(classes)
        keep = d.separate_nms(box, score, label, self.nms_threshold)[: self.most]
        outside, inside = d.in_image(box[keep], canvas)
        return tuple(d.rows_of((outside, score[keep], label[keep]), inside))


def probabilities(predictor: FastRCNNOutputLayers, logits: Tensor) -> Tensor:
    """Return the probabilities (R, K) of the logits (R, K + 1), without the background."""
    sigmoid = getattr(predictor, "use_sigmoid_ce", False)
    values = logits.sigmoid() if sigmoid else logits.softmax(-1)
    return values[:, :-1]


def _check_kind(module: Any, kind: type, key: str) -> None:
    """Raise a UserError unless a part of the model is of the kind that can be exported."""
    if not isinstance(module, kind):
        raise UserError(f"{key} {type(module).__name__} cannot be exported; use {kind.__name__}")


def instance_part(cfg: CfgNode, model: Any) -> InstancePart | None:
    """Return the exported form of a detector, in evaluation mode; it shares the model's weights.

    Args:
        cfg: its configuration, which states how images are resized.
        model: a model of Detectron2.

    Returns:
        None for a model that is not a detector, and for panoptic models.

    Raises:
        UserError: a part of the detector is of a kind that cannot be exported.
    """
    if isinstance(model, RetinaNet):
        return RetinaNetPart(cfg, model).eval()
    if isinstance(model, GeneralizedRCNN) and not isinstance(model, PanopticFPN):
        return RCNNPart(cfg, model).eval()
    return None
