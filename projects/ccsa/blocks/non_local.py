"""Non-local block, embedded Gaussian.

Non-local Neural Networks, Wang et al., CVPR 2018, arXiv 1711.07971, equations 1, 4 and 6.

Deviation: the official block starts as an identity because the scale of its final batch norm is 0.
Here gamma makes it one, as in every block of this package, so no batch statistics are needed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ccsa.blocks.base import CONV, MOST_CHANNELS, GatedBlock
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY
from ccsa.errors import UserError, at_least, between, one_of, true_or_false
from ccsa.ops.criss_cross.precision import needs_float64


@CONTEXT_BLOCK_REGISTRY.register()
class NonLocal(GatedBlock):
    """Attention over all positions: x + gamma * out(softmax(theta(x) . phi(x)) g(x)).

    CCNet compares itself with the form ``reduction=8, value_reduction=1, out_conv=False``.

    Args:
        channels: C of the feature map.
        reduction: theta and phi have C // reduction channels, but at least 1.
        value_reduction: the same for g; by default equal to ``reduction``.
        out_conv: whether a 1x1 convolution projects the result back to C channels. Without it,
            ``value_reduction`` must be 1.
        residual: False for the non-residual form, without gamma.
        dims: 2 for feature maps (B, C, H, W), 3 for (B, C, T, H, W).

    Raises:
        UserError: a keyword is out of its range.

    Example:
        >>> import torch
        >>> NonLocal(16)(torch.randn(1, 16, 5, 7)).shape
        torch.Size([1, 16, 5, 7])
        >>> NonLocal(16, dims=3)(torch.randn(1, 16, 2, 5, 7)).shape
        torch.Size([1, 16, 2, 5, 7])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        value_reduction: int | None = None,
        out_conv: bool = True,
        residual: bool = True,
        dims: int = 2,
    ):
        super().__init__(residual)
        value_reduction = reduction if value_reduction is None else value_reduction
        at_least(1, channels=channels)
        between(1, MOST_CHANNELS, reduction=reduction, value_reduction=value_reduction)
        true_or_false(out_conv=out_conv)
        if not out_conv and value_reduction != 1:
            raise UserError(
                f"value_reduction must be 1 if out_conv is false, not {value_reduction}"
            )
        conv = one_of(CONV, dims, "dims")
        inner, value = max(1, channels // reduction), max(1, channels // value_reduction)
        self.channels = channels
        self.theta = conv(channels, inner, 1)
        self.phi = conv(channels, inner, 1)
        self.g = conv(channels, value, 1)
        self.out = conv(value, channels, 1) if out_conv else None

    def context(self, x: Tensor) -> Tensor:
        """Return the attention over all positions, (B, C, *S) -> (B, C, *S)."""
        query, key = self.theta(x), self.phi(x)
        if needs_float64(query, key):
            x = x.double()
            query, key = _apply(self.theta, x), _apply(self.phi, x)
        q, k, v = (
            y.flatten(2).transpose(1, 2) for y in (query, key, _apply(self.g, x))
        )  # (B, N, C')
        # Equation 4 has no 1/sqrt(d).
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], scale=1.0)[:, 0]
        y = y.transpose(1, 2).unflatten(2, x.shape[2:])
        return y if self.out is None else _apply(self.out, y)


def _apply(conv: nn.Module, x: Tensor) -> Tensor:
    """Return the convolution of x, computed in float64 if x has that dtype."""
    if x.dtype != torch.float64:
        return conv(x)
    wide = {name: weight.double() for name, weight in conv.named_parameters()}
    return functional_call(conv, wide, x)
