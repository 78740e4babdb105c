"""The definition, dense over all pairs of positions: slow, and obviously right."""

import itertools

import torch
from torch import Tensor


def cross_mask(size: tuple[int, ...]) -> Tensor:
    """(N, N) bool, N = prod(size): whether two positions differ in at most one coordinate."""
    positions = list(itertools.product(*(range(n) for n in size)))
    return torch.tensor(
        [
            [sum(a != b for a, b in zip(p, q, strict=True)) <= 1 for q in positions]
            for p in positions
        ]
    )


def reference_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, Ck, *S), (B, Ck, *S), (B, Cv, *S) -> (B, Cv, *S), in float32 for half precision."""
    accurate = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (x.flatten(2).to(accurate) for x in (query, key, value))  # (B, C, N)
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.einsum("bcn,bcm->bnm", q, k)
        mask = cross_mask(tuple(query.shape[2:])).to(query.device)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        out = torch.einsum("bnm,bcm->bcn", weights, v)
    return out.reshape(value.shape).to(value.dtype)
