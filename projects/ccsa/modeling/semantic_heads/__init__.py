"""Semantic heads: FCN, CCNet, SANet, and CCNet for video."""

from ccsa.modeling.semantic_heads.ccnet import CCNetHead
from ccsa.modeling.semantic_heads.fcn import FCNHead
from ccsa.modeling.semantic_heads.sanet import SANetHead
from ccsa.modeling.semantic_heads.semantic_head import SemanticHead
from ccsa.modeling.semantic_heads.video_ccnet import VideoCCNetHead

__all__ = ["CCNetHead", "FCNHead", "SANetHead", "SemanticHead", "VideoCCNetHead"]
