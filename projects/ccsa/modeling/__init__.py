"""Backbones, semantic heads, losses and meta-architectures, registered with Detectron2."""

from ccsa.modeling.backbones import (
    PlainBackbone,
    TimmBackbone,
    build_dilated_resnet_backbone,
    build_timm_backbone,
    build_timm_fpn_backbone,
    dilated_resnet,
)
from ccsa.modeling.losses import CategoryConsistentLoss, CrossEntropy, OhemCrossEntropy
from ccsa.modeling.meta_arch import ContextModel, DenseSegmentor, VideoSemanticSegmentor
from ccsa.modeling.semantic_heads import (
    CCNetHead,
    FCNHead,
    SANetHead,
    SemanticHead,
    VideoCCNetHead,
)

__all__ = [
    "CCNetHead",
    "CategoryConsistentLoss",
    "ContextModel",
    "CrossEntropy",
    "DenseSegmentor",
    "FCNHead",
    "OhemCrossEntropy",
    "PlainBackbone",
    "SANetHead",
    "SemanticHead",
    "TimmBackbone",
    "VideoCCNetHead",
    "VideoSemanticSegmentor",
    "build_dilated_resnet_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
    "dilated_resnet",
]
