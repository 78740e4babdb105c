"""Maps (B, C, *S) as the computations see them, (B, *S, C), and back."""

import torch
from torch import Tensor

# Numbers of a sample from which on CPUs transpose it 2 to 3 times as fast in parts that stay in
# cache as at once.
LARGE = 2**20


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *S) as (B, *S, C) whose positions lie one behind the other, at any distance: a view of
    a channels-last map, or of some of its channels."""
    x = x.movedim(1, -1)
    size, stride = x.shape, x.stride()
    regular = all(stride[i] == stride[i + 1] * size[i + 1] for i in range(x.dim() - 2))
    return x if regular and stride[-1] == 1 else x.contiguous()


def like(x: Tensor, template: Tensor) -> Tensor:
    """(B, *S, C) as (B, C, *S) in the type and memory layout of ``template``: a view where it has
    them."""
    x = x.movedim(-1, 1).to(template.dtype)
    if x.stride() == torch.empty_like(template, device="meta").stride():
        return x
    out = torch.empty_like(template)
    if x.device.type != "cpu" or not out.is_contiguous() or x[:1].numel() < LARGE:
        return out.copy_(x)
    for to, sample in zip(out.flatten(2), x.flatten(2), strict=True):
        for some, positions in zip(to.split(256, 1), sample.split(256, 1), strict=True):
            some.copy_(positions)
    return out
