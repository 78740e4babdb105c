"""Criss-cross attention in plain tensor operations, for programs that leave this library and for
forward-mode derivatives, which its operators do not have.

torch.export and the ONNX exporter meet this instead of a custom operator, so what they write runs
anywhere. Batch and sizes stay dynamic; there is no diag and no einsum. The scores of the whole
cross are in memory, differentiated by autograd.
"""

import contextlib

import torch
from torch import Tensor


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, Ck, *S), (B, Ck, *S), (B, Cv, *S) -> (B, Cv, *S), in float32 for half precision."""
    with without_autocast(query):
        weights = plain_weights(query, key)
        v = value.movedim(1, -1).to(weights.dtype)  # (B, *S, Cv)
        out = torch.zeros_like(v)
        start = 0
        for axis, length in enumerate(v.shape[1:-1], 1):
            along = weights.narrow(-1, start, length).movedim(axis, -2)
            out = out + torch.matmul(along, v.movedim(axis, -2)).movedim(-2, axis)
            start += length
        return out.movedim(-1, 1).to(value.dtype)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """In which types stay as they are; nothing is entered where no autocast is on."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def plain_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, Ck, *S) twice -> (B, *S, sum(S)), the weights along each axis in turn."""
    accurate = torch.promote_types(query.dtype, torch.float32)
    q, k = (x.movedim(1, -1).to(accurate) for x in (query, key))  # (B, *S, Ck)
    axes = range(1, q.dim() - 1)
    scores = []
    for axis in axes:
        along = torch.matmul(q.movedim(axis, -2), k.movedim(axis, -2).transpose(-1, -2))
        if axis != axes[-1]:  # the own position counts once
            place = torch.arange(q.shape[axis], device=q.device)
            along = along.masked_fill(place[:, None] == place, -torch.inf)
        scores.append(along.movedim(-2, axis))  # (B, *S, L)
    return torch.cat(scores, -1).softmax(-1)
