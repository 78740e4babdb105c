"""Squeeze-and-excitation.

Squeeze-and-Excitation Networks, Hu et al., CVPR 2018, arXiv 1709.01507, equations 2 to 4: each
channel is scaled by a weight that is computed from the means of all channels.
"""

from torch import Tensor, nn

from ccsa.blocks.base import MOST_CHANNELS, GatedBlock
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY
from ccsa.errors import at_least, between


@CONTEXT_BLOCK_REGISTRY.register()
class SqueezeExcitation(GatedBlock):
    """Channel attention: x + gamma * (x * sigmoid(W2 relu(W1 mean(x)))).

    The mean over a feature map of size 0 is 0, so that the result is empty and gradients are 0.

    Args:
        channels: C of the feature map (B, C, *spatial).
        reduction: the bottleneck has C // reduction channels, but at least 1.
        residual: False for the non-residual form, without gamma.

    Raises:
        UserError: a keyword is out of its range.

    Example:
        >>> import torch
        >>> SqueezeExcitation(16)(torch.randn(1, 16, 5, 7)).shape
        torch.Size([1, 16, 5, 7])
    """

    needs_positions = False

    def __init__(self, channels: int, reduction: int = 16, residual: bool = True):
        super().__init__(residual)
        at_least(1, channels=channels)
        between(1, MOST_CHANNELS, reduction=reduction)
        inner = max(1, channels // reduction)
        self.channels = channels
        self.fc1 = nn.Linear(channels, inner)
        self.fc2 = nn.Linear(inner, channels)

    def context(self, x: Tensor) -> Tensor:
        """Return x with scaled channels, (B, C, *spatial) -> (B, C, *spatial)."""
        means = x.flatten(2).mean(-1) if x.numel() else x.new_zeros(x.shape[:2])  # (B, C)
        weights = self.fc2(self.fc1(means).relu()).sigmoid()  # (B, C)
        return x * weights.to(x.dtype).reshape(*weights.shape, *[1] * (x.dim() - 2))
