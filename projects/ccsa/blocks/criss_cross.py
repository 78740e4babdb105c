"""Recurrent criss-cross attention.

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., ICCV 2019 and TPAMI 2020,
arXiv 1811.11721, sections 3.2 and 3.3. Official code (speedinghzl/CCNet) consulted as reference;
its keys load as they are.

Each position gathers from its row and its column; a second loop with the same weights connects any
two positions. As in the official code, and unlike the paper's equation, gamma gates the result.
"""

from torch import Tensor

from ccsa.blocks.base import CONV, GatedBlock
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY, at_least, one_of
from ccsa.ops import criss_cross_attention


@CONTEXT_BLOCK_REGISTRY.register()
class CrissCross(GatedBlock):
    """x <- x + gamma * attention(q(x), k(x), v(x)), ``recurrence`` times with shared weights.

    Args:
        channels: C of the map.
        recurrence: loops R; 0 is the identity. The paper uses 2.
        reduction: query and key have C // reduction channels, at least 1.
        dims: 2 for (B, C, H, W), 3 for (B, C, T, H, W) maps (the paper's section 3.5).

    Raises:
        ValueError: a keyword out of its range.
    """

    def __init__(self, channels: int, recurrence: int = 2, reduction: int = 8, dims: int = 2):
        super().__init__()
        at_least(1, channels=channels, reduction=reduction)
        at_least(0, recurrence=recurrence)
        conv = one_of(CONV, dims, "dims")
        inner = max(1, channels // reduction)
        self.recurrence = recurrence
        self.query_conv = conv(channels, inner, 1)
        self.key_conv = conv(channels, inner, 1)
        self.value_conv = conv(channels, channels, 1)

    def context(self, x: Tensor) -> Tensor:
        """One loop's attention, (B, C, *S) -> (B, C, *S)."""
        return criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S), of x's type and memory format."""
        for _ in range(self.recurrence):
            x = super().forward(x)
        return x

    def extra_repr(self) -> str:
        return f"recurrence={self.recurrence}"
