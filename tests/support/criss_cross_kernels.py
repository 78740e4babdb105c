"""Tests of the Triton kernels against the reference.

On a GPU they are part of ``test_triton_gpu.py``. On the CPU they need Triton's interpreter, which
must be enabled before Triton is imported: ``test_triton.py`` runs this file in a process of its
own. To run it by hand: TRITON_INTERPRET=1 python -m pytest tests/support/criss_cross_kernels.py

The interpreter takes about 0.01 s per program, so the feature maps are small, and each size covers
a case of its own.
"""

import contextlib
import unittest.mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.accuracy import DTYPES, bound, measure
from ccsa.ops import criss_cross_attention
from ccsa.ops.criss_cross import can_run_triton, triton_ops
from ccsa.ops.criss_cross.tiles import Tiles
from support.criss_cross_cases import (
    as_layout,
    errors,
    exact,
    gradients,
    line_wise_gradients,
    operands,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}


def made(*args, dtype=torch.float32, **keywords):
    return operands(*args, dtype=dtype, device=DEVICE, **keywords)


def check(qkv, scale=1.0):
    assert can_run_triton(*qkv)
    got, expected = gradients(qkv, "triton", scale), exact(qkv, scale)
    assert got[0].dtype == qkv[2].dtype and got[0].shape == qkv[2].shape
    assert got[0].stride() == torch.empty_like(qkv[2]).stride()
    for error in errors(got, expected):
        assert error < TOLERANCE[qkv[0].dtype]


@pytest.mark.parametrize(
    ("size", "batch"),
    [
        *[((5, 7), 2), ((3, 2), 3), ((1, 6), 1), ((6, 1), 1), ((5,), 2), ((2, 3), 0)],
        *[((2, 3, 4), 1), ((1, 4, 1), 2), ((3, 1, 2), 1)],
    ],
    ids=str,
)
def test_sizes(size, batch):
    if batch:
        return check(made(size, batch))
    out, grads = gradients(made(size, 0), "triton")
    return None if out.numel() == 0 and grads[0].shape[0] == 0 else pytest.fail("not empty")


def test_a_cross_of_one_position():
    qkv = made((1, 1))
    out, (dq, dk, dv) = gradients(qkv, "triton")
    torch.testing.assert_close(out, qkv[2])
    assert dq.abs().max() < 1e-6 and dk.abs().max() < 1e-6 and dv.abs().min() > 0


@pytest.mark.parametrize(
    ("size", "ck", "cv", "dtype"),
    [
        ((1, 35), 40, 66, torch.float32),  # tiles of 32 positions, 32 and 64 channels
        ((1, 70), 20, 40, torch.bfloat16),  # a tile of 64 and a remainder
        ((1, 131), 20, 300, torch.float16),  # a tile of 128 and a remainder, dQ in parts
        ((2, 3), 64, 512, torch.bfloat16),  # as in CCNet
        ((2, 3), 140, 24, torch.float16),  # two tiles of query and key
    ],
    ids=str,
)
def test_sizes_that_tiles_do_not_divide(size, ck, cv, dtype):
    check(made(size, 1, ck=ck, cv=cv, dtype=dtype))


@pytest.mark.parametrize(
    ("size", "ck", "cv"),
    [
        ((17, 2), 16, 32),  # the second axis has more parts of dQ than the first
        ((2, 17), 20, 40),  # and fewer, of two tiles of channels
        ((17, 2), 9, 8),  # dQ by its own launches, as its parts would be larger than value
    ],
    ids=str,
)
def test_axes_of_several_tiles(size, ck, cv, monkeypatch):
    # The smallest tiles, to keep the feature maps small.
    tiles = Tiles(16, 16, 16, BLOCK_V=32, num_warps=4, num_stages=1)
    monkeypatch.setattr(triton_ops, "value_tiles", lambda *_: tiles)
    monkeypatch.setattr(triton_ops, "score_tiles", lambda *_: tiles)
    check(made(size, 1, ck=ck, cv=cv))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype):
    check(made((5, 7), 1, ck=8, cv=8, dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_with_large_scores(dtype):
    if DEVICE == "cuda":
        pytest.skip("the sweep computes on the CPU")
    spec = {"name": "CrissCross", "recurrence": 1}
    for scale, size in ((1e3, (3, 4)), (1e4, (1, 5))):
        errors = measure(spec, size, DTYPES[dtype], scale, "triton")
        limit = bound("CrissCross", dtype, scale)
        assert not limit.broken_by(errors, 5), (scale, size, errors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_large_scores_that_nobody_looked_at(dtype):
    """A compiled program calls the operator without choosing float64 by the values."""
    if DEVICE == "cuda" and dtype != torch.float32:
        pytest.skip("on a GPU, half precision relies on the warning")
    qkv = made((5, 7), 1, scale=1e3, dtype=dtype)
    out = triton_ops.triton_attention(*qkv)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out)
    got = torch.autograd.grad(out, qkv, grad)
    wide = [x.detach().double().requires_grad_() for x in qkv]
    expected = criss_cross_attention(*wide, backend="reference")
    expected = torch.autograd.grad(expected, wide, grad.double())
    for g, e in zip(got, expected, strict=True):
        assert (g - e).norm() <= (1e-6 if dtype == torch.float32 else 5e-3) * e.norm()


def test_float16_scores_and_their_gradients_may_exceed_its_range():
    big, q, k = torch.finfo(torch.float16).max, *made((3, 4), ck=16, scale=200.0)[:2]
    assert (q * k).sum(1).abs().max() > big
    q, k, v = (x.detach().half().requires_grad_() for x in (q, k, made((3, 4))[2]))
    out, grads = gradients([q, k, v], "triton")
    torch.testing.assert_close(out.double(), exact([q, k, v])[0], rtol=2e-3, atol=0.05)
    assert all(torch.isfinite(g).all() for g in grads)


def test_float16_gradients_of_scores_may_exceed_its_range():
    """This happens with loss scaling, while dQ and dK stay in range with small operands."""
    q, k, v = made((2, 3), 1, ck=16, cv=512)
    qkv = [x.detach().half().requires_grad_() for x in (q * 1e-2, k * 1e-3, v * 8)]
    expected = exact(qkv, 5000.0)
    largest = expected[1][0].abs().max()
    positions = 2 + 3 - 1
    assert largest / (positions * qkv[1].abs().max()) > torch.finfo(torch.float16).max
    assert max(errors(gradients(qkv, "triton", 5000.0), expected)) < TOLERANCE[torch.float16]


@pytest.mark.parametrize(
    "layout", ["contiguous", "channels_last", "transposed", "sliced", "sliced channels_last"]
)
def test_memory_layouts(layout):
    check([as_layout(x, layout) for x in made((2, 3))])


class Copies(TorchDispatchMode):
    """Count the elements that tensor operations copy."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("copy_", "clone", "_to_copy", "contiguous"):
            self.elements += args[0].numel()
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_kernels(_):
    """Replace the launches, because the interpreter copies all their arguments."""
    yield unittest.mock.MagicMock()


@pytest.mark.parametrize("layout", ["channels_last", "sliced channels_last"])
def test_maps_with_dense_channels_are_not_copied(layout, monkeypatch):
    monkeypatch.setattr(triton_ops, "_launching", no_kernels)
    q, k, v = (as_layout(x, layout).detach() for x in made((2, 3)))
    with Copies() as copies:
        out, lse = triton_ops._forward._init_fn(q, k, v)
        triton_ops._backward._init_fn(out, q, k, v, out, lse.zero_())
    assert copies.elements == 0


@pytest.mark.parametrize("form", ["expanded", "transposed"])
def test_gradients_of_any_layout(form):
    qkv = made((3, 4))
    grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).to(DEVICE).mT
    grad = grad.expand_as(qkv[2]) if form == "expanded" else grad.expand(2, 4, 3, 4) * 1
    expected = criss_cross_attention(*qkv, backend="reference")
    got = criss_cross_attention(*qkv, backend="triton")
    expected = torch.autograd.grad(expected, qkv, grad)
    for g, e in zip(torch.autograd.grad(got, qkv, grad), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-5)


def test_backward_differentiates_the_log_sum_exp_of_the_whole_cross():
    """Regression test: if the other axis has a constant log-sum-exp, dQ and dK are wrong."""
    qkv = made((3, 4))
    got, expected = gradients(qkv, "triton"), exact(qkv)
    assert max(errors(got, expected)) < TOLERANCE[torch.float32]
    grad = torch.randn(
        qkv[2].shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    for g, wrong in zip(got[1][:2], line_wise_gradients(*qkv, grad.to(qkv[2])), strict=True):
        assert (wrong - g).norm() > 0.1 * g.norm()


def test_two_runs_give_the_same_bits():
    qkv = made((2, 3), 1, ck=8, cv=8, dtype=torch.float16)
    (out, grads), (again, grads_again) = (gradients(qkv, "triton") for _ in range(2))
    assert torch.equal(out, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, grads_again, strict=True))


def test_saved_are_the_operands_the_output_and_one_number_per_position():
    q, k, v = made((2, 3), cv=16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        criss_cross_attention(q, k, v, backend="triton")
    assert sum(x.numel() for x in kept) == 2 * 6 * (3 + 3 + 16 + 16 + 1)


def test_operators_follow_the_rules_of_torch_library():
    qkv = made((1, 2))
    torch.library.opcheck(triton_ops._forward, tuple(qkv))
    plain = [x.detach() for x in qkv]
    out, lse = triton_ops._forward(*plain)
    torch.library.opcheck(triton_ops._backward, (out, *plain, out, lse))


def test_compiled_as_one_graph():
    def run(q, k, v):
        return criss_cross_attention(q * 2, k, v, backend="triton").sin()

    qkv = made((1, 3))
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(*qkv), run(*qkv))
