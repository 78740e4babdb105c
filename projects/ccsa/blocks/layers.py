"""The norms of blocks, and the activations of blocks and semantic heads.

The keys are the values that users write in a configuration; see :func:`ccsa.errors.one_of`.
"""

import math
from collections.abc import Callable

from torch import nn


def group_norm(channels: int) -> nn.Module:
    """Return a group norm with up to 32 groups of at least two channels each.

    A group of one channel would normalize a 1x1 feature map over a single value, which is always 0.
    With a single channel in total, the result is therefore an identity.

    Example:
        >>> group_norm(64)
        GroupNorm(32, 64, eps=1e-05, affine=True, bias=True)
        >>> group_norm(6)
        GroupNorm(2, 6, eps=1e-05, affine=True, bias=True)
    """
    if channels == 1:
        return nn.Identity()
    groups = math.gcd(32, channels)
    return nn.GroupNorm(groups // 2 if groups == channels else groups, channels)


BLOCK_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "GN": group_norm,
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "none": lambda channels: nn.Identity(),
}
"""Functions from a number of channels to a norm for feature maps (B, C, H, W). Blocks need only
torch, so these are torch's norms; those of backbones and semantic heads are Detectron2's, see
``ccsa.modeling.layers.DETECTRON2_NORMS``."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}
"""Functions without arguments that return an activation."""
