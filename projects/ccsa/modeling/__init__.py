"""Meta-architectures, backbones and heads of ccsa."""

from ccsa.modeling.backbones.dilated_resnet import build_dilated_resnet_backbone, dilated_resnet
from ccsa.modeling.backbones.plain import PlainBackbone
from ccsa.modeling.backbones.timm_backbone import (
    TimmBackbone,
    build_timm_backbone,
    build_timm_fpn_backbone,
)
from ccsa.modeling.losses.category_consistent import CategoryConsistentLoss
from ccsa.modeling.losses.cross_entropy import CrossEntropy, OhemCrossEntropy
from ccsa.modeling.meta_arch.context_model import ContextModel
from ccsa.modeling.meta_arch.dense_segmentor import DenseSegmentor
from ccsa.modeling.meta_arch.video_segmentor import VideoSemanticSegmentor
from ccsa.modeling.semantic_heads.base import FCNHead
from ccsa.modeling.semantic_heads.ccnet import CCNetHead
from ccsa.modeling.semantic_heads.sanet import SANetHead
from ccsa.modeling.semantic_heads.video_ccnet import VideoCCNetHead

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
    "TimmBackbone",
    "VideoCCNetHead",
    "VideoSemanticSegmentor",
    "build_dilated_resnet_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
    "dilated_resnet",
]
