"""Backbones: dilated ResNets, a small plain network, and the models of timm."""

from ccsa.modeling.backbones.dilated_resnet import build_dilated_resnet_backbone, dilated_resnet
from ccsa.modeling.backbones.plain import PlainBackbone
from ccsa.modeling.backbones.timm_backbone import (
    TimmBackbone,
    build_timm_backbone,
    build_timm_fpn_backbone,
)

__all__ = [
    "PlainBackbone",
    "TimmBackbone",
    "build_dilated_resnet_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
    "dilated_resnet",
]
