"""Recurrent criss-cross attention.

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., ICCV 2019 and TPAMI 2020,
arXiv 1811.11721, sections 3.2 and 3.3. Official code (speedinghzl/CCNet) consulted as reference;
its keys load as they are.

Each position gathers from its row and its column; a second loop with the same weights connects any
two positions. As in the official code, and unlike the paper's equation, gamma gates the result.

The weights of a position sum to 1, so that projecting what it gathers is the same as gathering what
was projected: sum_i a_i (W x_i + b) = W (sum_i a_i x_i) + b. The map itself is gathered, and no
projected values are kept for backward; gamma scales W and b, so that the ungated result is not
either.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ccsa.blocks.base import CONV, GatedBlock
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY
from ccsa.errors import at_least, one_of, true_or_false
from ccsa.ops import criss_cross_attention
from ccsa.ops.criss_cross.dispatch import requested_backend

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@CONTEXT_BLOCK_REGISTRY.register()
class CrissCross(GatedBlock):
    """x <- x + gamma * attention(q(x), k(x), v(x)), ``recurrence`` times with shared weights.

    Fastest on channels-last maps; others are converted once. The 1x1 convolutions hold weights
    alone: they are not called, so hooks on them, as of ``spectral_norm``, do not run.

    Args:
        channels: C of the map.
        recurrence: loops R; 0 is the identity. The paper uses 2.
        reduction: query and key have C // reduction channels, at least 1.
        dims: 2 for (B, C, H, W), 3 for (B, C, T, H, W) maps (the paper's section 3.5).
        checkpoint: keep only each loop's input in training and compute the loop again in backward:
            less memory, more time.

    Raises:
        ValueError: a keyword out of its range.
    """

    def __init__(
        self,
        channels: int,
        recurrence: int = 2,
        reduction: int = 8,
        dims: int = 2,
        checkpoint: bool = False,
    ):
        super().__init__()
        at_least(1, channels=channels, reduction=reduction)
        at_least(0, recurrence=recurrence)
        true_or_false(checkpoint=checkpoint)
        conv = one_of(CONV, dims, "dims")
        inner = max(1, channels // reduction)
        self.recurrence = recurrence
        self.checkpoint = checkpoint
        self.memory_format = CHANNELS_LAST[dims]
        self.gamma: nn.Parameter
        self.query_conv = conv(channels, inner, 1)
        self.key_conv = conv(channels, inner, 1)
        self.value_conv = conv(channels, channels, 1)

    def loop(self, x: Tensor, backend: str | None = None) -> Tensor:
        """One loop with its gate, (B, C, *S) -> (B, C, *S)."""
        both = _as_map(_project(x, *_stacked(self.query_conv, self.key_conv)), x)
        query, key = both.chunk(2, 1)
        gathered = criss_cross_attention(query, key, x, backend=backend)
        weight, bias = _stacked(self.value_conv)
        y = _project(gathered, self.gamma * weight, self.gamma * bias)
        # In place before it becomes a view of a map: autograd copies gradients of changed views.
        return _as_map(y.to(x.dtype).add_(_positions(x)), x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S), of x's type and memory format."""
        y = x.contiguous(memory_format=self.memory_format)
        for _ in range(self.recurrence):
            if self.checkpoint and self.training:
                # As now, also where backward computes the loop again after a use_backend has ended.
                y = checkpoint(self.loop, y, requested_backend(None)[1], use_reentrant=False)
            else:
                y = self.loop(y)
        return y.contiguous() if x.is_contiguous() else y

    def extra_repr(self) -> str:
        return f"recurrence={self.recurrence}, checkpoint={self.checkpoint}"


def _stacked(*convs: nn.Conv2d | nn.Conv3d) -> tuple[Tensor, Tensor]:
    """Weights (C', C) and biases (C',) of 1x1 convolutions of one map, as of one convolution."""
    weights, biases = zip(*((c.weight.flatten(1), c.bias) for c in convs), strict=True)
    return torch.cat(weights), torch.cat(biases)


def _positions(x: Tensor) -> Tensor:
    """(B, C, *S) -> (B * prod(S), C), a view of a channels-last map."""
    return x.movedim(1, -1).flatten(0, -2)


def _as_map(x: Tensor, like: Tensor) -> Tensor:
    """(B * prod(S), C) -> (B, C, *S), a channels-last map."""
    return x.unflatten(0, like.shape[:1] + like.shape[2:]).movedim(-1, 1)


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, C, *S) -> (B * prod(S), C'), a 1x1 convolution as one matrix product."""
    if _convolves(x):
        return _positions(F.conv2d(x, weight[..., None, None], bias))
    return torch.addmm(bias, _positions(x), weight.T)


def _convolves(x: Tensor) -> bool:
    """Whether the CPU's own convolution is taken: over two axes it is faster forward than a matrix
    product, and slower backward. A trace is checked with and without gradients: one graph."""
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and x.numel() > 0
        and not (torch.is_grad_enabled() or torch.jit.is_tracing())
    )
