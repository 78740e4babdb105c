"""The ``tiled`` backend: criss-cross attention axis by axis, in tiles that stay in cache.

Feature maps are seen as (B, *S, C). The rows or columns along one axis are then batches of matrices
(L, C), which BLAS takes as strided views: nothing is permuted in memory. An operand that is not
channels-last is converted once, where the official code makes two permuted copies of each of query,
key and value. In a batch of one, the gradient of the output is converted tile by tile instead,
because backward needs the most memory.

Each axis has its own softmax, and the axes are merged by their log-sum-exp: with a and b the
log-sum-exp of two sets of scores, the softmax over both is the average of the two results,
weighted by sigmoid(a - b) and sigmoid(b - a). So only the scores of one tile are in memory at a
time, forward and backward.

Backward keeps query, key, value, output and log-sum-exp, and computes the weights again. It reads
the output first and releases it, so that its memory can be used for the gradients.

Variables have the names of FlashAttention: ``s`` scores, ``p`` weights, ``lse`` log-sum-exp,
``do``, ``dq``, ... gradients, ``delta`` the row-wise sum of dO * O. Scores are multiplied by
log2(e), and ``lse`` is to the base 2, because exp2 takes half the time of exp.

Forward and backward are custom operators, so that torch.compile takes each as one node.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ccsa.errors import UserError
from ccsa.ops.criss_cross.layout import channels_last, to_layout_of, view_or_channels_last
from ccsa.ops.criss_cross.pages import use_large_pages
from ccsa.ops.criss_cross.precision import cannot_resolve, score_dtype, without_autocast

# Least and most bytes of a tile's two score matrices and largest matrix product: large enough that
# batched matmuls keep every core busy, small enough for the cache that the cores share. Within
# these limits, a forward tile takes as much as the feature map, but at least twice the minimum; a
# backward tile, when more memory is in use, a third of the feature map or of all weights, whichever
# is more.
TILE_BYTES = 3 * 2**19, 2**23

LOG2E = math.log2(math.e)


def tiled_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the output (B, Cv, *S) of query and key (B, Ck, *S) and value (B, Cv, *S)."""
    return _forward(query, key, value)[0]


@torch.library.custom_op("ccsa::criss_cross_forward", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output (B, Cv, *S) and the log-sum-exp (B, *S) of the scores over each cross, to
    the base 2."""
    with without_autocast(query):
        out, lse = _attend(channels_last(query), channels_last(key), channels_last(value))
    return to_layout_of(out, value), lse


@_forward.register_fake
def _(query, key, value):
    size = query.shape[:1] + query.shape[2:]
    return torch.empty_like(value), query.new_empty(size, dtype=score_dtype(query.dtype))


@torch.library.custom_op("ccsa::criss_cross_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, lse: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value; ``delta`` (B, *S) is that of :func:`_delta`."""
    with without_autocast(query):
        if cannot_resolve(lse):
            return float64_gradients(grad, query, key, value)
        dq, dk, dv = _gradients(grad, query, key, value, lse, delta)
    return to_layout_of(dq, query), to_layout_of(dk, key), to_layout_of(dv, value)


def float64_gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value, computed in float64 from the operands only."""
    do, q, k, v = (x.double() for x in (grad, query, key, value))
    out, lse = _attend(channels_last(q), channels_last(k), channels_last(v))
    dq, dk, dv = _gradients(do, q, k, v, lse, _delta(do, out.movedim(-1, 1)))
    return to_layout_of(dq, query), to_layout_of(dk, key), to_layout_of(dv, value)


@_backward.register_fake
def _(grad, query, key, value, lse, delta):
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad, _):
    query, key, value, out, lse = ctx.saved_tensors
    delta = _delta(grad, out)
    del out
    if hasattr(ctx, "maybe_clear_saved_tensors"):  # keeps them if the graph is retained
        ctx.maybe_clear_saved_tensors()
    return _backward(grad, query, key, value, lse, delta)


def no_second_derivative(ctx, *grads):
    """Raise the error of second derivatives, as the backward function of a backward operator."""
    raise UserError(
        "criss-cross attention has second derivatives with the backends 'export' and 'reference' "
        "only; compute it inside `with use_backend('export')`"
    )


_backward.register_autograd(no_second_derivative)


def _delta(grad: Tensor, out: Tensor) -> Tensor:
    """Return delta (B, *S), the sum of dO * O over the channels.

    It equals the sum of P * dP over the cross, because the softmax runs over the whole cross.
    """
    dtype = score_dtype(grad.dtype)
    with without_autocast(grad):
        if grad.dtype == dtype and grad.stride(1) == 1:  # einsum would copy other layouts
            return torch.einsum("bc...,bc...->b...", grad, out).contiguous()
        pairs = zip(grad.split(64, 1), out.split(64, 1), strict=True)  # no copies of whole tensors
        return sum((g.to(dtype) * o.to(dtype)).sum(1) for g, o in pairs)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _value_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of matmuls with value: bfloat16 stays, as it has the range of float32."""
    return dtype if dtype == torch.bfloat16 else score_dtype(dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output (B, *S, Cv) and the log-sum-exp (B, *S) to the base 2."""
    s_dtype, v_dtype = score_dtype(q.dtype), _value_dtype(v.dtype)
    out = use_large_pages(v.new_empty(v.shape))
    lse = torch.empty(q.shape[:-1], dtype=s_dtype, device=q.device)
    tile_bytes = max(v.nbytes, 2 * TILE_BYTES[0])
    for axis in _axes(q):
        first = axis == q.dim() - 3
        for q_i, k_i, v_i, out_i, lse_i in _tiles(axis, tile_bytes, q, k, v, out, lse[..., None]):
            p = _scores(q_i.to(s_dtype), k_i.to(s_dtype), mask_self=not first)
            axis_lse = _softmax_(p)
            p, v_i = p.to(v_dtype), v_i.to(v_dtype)
            if first:
                _write_matmul(out_i, p, v_i, first)
                lse_i.copy_(axis_lse)
            else:
                merged_lse = torch.logaddexp2(lse_i, axis_lse)
                # The sigmoid of the difference is exact; exp2(axis_lse - merged_lse) would have the
                # rounding error of merged_lse.
                share = torch.sigmoid(axis_lse.sub_(lse_i).div_(LOG2E)).to(v_dtype)
                acc = out_i.to(v_dtype).lerp_(_matmul(p, v_i), share)
                if acc.dtype != out_i.dtype:  # otherwise acc is out_i
                    out_i.copy_(acc)
                lse_i.copy_(merged_lse)
    return out, lse


def _gradients(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients (B, *S, C) of q, k and v, which are (B, C, *S) like ``do``."""
    # Copies of operands in another layout are released when this function returns.
    do, q, k, v = view_or_channels_last(do), channels_last(q), channels_last(k), channels_last(v)
    s_dtype, v_dtype = lse.dtype, _value_dtype(v.dtype)
    dq, dk = (use_large_pages(x.new_empty(x.shape, dtype=s_dtype)) for x in (q, k))
    dv = use_large_pages(v.new_empty(v.shape))
    tile_bytes = max(v.nbytes, lse.nbytes * sum(lse.shape[1:])) // 3
    for axis in _axes(q):
        first = axis == q.dim() - 3
        for do_i, q_i, k_i, v_i, lse_i, delta_i, dq_i, dk_i, dv_i in _tiles(
            axis, tile_bytes, do, q, k, v, lse[..., None], delta[..., None], dq, dk, dv
        ):
            do_i, q_i, k_i = _blas_layout(do_i), q_i.to(s_dtype), k_i.to(s_dtype)
            p = _scores(q_i, k_i, mask_self=not first, minus=lse_i).exp2_()
            _write_matmul(dv_i, p.to(v_dtype).mT, do_i.to(v_dtype), first)
            # dP is not rounded before delta is subtracted, as only rounding errors would remain.
            ds = _matmul(do_i.to(s_dtype), v_i.to(s_dtype).mT, minus=delta_i).mul_(p)
            _write_matmul(dq_i, ds, k_i, first)
            _write_matmul(dk_i, ds.mT, q_i, first)
    return dq, dk, dv


def _axes(x: Tensor) -> list[int]:
    """Return the axes of (B, *S, C) in the order of computation.

    The last axis comes first; it contains the own position and overwrites the result. Any other
    axis of size 1 is left out, because it contains nothing but the own position.
    """
    last = x.dim() - 3
    return [last, *(axis for axis in range(last) if x.shape[axis + 1] > 1)]


def _tiles(axis: int, tile_bytes: int, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """Yield views (outer, inner, L, C) of each (B, *S, C): some of the rows along ``axis``.

    A tile has ``tile_bytes`` within the limits TILE_BYTES. It takes some of the inner rows of one
    outer index, or all inner rows of several outer indices.
    """
    size = tensors[0].shape[:-1]
    outer, length, inner = (
        math.prod(n) for n in (size[: axis + 1], size[axis + 1 : axis + 2], size[axis + 2 :])
    )
    views = [x.view(outer, length, inner, x.shape[-1]).transpose(1, 2) for x in tensors]
    widest = max(tensors, key=lambda x: x.shape[-1])
    row_bytes = length * (2 * length + widest.shape[-1]) * widest.element_size()
    least, most = TILE_BYTES
    tile_bytes = min(most, max(least, tile_bytes))
    threads = torch.get_num_threads()
    rows = threads * max(1, tile_bytes // (row_bytes * threads))  # the same number per thread
    steps = max(1, rows // inner)
    for i in range(0, outer, steps):
        for j in range(0, inner, rows):
            yield [x[i : i + steps, j : j + rows] for x in views]


def _blas_layout(x: Tensor) -> Tensor:
    """Return (outer, inner, L, C) in a layout that BLAS takes.

    This is ``x`` itself if its channels or its positions are dense, otherwise a copy in the order
    of a channels-last tensor.
    """
    (length, channels), (row_stride, channel_stride) = x.shape[2:], x.stride()[2:]
    dense_channels = channel_stride == 1 and row_stride >= channels
    if dense_channels or (row_stride == 1 and channel_stride >= length):
        return x
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _scores(q: Tensor, k: Tensor, mask_self: bool, minus: Tensor | None = None) -> Tensor:
    """Return the scores (outer, inner, L, L) of all pairs of positions of each row.

    They are log2(e) * q_i . k_j - ``minus``, where ``minus`` is (outer, inner, L, 1). With
    ``mask_self`` the score of the own position is -inf: it is on every axis, but counts only once.
    """
    s = _matmul(q, k.mT, LOG2E, minus)
    if mask_self:
        s.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    return s


def _softmax_(s: Tensor) -> Tensor:
    """Turn scores (..., L) into weights in place; return their log-sum-exp (..., 1) to the base
    2."""
    m_i = s.amax(-1, keepdim=True)
    l_i = s.sub_(m_i).exp2_().sum(-1, keepdim=True)
    s.div_(l_i)
    return m_i.add_(l_i.log2_())


def _matmul(a: Tensor, b: Tensor, scale: float = 1.0, minus: Tensor | None = None) -> Tensor:
    """Return scale * a @ b - minus for each row: (outer, inner, L, L) or (outer, inner, L, C)."""
    start, beta = a.new_empty(1), 0  # with beta = 0, start is not read
    if minus is not None:
        start, beta = minus.flatten(0, 1), -1
    result = torch.baddbmm(start, a.flatten(0, 1), b.flatten(0, 1), beta=beta, alpha=scale)
    return result.unflatten(0, a.shape[:2])


def _write_matmul(into: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """Write a @ b of each row to ``into``, or add it unless this is the ``first`` axis.

    Adding by baddbmm would be slow, because it computes strided results matrix by matrix.
    """
    if first and into.dtype == a.dtype:  # rows of the last axis, which are contiguous
        torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out=into.flatten(0, 1))
    elif first:
        into.copy_(_matmul(a, b))
    else:
        into.add_(_matmul(a, b))
