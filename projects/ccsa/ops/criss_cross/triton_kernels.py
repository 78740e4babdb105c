"""Triton kernels of criss-cross attention: one line's tile per program, no weights in memory.

A launch handles all lines along one axis. A tensor (B, *S, C) is given by its pointer and the
tuple of its strides (batch, other axis, other axis, along the line), in elements; channels are
dense. ``at`` are the strides of the buffers of one number per position, ``others`` the sizes of
the other two axes. One tile of one line of one launch writes each number, in a fixed order of
sums: the same bits every time, without atomics.

The own position lies on every line. It is left in the last axis, which runs first (``FIRST``), so
that no softmax is empty, whatever the sizes; the other axes mask it and go on from what is there.

X, Y: positions of the program's own tile, and those of the tile it meets, on the same line; K: a
tile of the channels of query and key; V: of those of value.
"""

from typing import Any

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def loop_bound(n: int) -> Any:
    """An argument that bounds a loop. The interpreter of Triton 3.6 cannot loop to a number that
    was passed to a kernel with NumPy 2.4, but can to a constant."""
    return tl.constexpr(n) if INTERPRETED.value else n


@triton.jit
def _dot(a, b, total, PRECISION: tl.constexpr):
    """total + a b, accumulated in float32."""
    if INTERPRETED:  # has no bfloat16 products; those of float32 are the ones of tensor cores
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _start(pointer, line, others, strides):
    """Pointer to the first position of a line; 64 bit, as large maps pass 2^31 elements."""
    line = line.to(tl.int64)
    second = line % others[1]
    first = line // others[1] % others[0]
    batch = line // others[1] // others[0]
    return pointer + batch * strides[0] + first * strides[1] + second * strides[2]


@triton.jit
def _places(line, positions, inside, strides, channels, C: tl.constexpr):
    """Addresses and mask of a tile (positions, channels) of a line."""
    rows = line + positions.to(tl.int64) * strides[3]
    return rows[:, None] + channels[None, :], inside[:, None] & (channels[None, :] < C)


@triton.jit
def _products(
    a, a_at, a_in, a_strides, b, b_at, b_in, b_strides, C: tl.constexpr,
    A: tl.constexpr, B: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """a_x . b_y over all C channels, (A, B) float32."""
    out = tl.zeros((A, B), tl.float32)
    for c in range(0, C, TILE):
        channels = c + tl.arange(0, TILE)
        places, mask = _places(a, a_at, a_in, a_strides, channels, C)
        left = tl.load(places, mask=mask, other=0.0)
        places, mask = _places(b, b_at, b_in, b_strides, channels, C)
        right = tl.load(places, mask=mask, other=0.0)
        out = _dot(left, tl.trans(right), out, PRECISION)
    return out


@triton.jit
def attend(
    query, key, value, out, lse_before, lse_after,
    query_strides, key_strides, value_strides, out_strides, at, others, length,
    CK: tl.constexpr, CV: tl.constexpr, FIRST: tl.constexpr,
    X: tl.constexpr, Y: tl.constexpr, K: tl.constexpr, V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds one axis to ``out`` and to the log-sum-exp: an online softmax that starts from those of
    the axes before, for which it is as if they were one key with score lse and value out."""
    parts: tl.constexpr = (CV + V - 1) // V
    tiles = tl.cdiv(length, X)
    part = tl.program_id(0) % parts
    tile = tl.program_id(0) // parts % tiles
    line = tl.program_id(0) // parts // tiles
    q = _start(query, line, others, query_strides)
    k = _start(key, line, others, key_strides)
    v = _start(value, line, others, value_strides)
    o = _start(out, line, others, out_strides)
    x = tile * X + tl.arange(0, X)
    x_in = x < length
    channels = part * V + tl.arange(0, V)
    written, mask = _places(o, x, x_in, out_strides, channels, CV)
    number = _start(lse_before, line, others, at) + x.to(tl.int64) * at[3]
    if FIRST:
        top = tl.full((X,), float("-inf"), tl.float32)
        total = tl.zeros((X,), tl.float32)
        mean = tl.zeros((X, V), tl.float32)
    else:
        top = tl.load(number, mask=x_in, other=0.0)
        total = tl.full((X,), 1.0, tl.float32)
        mean = tl.load(written, mask=mask, other=0.0).to(tl.float32)
    for first in range(0, length, Y):
        y = first + tl.arange(0, Y)
        y_in = y < length
        scores = _products(
            q, x, x_in, query_strides, k, y, y_in, key_strides, CK, X, Y, K, PRECISION
        )
        seen = y_in[None, :]
        if not FIRST:
            seen = seen & (x[:, None] != y[None, :])
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        places, inside = _places(v, y, y_in, value_strides, channels, CV)
        values = tl.load(places, mask=inside, other=0.0)
        mean = _dot(weights.to(values.dtype), values, mean * shrink[:, None], PRECISION)
        top = higher
    mean = mean / total[:, None]
    tl.store(written, mean.to(out.dtype.element_ty), mask=mask)
    if part == 0:
        number = _start(lse_after, line, others, at) + x.to(tl.int64) * at[3]
        tl.store(number, top + tl.log(total), mask=x_in)


@triton.jit
def output_products(
    grad, out, delta, grad_strides, out_strides, at, others, length,
    CV: tl.constexpr, X: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """delta = sum_c dO_c O_c of each position: the mean of P dP over its whole cross, which is the
    gradient of the log-sum-exp."""
    tiles = tl.cdiv(length, X)
    tile = tl.program_id(0) % tiles
    line = tl.program_id(0) // tiles
    g = _start(grad, line, others, grad_strides)
    o = _start(out, line, others, out_strides)
    x = tile * X + tl.arange(0, X)
    x_in = x < length
    total = tl.zeros((X,), tl.float32)
    for c in range(0, CV, V):
        channels = c + tl.arange(0, V)
        places, mask = _places(g, x, x_in, grad_strides, channels, CV)
        left = tl.load(places, mask=mask, other=0.0).to(tl.float32)
        places, mask = _places(o, x, x_in, out_strides, channels, CV)
        right = tl.load(places, mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(left * right, 1)
    number = _start(delta, line, others, at) + x.to(tl.int64) * at[3]
    tl.store(number, total, mask=x_in)


@triton.jit
def value_gradient(
    query, key, grad, lse, d_value,
    query_strides, key_strides, grad_strides, d_value_strides, at, others, length,
    CK: tl.constexpr, CV: tl.constexpr, FIRST: tl.constexpr,
    X: tl.constexpr, Y: tl.constexpr, K: tl.constexpr, V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds one axis to dV_x = sum_y P_yx dO_y: x are keys, y the queries that see them."""
    parts: tl.constexpr = (CV + V - 1) // V
    tiles = tl.cdiv(length, X)
    part = tl.program_id(0) % parts
    tile = tl.program_id(0) // parts % tiles
    line = tl.program_id(0) // parts // tiles
    q = _start(query, line, others, query_strides)
    k = _start(key, line, others, key_strides)
    g = _start(grad, line, others, grad_strides)
    d = _start(d_value, line, others, d_value_strides)
    numbers = _start(lse, line, others, at)
    x = tile * X + tl.arange(0, X)
    x_in = x < length
    channels = part * V + tl.arange(0, V)
    written, mask = _places(d, x, x_in, d_value_strides, channels, CV)
    if FIRST:
        total = tl.zeros((X, V), tl.float32)
    else:
        total = tl.load(written, mask=mask, other=0.0).to(tl.float32)
    for first in range(0, length, Y):
        y = first + tl.arange(0, Y)
        y_in = y < length
        scores = _products(
            k, x, x_in, key_strides, q, y, y_in, query_strides, CK, X, Y, K, PRECISION
        )
        l = tl.load(numbers + y.to(tl.int64) * at[3], mask=y_in, other=0.0)  # noqa: E741
        seen = x_in[:, None] & y_in[None, :]
        if not FIRST:
            seen = seen & (x[:, None] != y[None, :])
        weights = tl.where(seen, tl.exp(scores - l[None, :]), 0.0)
        places, inside = _places(g, y, y_in, grad_strides, channels, CV)
        grads = tl.load(places, mask=inside, other=0.0)
        total = _dot(weights.to(grads.dtype), grads, total, PRECISION)
    tl.store(written, total.to(d_value.dtype.element_ty), mask=mask)


@triton.jit
def score_gradient(
    own, other, own_wide, other_wide, lse, delta, d_own, d_other,
    own_strides, other_strides, own_wide_strides, other_wide_strides, d_strides, at, others,
    length, part_stride, parts_before,
    CK: tl.constexpr, CV: tl.constexpr, QUERIES: tl.constexpr, BOTH: tl.constexpr,
    FIRST: tl.constexpr, X: tl.constexpr, Y: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds one axis to dQ or dK, float32: with dP = dO . v and dS = P (dP - delta),
    dQ_i = sum_j dS_ij k_j and dK_j = sum_i dS_ij q_i.

    ``own`` are the queries (and ``own_wide`` dO) or the keys (and v), as ``QUERIES`` says;
    ``other`` the others. ``BOTH`` also adds this tile's share of the others' gradient, to the part
    ``d_other[tile]``: the costly dP is then formed once, and the parts are summed afterwards.
    One tile of K channels of the gradients is written per program.
    """
    ck_parts: tl.constexpr = (CK + K - 1) // K
    tiles = tl.cdiv(length, X)
    part = tl.program_id(0) % ck_parts
    tile = tl.program_id(0) // ck_parts % tiles
    line = tl.program_id(0) // ck_parts // tiles
    a = _start(own, line, others, own_strides)
    b = _start(other, line, others, other_strides)
    a_wide = _start(own_wide, line, others, own_wide_strides)
    b_wide = _start(other_wide, line, others, other_wide_strides)
    lse_line = _start(lse, line, others, at)
    delta_line = _start(delta, line, others, at)
    da = _start(d_own, line, others, d_strides)
    db = _start(d_other, line, others, d_strides) + tile.to(tl.int64) * part_stride
    x = tile * X + tl.arange(0, X)
    x_in = x < length
    channels = part * K + tl.arange(0, K)
    d_places, d_mask = _places(da, x, x_in, d_strides, channels, CK)
    own_places, own_mask = _places(a, x, x_in, own_strides, channels, CK)
    total = tl.load(d_places, mask=d_mask & (not FIRST), other=0.0)
    for first in range(0, length, Y):
        y = first + tl.arange(0, Y)
        y_in = y < length
        d_weights = _products(
            a_wide, x, x_in, own_wide_strides, b_wide, y, y_in, other_wide_strides,
            CV, X, Y, V, PRECISION,
        )  # fmt: skip
        scores = _products(
            a, x, x_in, own_strides, b, y, y_in, other_strides, CK, X, Y, K, PRECISION
        )
        if QUERIES:
            numbers = x.to(tl.int64) * at[3]
            l = tl.load(lse_line + numbers, mask=x_in, other=0.0)[:, None]  # noqa: E741
            mean = tl.load(delta_line + numbers, mask=x_in, other=0.0)[:, None]
        else:
            numbers = y.to(tl.int64) * at[3]
            l = tl.load(lse_line + numbers, mask=y_in, other=0.0)[None, :]  # noqa: E741
            mean = tl.load(delta_line + numbers, mask=y_in, other=0.0)[None, :]
        seen = x_in[:, None] & y_in[None, :]
        if not FIRST:
            seen = seen & (x[:, None] != y[None, :])
        ds = tl.where(seen, tl.exp(scores - l) * (d_weights - mean), 0.0)
        # float16 ends at 65,504 and 6e-8, which loss scaling makes dS pass: bring it to at most 1.
        HALF: tl.constexpr = own.dtype.element_ty == tl.float16
        if HALF:
            scale = tl.maximum(tl.max(tl.max(tl.abs(ds), 1), 0), 1e-30)
            ds = ds / scale
        ds = ds.to(own.dtype.element_ty)
        places, mask = _places(b, y, y_in, other_strides, channels, CK)
        tile_b = tl.load(places, mask=mask, other=0.0)
        if HALF:
            total += _dot(ds, tile_b, tl.zeros((X, K), tl.float32), PRECISION) * scale
        else:
            total = _dot(ds, tile_b, total, PRECISION)
        if BOTH:
            tile_a = tl.load(own_places, mask=own_mask, other=0.0)
            share = _dot(tl.trans(ds), tile_a, tl.zeros((Y, K), tl.float32), PRECISION)
            if HALF:
                share *= scale
            places, mask = _places(db, y, y_in, d_strides, channels, CK)
            if not FIRST:
                before = mask & (tile < parts_before)
                share += tl.load(places, mask=before, other=0.0)
            tl.store(places, share, mask=mask)
    tl.store(d_places, total, mask=d_mask)
