"""Detectors of random weights whose scores and boxes are far apart."""

from copy import deepcopy

import torch
from detectron2.config import CfgNode, get_cfg
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.engine import Trainer
from support.tiny_models import MASK_RCNN


def mask_rcnn(cfg):
    """Keep the tiny Mask R-CNN, with criss-cross attention in the backbone."""


def cascade(cfg):
    """Configure Cascade Mask R-CNN, with a non-local block in the backbone."""
    cfg.MODEL.ROI_HEADS.NAME = "CascadeROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    cfg.MODEL.CONTEXT.BLOCKS[0]["block"] = "NonLocal"


def retinanet(cfg):
    """Configure RetinaNet, with squeeze-and-attention in the FPN."""
    levels = ["res3", "res4", "res5"]
    cfg.MODEL.CONTEXT.META_ARCHITECTURE, cfg.MODEL.MASK_ON = "RetinaNet", False
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = levels
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CONVS = 10, 1
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.3
    cfg.MODEL.CONTEXT.BLOCKS = [{"at": "backbone.fpn_output4", "block": "SqueezeAttention"}]


def mask_head(cfg):
    """Configure class-agnostic masks, and squeeze-and-excitation in the mask head, on RGB."""
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = True
    at = {"at": "roi_heads.mask_head.mask_fcn1", "block": "SqueezeExcitation"}
    cfg.MODEL.CONTEXT.BLOCKS = [at]


def build_detector(kind, *changes):
    """Return the configuration and the model of one of the functions above.

    Args:
        kind: changes the configuration of a tiny Mask R-CNN.
        changes: pairs of key and value.
    """
    torch.manual_seed(0)
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.merge_from_other_cfg(CfgNode(deepcopy(MASK_RCNN)))
    cfg.MODEL.PIXEL_STD = [57.0] * 3  # attention scores of ordinary size
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 50, 20
    kind(cfg)
    cfg.merge_from_list(list(changes))
    model = Trainer.build_model(cfg).eval()
    factors = {
        **dict.fromkeys(("cls_score.weight", "objectness_logits.weight"), 60),
        **dict.fromkeys(("bbox_pred.weight", "anchor_deltas.weight"), 10),
        "mask_head.predictor.weight": 300,
    }
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.7)
        for end, factor in factors.items():
            if name.endswith(end):
                parameter.data.mul_(factor)
    return cfg, model
