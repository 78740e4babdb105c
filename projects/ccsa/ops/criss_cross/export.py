"""The ``export`` backend: criss-cross attention in a few standard tensor operations.

torch.export and the ONNX exporter record this instead of a custom operator, so that an exported
program runs where ccsa is not installed. Batch and sizes stay dynamic, and there is no diag and no
einsum. Forward-mode derivatives use it as well, because custom operators do not support them.
The weights of every cross are in memory, and autograd differentiates the operations.
"""

import torch
from torch import Tensor

from ccsa.ops.criss_cross.precision import score_dtype, without_autocast


def export_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the output (B, Cv, *S) of query and key (B, Ck, *S) and value (B, Cv, *S).

    Half-precision operands are computed in float32; the output has the dtype of ``value``.
    """
    with without_autocast(query):
        weights = cross_weights(query, key)
        last = value.dim() - 1  # ONNX runtimes reject the negative axes of movedim(1, -1)
        v = value.movedim(1, last).to(weights.dtype)  # (B, *S, Cv)
        out = torch.zeros_like(v)
        start = 0
        for axis, length in enumerate(v.shape[1:-1], 1):
            p = weights.narrow(last, start, length).movedim(axis, last - 1)  # (B, *others, L, L)
            out = out + torch.matmul(p, v.movedim(axis, last - 1)).movedim(last - 1, axis)
            start += length
        return out.movedim(last, 1).to(value.dtype)


def cross_weights(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention weights (B, *S, sum(S)) of query and key (B, Ck, *S).

    The last dimension lists the positions along the first axis, then along the second, and so on.
    """
    dtype = score_dtype(query.dtype)
    last = query.dim() - 1
    q, k = (x.movedim(1, last).to(dtype) for x in (query, key))  # (B, *S, Ck)
    axes = range(1, q.dim() - 1)
    scores = []
    for axis in axes:
        s = torch.matmul(q.movedim(axis, last - 1), k.movedim(axis, last - 1).transpose(-1, -2))
        if axis != axes[-1]:  # each position counts itself once, on the last axis
            index = torch.arange(q.shape[axis], device=q.device)
            s = s.masked_fill(index[:, None] == index, -torch.inf)
        scores.append(s.movedim(last - 1, axis))  # (B, *S, L)
    return torch.cat(scores, -1).softmax(-1)
