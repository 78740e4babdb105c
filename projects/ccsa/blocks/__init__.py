"""Context blocks: modules from (B, C, *spatial) to the same shape. They import torch only."""

from ccsa.blocks.base import GatedBlock
from ccsa.blocks.criss_cross import CrissCross
from ccsa.blocks.non_local import NonLocal
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY, build_block
from ccsa.blocks.squeeze_attention import SqueezeAttention
from ccsa.blocks.squeeze_excitation import SqueezeExcitation

__all__ = [
    "CONTEXT_BLOCK_REGISTRY",
    "CrissCross",
    "GatedBlock",
    "NonLocal",
    "SqueezeAttention",
    "SqueezeExcitation",
    "build_block",
]
