"""Squeeze-and-attention.

Squeeze-and-Attention Networks for Semantic Segmentation, Zhong et al., CVPR 2020, arXiv 1909.03402,
equations 4 and 5. There is no official code. The paper does not state the pooling factor, the
kernel sizes, the reduction, the norm, the upsampling and the activations: each is a keyword here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.blocks.base import MOST_CHANNELS, GatedBlock
from ccsa.blocks.layers import ACTIVATIONS, BLOCK_NORMS
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY
from ccsa.errors import UserError, at_least, between, one_of

ALIGN_CORNERS = {"bilinear": False, "nearest": None}


@CONTEXT_BLOCK_REGISTRY.register()
class SqueezeAttention(GatedBlock):
    """Squeeze-and-attention: x + gamma * (X_att * X_res + X_att).

    X_res = conv(conv(X)), and X_att = upsample(conv(conv(average_pool(X)))) to the size of X.

    Args:
        channels: C of the feature map (B, C, H, W), which may have any size.
        out_channels: channels of the output, C by default; any other number needs
            ``residual=False``.
        pool: factor of the average pooling. The paper calls the result "not fully squeezed", so it
            should be above 1 and below the size of the feature map.
        reduction: the two convolutions of each branch have out_channels // reduction channels in
            between, but at least 1.
        kernel_size: size of all four convolutions; must be odd.
        norm: norm after each convolution: GN, BN, SyncBN or none. GN does not depend on the batch,
            so the block works at any location and for a single RoI.
        activation: activation after each norm, except for the last one of the attention branch:
            none, relu, leaky_relu, silu or sigmoid.
        attention_activation: activation at the end of the attention branch: none (as in the
            paper's figure), relu (X_att >= 0), sigmoid, ...
        upsample: bilinear or nearest.
        residual: False for the non-residual form, without gamma.

    Raises:
        UserError: a keyword is out of its range.

    Example:
        >>> import torch
        >>> SqueezeAttention(16)(torch.randn(1, 16, 5, 7)).shape
        torch.Size([1, 16, 5, 7])
        >>> SqueezeAttention(16, out_channels=4, residual=False)(torch.randn(1, 16, 5, 7)).shape
        torch.Size([1, 4, 5, 7])
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
        at_least(1, channels=channels)
        between(1, MOST_CHANNELS, out_channels=out_channels, reduction=reduction)
        between(1, MOST_CHANNELS, pool=pool, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise UserError(f"kernel_size must be odd, not {kernel_size}")
        if residual and out_channels != channels:
            raise UserError(
                f"out_channels {out_channels} differs from channels {channels}, which needs "
                "residual=False"
            )
        make_norm = one_of(BLOCK_NORMS, norm, "norm")
        make_activation = one_of(ACTIVATIONS, activation, "activation")
        inner = max(1, out_channels // reduction)

        def branch() -> nn.Sequential:
            def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
                bias, padding = norm == "none", kernel_size // 2
                return nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=bias)

            return nn.Sequential(
                *(conv(channels, inner), make_norm(inner), make_activation()),
                *(conv(inner, out_channels), make_norm(out_channels)),
            )

        self.channels = channels
        self.pool = pool
        self.attention = branch()
        self.attention.append(one_of(ACTIVATIONS, attention_activation, "attention_activation")())
        self.main = branch()
        self.main.append(make_activation())
        self.upsample = upsample
        self.align_corners = one_of(ALIGN_CORNERS, upsample, "upsample")

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return X_att and X_res, each (B, out_channels, H, W), of x (B, C, H, W)."""
        pooled = _average(x, self.pool)
        attention = self.attention(pooled)
        attention = F.interpolate(
            attention, x.shape[2:], mode=self.upsample, align_corners=self.align_corners
        )
        return attention, self.main(x)

    def context(self, x: Tensor) -> Tensor:
        """Return X_att * X_res + X_att, (B, C, H, W) -> (B, out_channels, H, W)."""
        attention, main = self.branches(x)
        return attention * main + attention


def _average(x: Tensor, pool: int) -> Tensor:
    """Return the means of x (B, C, H, W) over windows of ``pool`` by ``pool`` positions.

    If the size is not divisible by ``pool``, the means at the end are over fewer positions.
    """
    if not getattr(torch.compiler, "_is_exporting_flag", False):
        return F.avg_pool2d(x, pool, ceil_mode=True, count_include_pad=False)
    # With ceil_mode, torch.export takes the remainder of the size to be a constant.
    height, width = x.shape[2:]
    ends = (0, -width % pool, 0, -height % pool)
    counted = F.pad(x.new_ones(1, 1, height, width), ends)
    return F.avg_pool2d(F.pad(x, ends), pool) / F.avg_pool2d(counted, pool)
