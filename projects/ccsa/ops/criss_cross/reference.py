"""The ``reference`` backend: the executable definition of criss-cross attention.

It computes the scores between all pairs of positions and masks those outside the cross. It is slow
and needs O(N^2) memory for N positions, but it is obviously right: every other backend is tested
against it, gradients included.
"""

import itertools

import torch
from torch import Tensor

from ccsa.ops.criss_cross.precision import score_dtype


def cross_mask(size: tuple[int, ...]) -> Tensor:
    """Return a bool mask (N, N), N = prod(size): whether position j is on the cross of position i.

    Two positions are on each other's cross if they differ in at most one coordinate.

    Example:
        >>> cross_mask((2, 2)).int().tolist()
        [[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1]]
    """
    positions = list(itertools.product(*(range(n) for n in size)))
    return torch.tensor(
        [
            [sum(a != b for a, b in zip(p, q, strict=True)) <= 1 for q in positions]
            for p in positions
        ]
    )


def reference_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the output (B, Cv, *S) of query and key (B, Ck, *S) and value (B, Cv, *S).

    Half-precision operands are computed in float32; the output has the dtype of ``value``.
    """
    dtype = score_dtype(query.dtype)
    q, k, v = (x.flatten(2).to(dtype) for x in (query, key, value))  # (B, C, N)
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.einsum("bcn,bcm->bnm", q, k)
        mask = cross_mask(tuple(query.shape[2:])).to(query.device)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        out = torch.einsum("bnm,bcm->bcn", weights, v)
    return out.reshape(value.shape).to(value.dtype)
