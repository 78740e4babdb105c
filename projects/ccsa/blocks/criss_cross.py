"""Recurrent criss-cross attention (RCCA).

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., ICCV 2019 and TPAMI 2020,
arXiv 1811.11721, sections 3.2 and 3.3. The official code (speedinghzl/CCNet) was consulted as
reference; its checkpoints load with their own keys.

Each position attends to its row and its column. A second recurrence with the same weights connects
any two positions. As in the official code, and unlike the paper's equation, gamma scales the result
of the attention.

The attention weights of a position sum to 1, so values can be projected after the attention instead
of before: sum_i a_i (W x_i + b) = W (sum_i a_i x_i) + b. The block attends to the features
themselves, and backward keeps no projected values. It multiplies W and b by gamma, so that backward
keeps no ungated result either.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ccsa.blocks.base import CONV, MOST_CHANNELS, GatedBlock
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY
from ccsa.errors import at_least, between, one_of, true_or_false
from ccsa.ops.criss_cross import attention, criss_cross_weights
from ccsa.ops.criss_cross.dispatch import requested_backend
from ccsa.ops.criss_cross.precision import needs_float64

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@CONTEXT_BLOCK_REGISTRY.register()
class CrissCross(GatedBlock):
    """Criss-cross attention: x <- x + gamma * attention(q(x), k(x), v(x)), ``recurrence`` times.

    All recurrences share their weights. The block is fastest on channels-last feature maps; others
    are converted once. The 1x1 convolutions only hold the weights: they are not called, so hooks on
    them, as those of ``spectral_norm``, do not run.

    Args:
        channels: C of the feature map.
        recurrence: number of recurrences R; the paper uses 2, and 0 is the identity.
        reduction: query and key have C // reduction channels, but at least 1.
        dims: 2 for feature maps (B, C, H, W), 3 for (B, C, T, H, W) (section 3.5 of the paper).
        checkpoint: use gradient checkpointing: in training, keep only the input of each recurrence
            and compute the recurrence again in backward. This takes less memory and more time.

    Raises:
        UserError: a keyword is out of its range.

    Example:
        >>> block = CrissCross(16, recurrence=2)
        >>> x = torch.randn(1, 16, 5, 7)
        >>> torch.equal(block(x), x)  # a new block is an identity, because gamma is 0
        True
        >>> sorted(block.state_dict())[:3]
        ['gamma', 'key_conv.bias', 'key_conv.weight']
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
        at_least(1, channels=channels)
        between(1, MOST_CHANNELS, reduction=reduction)
        between(0, 100, recurrence=recurrence)
        true_or_false(checkpoint=checkpoint)
        conv = one_of(CONV, dims, "dims")
        inner = max(1, channels // reduction)
        self.channels = channels
        self.recurrence = recurrence
        self.checkpoint = checkpoint
        self.memory_format = CHANNELS_LAST[dims]
        self.gamma: nn.Parameter
        self.query_conv = conv(channels, inner, 1)
        self.key_conv = conv(channels, inner, 1)
        self.value_conv = conv(channels, channels, 1)

    def context(self, x: Tensor) -> Tensor:
        """Return the attention of one recurrence, without gamma.

        Args:
            x: (B, C, *S).

        Returns:
            (B, C, *S), channels-last; float64 if scores may be large, see
            :func:`ccsa.ops.criss_cross.precision.needs_float64`.
        """
        x, query, key = self._query_and_key(x)
        projection = _concatenated(self.value_conv, dtype=_wide(x))
        return _to_feature_map(self._attend(x, query, key, *projection), x)

    def attention_weights(self, x: Tensor) -> Tensor:
        """Return the attention weights of one recurrence, for visualization; no gradient.

        Args:
            x: (B, C, *S).

        Returns:
            (B, *S, sum(S)), float32 or float64; see :func:`ccsa.ops.criss_cross_weights`.
        """
        with torch.no_grad():
            _, query, key = self._query_and_key(x)
            return criss_cross_weights(query, key)

    def gate(self, x: Tensor) -> Tensor:
        """Return the result of one recurrence, x + gamma * context(x).

        Args:
            x: (B, C, *S).

        Returns:
            (B, C, *S), channels-last, with the dtype of x; float64 if scores may be large, so that
            the next recurrence starts from a result that is not rounded.
        """
        if self.checkpoint and self.training:
            # Backward must use the same backend, even if a use_backend has ended by then.
            backend = requested_backend(None)[1]
            return checkpoint(self._gate, x, backend, use_reentrant=False)
        return self._gate(x)

    def forward(self, x: Tensor) -> Tensor:
        """Apply all recurrences.

        Args:
            x: (B, C, *S).

        Returns:
            (B, C, *S) with the dtype and the memory format of x.
        """
        if torch.onnx.is_in_onnx_export():  # ONNX has no memory formats
            return super().forward(x).to(x.dtype)
        y = super().forward(x.contiguous(memory_format=self.memory_format)).to(x.dtype)
        return y.contiguous() if x.is_contiguous() else y

    def extra_repr(self) -> str:
        return f"recurrence={self.recurrence}, checkpoint={self.checkpoint}"

    def _gate(self, x: Tensor, backend: str | None = None) -> Tensor:
        x, query, key = self._query_and_key(x)
        weight, bias = _concatenated(self.value_conv, dtype=_wide(x))
        y = self._attend(x, query, key, self.gamma * weight, self.gamma * bias, backend)
        # The sum is in place before y is viewed as a feature map, because autograd copies the
        # gradient of a view that is changed in place.
        return _to_feature_map(y.to(x.dtype).add_(_to_matrix(x)), x)

    def _query_and_key(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, query and key; all of them in float64 if scores may be large."""
        projected = _project(x, *_concatenated(self.query_conv, self.key_conv, dtype=_wide(x)))
        query, key = _to_feature_map(projected, x).chunk(2, 1)
        return self._query_and_key(x.double()) if needs_float64(query, key) else (x, query, key)

    def _attend(
        self,
        x: Tensor,
        query: Tensor,
        key: Tensor,
        weight: Tensor,
        bias: Tensor,
        backend: str | None = None,
    ) -> Tensor:
        """Return the attention over x, projected by ``weight`` and ``bias``: (B * prod(S), C)."""
        return _project(attention(query, key, x, backend=backend), weight, bias)


def _wide(x: Tensor) -> torch.dtype | None:
    """Return the dtype of the weights if it must be that of x: float64, which autocast leaves."""
    return torch.float64 if x.dtype == torch.float64 else None


def _concatenated(
    *convs: nn.Conv2d | nn.Conv3d, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weights (C', C) and biases (C',) of 1x1 convolutions, as of one convolution."""
    weights, biases = zip(*((c.weight.flatten(1), c.bias) for c in convs), strict=True)
    return torch.cat(weights).to(dtype=dtype), torch.cat(biases).to(dtype=dtype)


def _to_matrix(x: Tensor) -> Tensor:
    """Return (B, C, *S) as (B * prod(S), C), a view of a channels-last feature map."""
    # ONNX runtimes reject the negative axes that the exporter would write for movedim(1, -1).
    return x.movedim(1, x.dim() - 1).flatten(0, -2)


def _to_feature_map(x: Tensor, template: Tensor) -> Tensor:
    """Return (B * prod(S), C) as a channels-last view (B, C, *S), B and S as of ``template``."""
    last = template.dim() - 1
    sizes = (template.shape[0], *template.shape[2:], x.shape[1])
    return x.reshape(sizes).movedim(last, 1)


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a 1x1 convolution of (B, C, *S) as a matrix (B * prod(S), C')."""
    if _uses_convolution(x):
        return _to_matrix(F.conv2d(x, weight[..., None, None], bias))
    return torch.addmm(bias, _to_matrix(x), weight.T)


def _uses_convolution(x: Tensor) -> bool:
    """Return whether to project by the CPU's convolution instead of a matrix multiplication.

    Over two axes it is faster in forward, and slower in backward. A trace is checked with and
    without gradients, and must give one graph.
    """
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and x.numel() > 0
        and not (torch.is_grad_enabled() or torch.jit.is_tracing())
    )
