"""Squeeze-and-attention.

Squeeze-and-Attention Networks for Semantic Segmentation, Zhong et al., CVPR 2020, arXiv 1909.03402,
equations 4 and 5. There is no official code. The paper leaves open the pooling factor, kernel
sizes, reduction, norm, upsampling and the activations: each is a keyword here.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.blocks.base import GatedBlock
from ccsa.blocks.layers import ACTIVATIONS, NORMS
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY
from ccsa.errors import UserError, at_least, one_of

ALIGN_CORNERS = {"bilinear": False, "nearest": None}


@CONTEXT_BLOCK_REGISTRY.register()
class SqueezeAttention(GatedBlock):
    """X_att * X_res + X_att, gated by default (see :class:`GatedBlock`), with

    X_res = conv(conv(X)) and X_att = upsample(conv(conv(average pool(X)))) to the size of X.

    Args:
        channels: C of the map, (B, C, H, W), any size.
        out_channels: of the result, C by default; another needs ``residual=False``.
        pool: factor of the average pooling: "not fully squeezed", so above 1, below the map.
        reduction: between the two convolutions of a path there are out_channels // reduction.
        kernel_size: of all four convolutions, odd.
        norm: after each convolution, GN, BN, SyncBN or none. GN needs no batch, so the block works
            in any place and on a single RoI.
        activation: none, relu, leaky_relu, silu or sigmoid, after every norm but the last one of
            the attention path.
        attention_activation: the same, there: none (as drawn), relu (X_att >= 0), sigmoid, ...
        upsample: bilinear or nearest.
        residual: False for the bare form, without gate.

    Raises:
        ValueError: a keyword out of its range.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        pool: int = 2,
        reduction: int = 4,
        kernel_size: int = 3,
        norm: str = "GN",
        activation: str = "relu",
        attention_activation: str = "none",
        upsample: str = "bilinear",
        residual: bool = True,
    ):
        super().__init__(residual)
        out_channels = channels if out_channels is None else out_channels
        at_least(1, channels=channels, out_channels=out_channels, pool=pool, reduction=reduction)
        at_least(1, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise UserError(f"kernel_size must be odd, not {kernel_size}")
        if residual and out_channels != channels:
            raise UserError(
                f"out_channels {out_channels} beside {channels} channels needs residual=False"
            )
        make_norm = one_of(NORMS, norm, "norm")
        make_activation = one_of(ACTIVATIONS, activation, "activation")
        inner = max(1, out_channels // reduction)

        def path() -> nn.Sequential:
            def conv(a: int, b: int) -> nn.Conv2d:
                bias = norm == "none"
                return nn.Conv2d(a, b, kernel_size, padding=kernel_size // 2, bias=bias)

            return nn.Sequential(
                *(conv(channels, inner), make_norm(inner), make_activation()),
                *(conv(inner, out_channels), make_norm(out_channels)),
            )

        self.pool = pool
        self.attention = path()
        self.attention.append(one_of(ACTIVATIONS, attention_activation, "attention_activation")())
        self.main = path()
        self.main.append(make_activation())
        self.upsample = upsample
        self.align_corners = one_of(ALIGN_CORNERS, upsample, "upsample")

    def context(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        # A map that the factor does not divide keeps its rest, as means over fewer positions.
        pooled = F.avg_pool2d(x, self.pool, ceil_mode=True, count_include_pad=False)
        attention = self.attention(pooled)
        attention = F.interpolate(
            attention, x.shape[2:], mode=self.upsample, align_corners=self.align_corners
        )
        return attention * self.main(x) + attention
