"""Meta-architectures, backbones and heads of ccsa."""

from ccsa.modeling.backbone import build_dilated_resnet_backbone, dilated_resnet
from ccsa.modeling.ccnet_head import CCNetHead
from ccsa.modeling.consistency import CategoryConsistentLoss
from ccsa.modeling.context_model import ContextModel
from ccsa.modeling.losses import CrossEntropy, OhemCrossEntropy
from ccsa.modeling.plain_backbone import PlainBackbone
from ccsa.modeling.sanet_head import SANetHead
from ccsa.modeling.segmentor import DenseSegmentor
from ccsa.modeling.semantic_head import FCNHead
from ccsa.modeling.timm_backbone import (
    TimmBackbone,
    build_timm_backbone,
    build_timm_fpn_backbone,
)
from ccsa.modeling.video import VideoCCNetHead, VideoSemanticSegmentor

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
