"""What the blocks share: the gate that makes a new block an identity."""

import torch
from torch import Tensor, nn

from ccsa.errors import true_or_false

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


class GatedBlock(nn.Module):
    """x + gamma * context(x), gamma a scalar that starts at 0, so that a pretrained network keeps
    its features until training opens the gate. With ``residual=False`` it is context(x) alone.

    The result has the type and, with the gate, the shape of x, under autocast too: gamma is float32
    there and would otherwise promote half precision features.
    """

    def __init__(self, residual: bool = True):
        super().__init__()
        true_or_false(residual=residual)
        self.gamma = nn.Parameter(torch.zeros(1)) if residual else None

    def context(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *spatial), given by each block."""
        raise TypeError(f"{type(self).__name__} gives no context()")

    def forward(self, x: Tensor) -> Tensor:
        y = self.context(x).to(x.dtype)
        if self.gamma is None:
            return y
        return torch.addcmul(x, y, self.gamma.to(x.dtype))
