"""Conversion between feature maps (B, C, *S) and the layout (B, *S, C) of the computations."""

import torch
from torch import Tensor

from ccsa.ops.criss_cross.pages import use_large_pages

# Number of elements per sample above which a CPU transposes 2 to 3 times as fast in pieces that
# fit into its cache as in one operation.
TRANSPOSE_IN_PIECES = 2**20


def channels_last(x: Tensor) -> Tensor:
    """Return (B, C, *S) as (B, *S, C) with dense channels and evenly spaced positions.

    This is a view if ``x`` is a channels-last tensor or a slice of its channels, otherwise a copy.
    """
    x = x.movedim(1, -1)
    if x.stride(-1) == 1 and _positions_merge(x, 0):
        return x
    return use_large_pages(x.new_empty(x.shape)).copy_(x)


def view_or_channels_last(x: Tensor) -> Tensor:
    """Return (B, C, *S) as (B, *S, C), as a view if possible.

    A batch of one with evenly spaced positions, for instance a contiguous tensor, gives a view
    whose channels are not dense. Any other tensor is converted by :func:`channels_last`.
    """
    view = x.movedim(1, -1)
    return view if len(x) == 1 and _positions_merge(view, 1) else channels_last(x)


def _positions_merge(x: Tensor, first: int) -> bool:
    """Return whether the axes of (B, *S, C) from ``first`` on, without C, merge without a copy."""
    size, stride = x.shape, x.stride()
    return all(stride[i] == stride[i + 1] * size[i + 1] for i in range(first, x.dim() - 2))


def to_layout_of(x: Tensor, template: Tensor) -> Tensor:
    """Return (B, *S, C) as (B, C, *S) with the dtype and the strides of ``template``.

    This is a view if ``x`` has that dtype and these strides already.
    """
    x = x.movedim(-1, 1).to(template.dtype)
    if x.stride() == torch.empty_like(template, device="meta").stride():
        return x
    out = use_large_pages(torch.empty_like(template))
    small = x[:1].numel() < TRANSPOSE_IN_PIECES
    if x.device.type != "cpu" or not out.is_contiguous() or small:
        return out.copy_(x)
    for to, sample in zip(out.flatten(2), x.flatten(2), strict=True):
        for piece, source in zip(to.split(256, 1), sample.split(256, 1), strict=True):
            piece.copy_(source)
    return out
