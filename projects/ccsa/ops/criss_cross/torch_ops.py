"""Criss-cross attention line by line, with a backward that recomputes.

Maps are seen as (B, *S, C). The lines along one axis are then batches of (L, C) matrices, which
BLAS takes as strided views: nothing is permuted in memory. A map that is not channels-last is
converted once, where the official code makes two permuted copies of each of query, key and value.

Saved for backward are query, key, value as they came and the log-sum-exp; output is not needed:
sum_c dO_c O_c, which flash attention takes from it, is also the sum of P * dP over the cross.

B: batch, L: length of a line, "outer" and "inner": products of the axes before and behind that
line's.

The two computations are custom operators, so that torch.compile takes each as one node.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ccsa.ops.criss_cross.layout import channels_last, like


def torch_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, Ck, *S), (B, Ck, *S), (B, Cv, *S) -> (B, Cv, *S)."""
    return _forward(query, key, value)[0]


@torch.no_grad()
def cross_weights(query: Tensor, key: Tensor) -> Tensor:
    """(B, Ck, *S) twice -> (B, *S, sum(S)), the weights along each axis in turn."""
    q, k = _accurate(query), _accurate(key)
    scores = [_scores(q, k, axis) for axis in range(q.dim() - 2)]
    _softmax_(scores, _highest(scores, q.shape[:-1]))
    return torch.cat([_per_position(w, i, q.shape[:-1]) for i, w in enumerate(scores)], -1)


@torch.library.custom_op("ccsa::criss_cross_forward", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, Cv, *S) and log-sum-exp (B, *S) of the scores over each position's cross."""
    with torch.autocast(query.device.type, enabled=False):
        # Converted operands live in this call alone, so they are free before the result is copied.
        out, lse = _attend(_accurate(query), _accurate(key), channels_last(value))
    return like(out, value), lse


@_forward.register_fake
def _(query, key, value):
    dtype = torch.promote_types(query.dtype, torch.float32)
    return torch.empty_like(value), query.new_empty(query.shape[:1] + query.shape[2:], dtype=dtype)


@torch.library.custom_op("ccsa::criss_cross_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    with torch.autocast(query.device.type, enabled=False):
        dq, dk, dv = _gradients(
            channels_last(grad), _accurate(query), _accurate(key), channels_last(value), lse
        )
    return like(dq, query), like(dk, key), like(dv, value)


@_backward.register_fake
def _(grad, query, key, value, lse):
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad, _):
    return _backward(grad, *ctx.saved_tensors)


_forward.register_autograd(_differentiate, setup_context=_keep)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; all (B, *S, C), the latter (B, *S)."""
    out = torch.empty_like(v)
    scores = [_scores(q, k, axis) for axis in range(q.dim() - 2)]
    shift = _highest(scores, q.shape[:-1])
    lse = shift + _softmax_(scores, shift).log()
    for axis in reversed(range(len(scores))):  # the last axis writes, the others add
        weights = scores.pop().to(v.dtype)
        beta = 0 if axis == q.dim() - 3 else 1
        for w, lines, into in zip(weights, _lines(v, axis), _lines(out, axis), strict=True):
            into.baddbmm_(w, lines, beta=beta)
    return out, lse


def _gradients(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of q, k and v, all (B, *S, C)."""
    axes = range(q.dim() - 2)
    weights = [_scores(q, k, axis) for axis in axes]
    _softmax_(weights, lse)
    d_weights = [_products(g, v, axis).to(lse.dtype) for axis in axes]
    # The softmax runs over the whole cross, so this sum does as well: one over a line's own
    # weights would treat the log-sum-exp of the other lines as a constant.
    mean = torch.zeros_like(lse)
    for w, d, axis in zip(weights, d_weights, axes, strict=True):
        mean += _per_position((w * d).sum(-1), axis, lse.shape)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    for axis in reversed(axes):  # the last axis writes, the others add
        w, d = weights.pop(), d_weights.pop()
        d = d.sub_(_per_line(mean, axis)[..., None]).mul_(w)
        w = w.to(v.dtype)
        beta = 0 if axis == axes[-1] else 1
        for p, s, ql, kl, gl, dql, dkl, dvl in zip(
            w, d, *(_lines(x, axis) for x in (q, k, g, dq, dk, dv)), strict=True
        ):
            dvl.baddbmm_(p.mT, gl, beta=beta)
            dql.baddbmm_(s, kl, beta=beta)
            dkl.baddbmm_(s.mT, ql, beta=beta)
    return dq, dk, dv


def _accurate(x: Tensor) -> Tensor:
    """Channels-last, half precision as float32: float16 scores overflow at 65504."""
    return channels_last(x).to(torch.promote_types(x.dtype, torch.float32))


def _split(size: torch.Size, axis: int) -> tuple[int, int, int]:
    """outer, L, inner of the lines along ``axis`` of a (B, *S) map."""
    return math.prod(size[: axis + 1]), size[axis + 1], math.prod(size[axis + 2 :])


def _lines(x: Tensor, axis: int) -> Iterator[Tensor]:
    """The lines of (B, *S, C) along ``axis`` as views (batch, L, C): one view where all lines have
    the same distance, else one for each step outside, of ``inner`` lines."""
    outer, length, inner = _split(x.shape[:-1], axis)
    if inner == 1:
        yield x.view(outer, length, x.shape[-1])
    else:
        yield from x.view(outer, length, inner, x.shape[-1]).transpose(1, 2)


def _per_line(x: Tensor, axis: int) -> Tensor:
    """(B, *S) in the order of :func:`_lines`, (views, batch, L)."""
    outer, length, inner = _split(x.shape, axis)
    if inner == 1:
        return x.view(1, outer, length)
    return x.view(outer, length, inner).transpose(1, 2)


def _per_position(x: Tensor, axis: int, size: torch.Size) -> Tensor:
    """(views, batch, L, ...) in the order of :func:`_lines` back to (B, *S, ...)."""
    if _split(size, axis)[2] > 1:
        x = x.transpose(1, 2)
    return x.reshape(*size, *x.shape[3:])


def _products(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """a_i . b_j for all pairs of positions of every line, (views, batch, L, L)."""
    outer, length, inner = _split(a.shape[:-1], axis)
    views, batch = (1, outer) if inner == 1 else (outer, inner)
    out = a.new_empty(views, batch, length, length)
    for into, al, bl in zip(out, _lines(a, axis), _lines(b, axis), strict=True):
        torch.bmm(al, bl.mT, out=into)
    return out


def _scores(q: Tensor, k: Tensor, axis: int) -> Tensor:
    """Scores along ``axis``. The own position lies on every line; it is kept in the last alone,
    which always has it, so that no softmax is empty, whatever the sizes."""
    scores = _products(q, k, axis)
    if axis != q.dim() - 3:
        scores.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    return scores


def _highest(scores: list[Tensor], size: torch.Size) -> Tensor:
    """(B, *S), the highest score of each position's cross."""
    per_axis = [_per_position(s.amax(-1), i, size) for i, s in enumerate(scores)]
    return torch.stack(per_axis).amax(0)


def _softmax_(scores: list[Tensor], shift: Tensor) -> Tensor:
    """Scores to weights over each position's cross, in place; ``shift`` (B, *S) keeps the
    exponentials in range. Returns the sum (B, *S) of the shifted exponentials.

    Dividing by the sum also where ``shift`` is the log-sum-exp, and the sum therefore 1 but for
    rounding, takes out the rounding of the log-sum-exp, which large scores make the largest error.
    """
    total = torch.zeros_like(shift)
    for axis, s in enumerate(scores):
        s.sub_(_per_line(shift, axis)[..., None]).exp_()
        total += _per_position(s.sum(-1), axis, shift.shape)
    for axis, s in enumerate(scores):
        s.div_(_per_line(total, axis)[..., None])
    return total
