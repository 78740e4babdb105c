"""Maps (B, C, *S) as the computations see them, (B, *S, C), and back."""

import torch
from torch import Tensor

from ccsa.ops.criss_cross.pages import large_pages

# Numbers of a sample from which on CPUs transpose it 2 to 3 times as fast in parts that stay in
# cache as at once.
LARGE = 2**20


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *S) as (B, *S, C) whose positions lie one behind the other, at any distance: a view of
    a channels-last map, or of some of its channels."""
    x = x.movedim(1, -1)
    if x.stride(-1) == 1 and _regular(x, 0):
        return x
    return large_pages(x.new_empty(x.shape)).copy_(x)


def as_it_lies(x: Tensor) -> Tensor:
    """(1, C, *S) whose positions have one distance, as of a contiguous map, as a view (1, *S, C);
    others as :func:`channels_last`."""
    single = x.movedim(1, -1)
    return single if len(x) == 1 and _regular(single, 1) else channels_last(x)


def _regular(x: Tensor, first: int) -> bool:
    """Whether the axes of (B, *S, C) from ``first`` on, C aside, merge into one without a copy."""
    size, stride = x.shape, x.stride()
    return all(stride[i] == stride[i + 1] * size[i + 1] for i in range(first, x.dim() - 2))


def like(x: Tensor, template: Tensor) -> Tensor:
    """(B, *S, C) as (B, C, *S) in the type and memory layout of ``template``: a view where it has
    them."""
    x = x.movedim(-1, 1).to(template.dtype)
    if x.stride() == torch.empty_like(template, device="meta").stride():
        return x
    out = large_pages(torch.empty_like(template))
    if x.device.type != "cpu" or not out.is_contiguous() or x[:1].numel() < LARGE:
        return out.copy_(x)
    for to, sample in zip(out.flatten(2), x.flatten(2), strict=True):
        for some, positions in zip(to.split(256, 1), sample.split(256, 1), strict=True):
            some.copy_(positions)
    return out
