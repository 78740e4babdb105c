"""Criss-cross attention line by line, in tiles that stay in cache.

Maps are seen as (B, *S, C). The lines along one axis are then batches of (L, C) matrices, which
BLAS takes as strided views: nothing is permuted in memory. A map that is not channels-last is
converted once, where the official code makes two permuted copies of each of query, key and value;
in a batch of one, the gradient of the output is converted tile by tile, as backward needs the most
memory.

Each axis has its own softmax, and the axes are merged by their log-sum-exp: with a and b the
log-sum-exp of two sets of scores, the softmax over both is the mean of the two results, weighted by
sigmoid(a - b) and sigmoid(b - a). So the scores of a few lines are all that is in memory at a time,
forward and backward.

Saved for backward are query, key, value, output and log-sum-exp; the weights are computed again.
The output is read first and let go, so that its memory is free for the gradients.

The two computations are custom operators, so that torch.compile takes each as one node.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ccsa.ops.criss_cross.layout import as_it_lies, channels_last, like
from ccsa.ops.criss_cross.pages import large_pages
from ccsa.ops.criss_cross.plain import without_autocast

# Bytes of a tile's two score matrices and largest product, at least and at most: large enough that
# batches of matrix products keep every core busy, small enough for the cache that the cores share.
# Between the two, a tile takes as much as the map, or twice the least, in forward; and in backward,
# where more memory is in use, a third of the map or of all weights; whichever is more.
TILE_BYTES = 3 * 2**19, 2**23

# Scores are multiplied by it, so that exp2 of them is exp, in half the time.
LOG2E = math.log2(math.e)


def torch_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, Ck, *S), (B, Ck, *S), (B, Cv, *S) -> (B, Cv, *S)."""
    return _forward(query, key, value)[0]


@torch.library.custom_op("ccsa::criss_cross_forward", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, Cv, *S) and log-sum-exp (B, *S) of the scores over each position's cross, to the
    base 2."""
    with without_autocast(query):
        out, lse = _attend(channels_last(query), channels_last(key), channels_last(value))
    return like(out, value), lse


@_forward.register_fake
def _(query, key, value):
    size = query.shape[:1] + query.shape[2:]
    return torch.empty_like(value), query.new_empty(size, dtype=_exact(query.dtype))


@torch.library.custom_op("ccsa::criss_cross_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, lse: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; ``mean`` (B, *S) is :func:`_mean`."""
    with without_autocast(query):
        dq, dk, dv = _gradients(grad, query, key, value, lse, mean)
    return like(dq, query), like(dk, key), like(dv, value)


@_backward.register_fake
def _(grad, query, key, value, lse, mean):
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad, _):
    query, key, value, out, lse = ctx.saved_tensors
    mean = _mean(grad, out)
    del out
    if hasattr(ctx, "maybe_clear_saved_tensors"):  # keeps them where the graph is kept
        ctx.maybe_clear_saved_tensors()
    return _backward(grad, query, key, value, lse, mean)


def _mean(grad: Tensor, out: Tensor) -> Tensor:
    """Mean (B, *S) of the gradients of each position's weights, weighted by them: as the softmax
    runs over the whole cross, the product of output and gradient."""
    exact = _exact(grad.dtype)
    with without_autocast(grad):
        if grad.dtype == exact and grad.stride(1) == 1:  # channels far apart would be copied
            return torch.einsum("bc...,bc...->b...", grad, out).contiguous()
        pairs = zip(grad.split(64, 1), out.split(64, 1), strict=True)  # no whole copies
        return sum((g.to(exact) * o.to(exact)).sum(1) for g, o in pairs)


_forward.register_autograd(_differentiate, setup_context=_keep)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The type of scores: float32 for half precision; float16 scores overflow at 65504."""
    return torch.promote_types(dtype, torch.float32)


def _product(dtype: torch.dtype) -> torch.dtype:
    """The type of products with value: bfloat16 as it is, which has float32's range."""
    return dtype if dtype == torch.bfloat16 else _exact(dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, *S, Cv) and log-sum-exp (B, *S) to the base 2."""
    exact, product = _exact(q.dtype), _product(v.dtype)
    out = large_pages(v.new_empty(v.shape))
    lse = torch.empty(q.shape[:-1], dtype=exact, device=q.device)
    tile = max(v.nbytes, 2 * TILE_BYTES[0])
    for axis in _axes(q):
        first = axis == q.dim() - 3
        for qs, ks, vs, os, ls in _tiles(axis, tile, q, k, v, out, lse[..., None]):
            weights = _scores(qs.to(exact), ks.to(exact), not first)
            own = _softmax_(weights)
            weights, vs = weights.to(product), vs.to(product)
            if first:
                _put(os, weights, vs, first)
                ls.copy_(own)
            else:
                both = torch.logaddexp2(ls, own)
                # Of their difference, which is exact where that to ``both`` would be rounded.
                share = torch.sigmoid(own.sub_(ls).div_(LOG2E)).to(product)
                merged = os.to(product).lerp_(_products(weights, vs), share)
                if merged.dtype != os.dtype:  # else they are one
                    os.copy_(merged)
                ls.copy_(both)
    return out, lse


def _gradients(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of q, k and v, all (B, C, *S); the gradients are (B, *S, C)."""
    # Copies of those in another order end with this function.
    g, q, k, v = as_it_lies(g), channels_last(q), channels_last(k), channels_last(v)
    exact, product = lse.dtype, _product(v.dtype)
    dq, dk = (large_pages(x.new_empty(x.shape, dtype=exact)) for x in (q, k))
    dv = large_pages(v.new_empty(v.shape))
    tile = max(v.nbytes, lse.nbytes * sum(lse.shape[1:])) // 3
    for axis in _axes(q):
        first = axis == q.dim() - 3
        for gs, qs, ks, vs, ls, ms, dqs, dks, dvs in _tiles(
            axis, tile, g, q, k, v, lse[..., None], mean[..., None], dq, dk, dv
        ):
            gs, qs, ks = _matrices(gs), qs.to(exact), ks.to(exact)
            weights = _scores(qs, ks, not first, ls).exp2_()
            _put(dvs, weights.to(product).mT, gs.to(product), first)
            # Rounded before the mean is taken off, what is left of them would be rounding errors.
            d_scores = _products(gs.to(exact), vs.to(exact).mT, minus=ms).mul_(weights)
            _put(dqs, d_scores, ks, first)
            _put(dks, d_scores.mT, qs, first)
    return dq, dk, dv


def _axes(x: Tensor) -> list[int]:
    """The axes of (B, *S, C) in the order they are computed: the last one first, which writes. One
    of a single position adds nothing, as a position's own score counts in the last axis alone."""
    last = x.dim() - 3
    return [last, *(axis for axis in range(last) if x.shape[axis + 1] > 1)]


def _tiles(axis: int, tile: int, *maps: Tensor) -> Iterator[list[Tensor]]:
    """Groups of lines of each (B, *S, C) along ``axis``, as views (outer, inner, L, C), of ``tile``
    bytes within TILE_BYTES. All lines of a tile have the same distance, unless lines of several
    steps of the axes before make one."""
    size = maps[0].shape[:-1]
    outer, length, inner = (
        math.prod(n) for n in (size[: axis + 1], size[axis + 1 : axis + 2], size[axis + 2 :])
    )
    views = [x.view(outer, length, inner, x.shape[-1]).transpose(1, 2) for x in maps]
    widest = max(maps, key=lambda x: x.shape[-1])
    line = length * (2 * length + widest.shape[-1]) * widest.element_size()
    least, most = TILE_BYTES
    tile = min(most, max(least, tile))
    threads = torch.get_num_threads()
    lines = threads * max(1, tile // (line * threads))  # as many for each
    steps = max(1, lines // inner)
    for i in range(0, outer, steps):
        for j in range(0, inner, lines):
            yield [x[i : i + steps, j : j + lines] for x in views]


def _matrices(lines: Tensor) -> Tensor:
    """Lines (outer, inner, L, C) that BLAS takes: as they are where positions or channels lie one
    behind the other, else a copy, in the order of a channels-last map."""
    (length, channels), (step, jump) = lines.shape[2:], lines.stride()[2:]
    if (jump == 1 and step >= channels) or (step == 1 and jump >= length):
        return lines
    return lines.transpose(1, 2).contiguous().transpose(1, 2)


def _scores(q: Tensor, k: Tensor, others: bool, minus: Tensor | None = None) -> Tensor:
    """q_i . k_j times log2(e), ``minus`` (outer, inner, L, 1), for all pairs of positions of each
    line, (outer, inner, L, L); of ``others`` alone, the own position's is -inf: it lies on a line
    of every axis, and counts in the last."""
    scores = _products(q, k.mT, LOG2E, minus)
    if others:
        scores.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    return scores


def _softmax_(scores: Tensor) -> Tensor:
    """Scores (..., L) to weights, in place; returns their log-sum-exp (..., 1) to the base 2."""
    highest = scores.amax(-1, keepdim=True)
    total = scores.sub_(highest).exp2_().sum(-1, keepdim=True)
    scores.div_(total)
    return highest.add_(total.log2_())


def _products(a: Tensor, b: Tensor, scale: float = 1.0, minus: Tensor | None = None) -> Tensor:
    """scale * a @ b - minus for each line, (outer, inner, L, L) or (outer, inner, L, C)."""
    start, beta = a.new_empty(1), 0  # which is not read
    if minus is not None:
        start, beta = minus.flatten(0, 1), -1
    lines = torch.baddbmm(start, a.flatten(0, 1), b.flatten(0, 1), beta=beta, alpha=scale)
    return lines.unflatten(0, a.shape[:2])


def _put(into: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    """a @ b for each line, written or added. Adding by baddbmm would be slow: it takes strided
    results matrix by matrix."""
    if first and into.dtype == a.dtype:  # lines of the last axis, one behind the other
        torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out=into.flatten(0, 1))
    elif first:
        into.copy_(_products(a, b))
    else:
        into.add_(_products(a, b))
