"""Triton kernels of criss-cross attention. No attention weights are written to memory.

A launch handles one axis of the feature maps: all rows, say, of a map (B, T, H, W, C). Each program
computes one tile of BLOCK_M positions of one row. A tensor is given by its pointer and the tuple of
its strides in elements: (batch, first other axis, second other axis, along the row); channels are
dense. ``lse`` and ``delta`` have one element per position and common strides, ``lse_strides``;
``others`` are the sizes of the two other axes. Sums and weights have the dtype of ``lse``: float32,
or float64 for operands in float64. Every element is written by one program per launch, and sums
have a fixed order without atomics: the result is the same bit for bit every time.

The own position is on every axis, but counts once. It is kept on the last axis, which runs first
(``FIRST``), so that no softmax is empty whatever the sizes; the kernels of the other axes mask it
and continue from the results so far.

Names follow FlashAttention: ``offs_m`` are the positions of a program's own tile and ``offs_n``
those of the tiles it iterates over, on the same row; ``offs_d`` are channels; ``m_i`` is the
running maximum and ``l_i`` the running sum of the online softmax, ``acc`` the accumulator, ``lse``
the log-sum-exp, and ``delta`` the sum of dO * O. CK and CV are the channels of query/key and of
value, in tiles of BLOCK_K and BLOCK_V.
"""

from typing import Any

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def loop_bound(n: int) -> Any:
    """Return ``n`` as a kernel argument that bounds a loop.

    With NumPy 2.4 the interpreter of Triton 3.6 cannot loop to a number that is passed to a kernel,
    but it can loop to a constant.
    """
    return tl.constexpr(n) if INTERPRETED.value else n


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    """Return acc + a @ b, accumulated in the dtype of acc."""
    if INTERPRETED:  # it has no bfloat16 matmul; float32 gives the same as tensor cores do
        a = a.to(acc.dtype)
        b = b.to(acc.dtype)
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def _row_pointer(pointer, row, others, strides):
    """Return the pointer to the first position of a row, in 64 bit for tensors of more than 2^31
    elements."""
    row = row.to(tl.int64)
    second = row % others[1]
    first = row // others[1] % others[0]
    batch = row // others[1] // others[0]
    return pointer + batch * strides[0] + first * strides[1] + second * strides[2]


@triton.jit
def _tile_pointers(row_ptr, offs, in_row, strides, offs_d, D: tl.constexpr):
    """Return the pointers and the mask of a tile (positions, channels) of a row."""
    ptrs = row_ptr + offs.to(tl.int64) * strides[3]
    return ptrs[:, None] + offs_d[None, :], in_row[:, None] & (offs_d[None, :] < D)


@triton.jit
def _tile_matmul(
    a_ptr, offs_m, in_m, a_strides, b_ptr, offs_n, in_n, b_strides, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Return a_m . b_n over all D channels, (BLOCK_M, BLOCK_N) in the dtype ACC."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for start_d in range(0, D, BLOCK_D):
        offs_d = start_d + tl.arange(0, BLOCK_D)
        ptrs, mask = _tile_pointers(a_ptr, offs_m, in_m, a_strides, offs_d, D)
        a = tl.load(ptrs, mask=mask, other=0.0)
        ptrs, mask = _tile_pointers(b_ptr, offs_n, in_n, b_strides, offs_d, D)
        b = tl.load(ptrs, mask=mask, other=0.0)
        acc = _dot(a, tl.trans(b), acc, PRECISION)
    return acc


@triton.jit
def attention_forward(
    query, key, value, out, lse_in, lse_out,
    query_strides, key_strides, value_strides, out_strides, lse_strides, others, length,
    CK: tl.constexpr, CV: tl.constexpr, FIRST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add one axis to ``out`` and to the log-sum-exp.

    The online softmax starts from the axes so far as if they were one key with score ``lse_in`` and
    value ``out``.
    """
    ACC: tl.constexpr = lse_out.dtype.element_ty
    num_d: tl.constexpr = (CV + BLOCK_V - 1) // BLOCK_V
    num_m = tl.cdiv(length, BLOCK_M)
    pid_d = tl.program_id(0) % num_d
    pid_m = tl.program_id(0) // num_d % num_m
    row = tl.program_id(0) // num_d // num_m
    q_ptr = _row_pointer(query, row, others, query_strides)
    k_ptr = _row_pointer(key, row, others, key_strides)
    v_ptr = _row_pointer(value, row, others, value_strides)
    o_ptr = _row_pointer(out, row, others, out_strides)
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    in_m = offs_m < length
    offs_d = pid_d * BLOCK_V + tl.arange(0, BLOCK_V)
    o_ptrs, o_mask = _tile_pointers(o_ptr, offs_m, in_m, out_strides, offs_d, CV)
    lse_offs = offs_m.to(tl.int64) * lse_strides[3]
    if FIRST:
        m_i = tl.full((BLOCK_M,), float("-inf"), ACC)
        l_i = tl.zeros((BLOCK_M,), ACC)
        acc = tl.zeros((BLOCK_M, BLOCK_V), ACC)
    else:
        lse_ptrs = _row_pointer(lse_in, row, others, lse_strides) + lse_offs
        m_i = tl.load(lse_ptrs, mask=in_m, other=0.0)
        l_i = tl.full((BLOCK_M,), 1.0, ACC)
        acc = tl.load(o_ptrs, mask=o_mask, other=0.0).to(ACC)
    for start_n in range(0, length, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        in_n = offs_n < length
        qk = _tile_matmul(
            q_ptr, offs_m, in_m, query_strides, k_ptr, offs_n, in_n, key_strides,
            CK, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, ACC,
        )  # fmt: skip
        visible = in_n[None, :]
        if not FIRST:
            visible = visible & (offs_m[:, None] != offs_n[None, :])
        qk = tl.where(visible, qk, float("-inf"))
        m_ij = tl.maximum(m_i, tl.max(qk, 1))
        p = tl.exp(qk - m_ij[:, None])
        alpha = tl.exp(m_i - m_ij)
        l_i = l_i * alpha + tl.sum(p, 1)
        v_ptrs, v_mask = _tile_pointers(v_ptr, offs_n, in_n, value_strides, offs_d, CV)
        v = tl.load(v_ptrs, mask=v_mask, other=0.0)
        acc = _dot(p.to(v.dtype), v, acc * alpha[:, None], PRECISION)
        m_i = m_ij
    acc = acc / l_i[:, None]
    tl.store(o_ptrs, acc.to(out.dtype.element_ty), mask=o_mask)
    if pid_d == 0:
        lse_ptrs = _row_pointer(lse_out, row, others, lse_strides) + lse_offs
        tl.store(lse_ptrs, m_i + tl.log(l_i), mask=in_m)


@triton.jit
def compute_delta(
    grad, out, delta, grad_strides, out_strides, lse_strides, others, length,
    CV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Compute delta, the sum of dO * O over the channels of each position.

    It equals the sum of P * dP over the whole cross, which is the gradient of the log-sum-exp.
    """
    ACC: tl.constexpr = delta.dtype.element_ty
    num_m = tl.cdiv(length, BLOCK_M)
    pid_m = tl.program_id(0) % num_m
    row = tl.program_id(0) // num_m
    do_ptr = _row_pointer(grad, row, others, grad_strides)
    o_ptr = _row_pointer(out, row, others, out_strides)
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    in_m = offs_m < length
    acc = tl.zeros((BLOCK_M,), ACC)
    for start_d in range(0, CV, BLOCK_V):
        offs_d = start_d + tl.arange(0, BLOCK_V)
        ptrs, mask = _tile_pointers(do_ptr, offs_m, in_m, grad_strides, offs_d, CV)
        do = tl.load(ptrs, mask=mask, other=0.0).to(ACC)
        ptrs, mask = _tile_pointers(o_ptr, offs_m, in_m, out_strides, offs_d, CV)
        o = tl.load(ptrs, mask=mask, other=0.0).to(ACC)
        acc += tl.sum(do * o, 1)
    delta_ptrs = _row_pointer(delta, row, others, lse_strides)
    delta_ptrs += offs_m.to(tl.int64) * lse_strides[3]
    tl.store(delta_ptrs, acc, mask=in_m)


@triton.jit
def value_gradient(
    query, key, grad, lse, d_value,
    query_strides, key_strides, grad_strides, d_value_strides, lse_strides, others, length,
    CK: tl.constexpr, CV: tl.constexpr, FIRST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add one axis to dV_m = sum_n P_nm dO_n, where m are keys and n the queries that see them."""
    ACC: tl.constexpr = lse.dtype.element_ty
    num_d: tl.constexpr = (CV + BLOCK_V - 1) // BLOCK_V
    num_m = tl.cdiv(length, BLOCK_M)
    pid_d = tl.program_id(0) % num_d
    pid_m = tl.program_id(0) // num_d % num_m
    row = tl.program_id(0) // num_d // num_m
    q_ptr = _row_pointer(query, row, others, query_strides)
    k_ptr = _row_pointer(key, row, others, key_strides)
    do_ptr = _row_pointer(grad, row, others, grad_strides)
    dv_ptr = _row_pointer(d_value, row, others, d_value_strides)
    lse_ptr = _row_pointer(lse, row, others, lse_strides)
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    in_m = offs_m < length
    offs_d = pid_d * BLOCK_V + tl.arange(0, BLOCK_V)
    dv_ptrs, dv_mask = _tile_pointers(dv_ptr, offs_m, in_m, d_value_strides, offs_d, CV)
    if FIRST:
        acc = tl.zeros((BLOCK_M, BLOCK_V), ACC)
    else:
        acc = tl.load(dv_ptrs, mask=dv_mask, other=0.0).to(ACC)
    for start_n in range(0, length, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        in_n = offs_n < length
        qk = _tile_matmul(
            k_ptr, offs_m, in_m, key_strides, q_ptr, offs_n, in_n, query_strides,
            CK, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, ACC,
        )  # fmt: skip
        lse_n = tl.load(lse_ptr + offs_n.to(tl.int64) * lse_strides[3], mask=in_n, other=0.0)
        visible = in_m[:, None] & in_n[None, :]
        if not FIRST:
            visible = visible & (offs_m[:, None] != offs_n[None, :])
        p = tl.where(visible, tl.exp(qk - lse_n[None, :]), 0.0)
        do_ptrs, do_mask = _tile_pointers(do_ptr, offs_n, in_n, grad_strides, offs_d, CV)
        do = tl.load(do_ptrs, mask=do_mask, other=0.0)
        acc = _dot(p.to(do.dtype), do, acc, PRECISION)
    tl.store(dv_ptrs, acc.to(d_value.dtype.element_ty), mask=dv_mask)


@triton.jit
def query_key_gradient(
    a, b, a_wide, b_wide, lse, delta, d_a, d_b,
    a_strides, b_strides, a_wide_strides, b_wide_strides, d_strides, lse_strides, others,
    length, part_stride, parts_before,
    CK: tl.constexpr, CV: tl.constexpr, QUERIES: tl.constexpr, BOTH: tl.constexpr,
    FIRST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add one axis to dQ or dK, which have the dtype of ``lse``.

    With dP = dO . v and dS = P * (dP - delta), dQ_i = sum_j dS_ij k_j and dK_j = sum_i dS_ij q_i.
    Program tiles m belong to ``a``, and the tiles n that they iterate over to ``b``: with
    ``QUERIES``, a and a_wide are query and dO, and b and b_wide key and value; otherwise the other
    way around. With ``BOTH``, the share of this tile in the gradient of b is added too, to the part
    ``d_b[pid_m]``; the expensive dP is then formed once, and the parts are summed afterwards. A
    program writes BLOCK_K channels of the gradients.
    """
    ACC: tl.constexpr = lse.dtype.element_ty
    num_d: tl.constexpr = (CK + BLOCK_K - 1) // BLOCK_K
    num_m = tl.cdiv(length, BLOCK_M)
    pid_d = tl.program_id(0) % num_d
    pid_m = tl.program_id(0) // num_d % num_m
    row = tl.program_id(0) // num_d // num_m
    a_ptr = _row_pointer(a, row, others, a_strides)
    b_ptr = _row_pointer(b, row, others, b_strides)
    a_wide_ptr = _row_pointer(a_wide, row, others, a_wide_strides)
    b_wide_ptr = _row_pointer(b_wide, row, others, b_wide_strides)
    lse_ptr = _row_pointer(lse, row, others, lse_strides)
    delta_ptr = _row_pointer(delta, row, others, lse_strides)
    da_ptr = _row_pointer(d_a, row, others, d_strides)
    db_ptr = _row_pointer(d_b, row, others, d_strides) + pid_m.to(tl.int64) * part_stride
    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    in_m = offs_m < length
    offs_d = pid_d * BLOCK_K + tl.arange(0, BLOCK_K)
    da_ptrs, da_mask = _tile_pointers(da_ptr, offs_m, in_m, d_strides, offs_d, CK)
    a_ptrs, a_mask = _tile_pointers(a_ptr, offs_m, in_m, a_strides, offs_d, CK)
    acc = tl.load(da_ptrs, mask=da_mask & (not FIRST), other=0.0)
    for start_n in range(0, length, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        in_n = offs_n < length
        dp = _tile_matmul(
            a_wide_ptr, offs_m, in_m, a_wide_strides, b_wide_ptr, offs_n, in_n, b_wide_strides,
            CV, BLOCK_M, BLOCK_N, BLOCK_V, PRECISION, ACC,
        )  # fmt: skip
        qk = _tile_matmul(
            a_ptr, offs_m, in_m, a_strides, b_ptr, offs_n, in_n, b_strides,
            CK, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, ACC,
        )  # fmt: skip
        if QUERIES:
            lse_offs = offs_m.to(tl.int64) * lse_strides[3]
            lse_i = tl.load(lse_ptr + lse_offs, mask=in_m, other=0.0)[:, None]
            delta_i = tl.load(delta_ptr + lse_offs, mask=in_m, other=0.0)[:, None]
        else:
            lse_offs = offs_n.to(tl.int64) * lse_strides[3]
            lse_i = tl.load(lse_ptr + lse_offs, mask=in_n, other=0.0)[None, :]
            delta_i = tl.load(delta_ptr + lse_offs, mask=in_n, other=0.0)[None, :]
        visible = in_m[:, None] & in_n[None, :]
        if not FIRST:
            visible = visible & (offs_m[:, None] != offs_n[None, :])
        ds = tl.where(visible, tl.exp(qk - lse_i) * (dp - delta_i), 0.0)
        # float16 ranges from 6e-8 to 65504, and loss scaling can move dS out of this range: the
        # tile is scaled to at most 1.
        HALF: tl.constexpr = a.dtype.element_ty == tl.float16
        if HALF:
            scale = tl.maximum(tl.max(tl.max(tl.abs(ds), 1), 0), 1e-30)
            ds = ds / scale
        ds = ds.to(a.dtype.element_ty)
        b_ptrs, b_mask = _tile_pointers(b_ptr, offs_n, in_n, b_strides, offs_d, CK)
        b_n = tl.load(b_ptrs, mask=b_mask, other=0.0)
        if HALF:
            acc += _dot(ds, b_n, tl.zeros((BLOCK_M, BLOCK_K), ACC), PRECISION) * scale
        else:
            acc = _dot(ds, b_n, acc, PRECISION)
        if BOTH:
            a_m = tl.load(a_ptrs, mask=a_mask, other=0.0)
            db = _dot(tl.trans(ds), a_m, tl.zeros((BLOCK_N, BLOCK_K), ACC), PRECISION)
            if HALF:
                db *= scale
            db_ptrs, db_mask = _tile_pointers(db_ptr, offs_n, in_n, d_strides, offs_d, CK)
            if not FIRST:
                written = db_mask & (pid_m < parts_before)
                db += tl.load(db_ptrs, mask=written, other=0.0)
            tl.store(db_ptrs, db, mask=db_mask)
    tl.store(da_ptrs, acc, mask=da_mask)
