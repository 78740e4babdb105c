"""The Triton kernels on a GPU: the small cases of ``criss_cross_kernels.py``, and real sizes."""

import pytest
import torch
from support.criss_cross_cases import as_layout, errors, gradients, operands

from ccsa.ops import criss_cross_attention, use_backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

if torch.cuda.is_available():
    from support.criss_cross_kernels import *  # noqa: F403

# Against PyTorch in float64, of which the small cases are checked by the definition.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}
SIZES = [
    ((97, 97), 1, 64, 512),
    ((97, 97), 2, 64, 512),
    ((128, 256), 1, 64, 512),
    ((33, 300), 3, 20, 72),
    ((300, 33), 1, 20, 72),
    ((3, 700), 1, 64, 128),
    ((33, 200), 3, 16, 72),
    ((33, 40), 1, 8, 24),
    ((14, 14), 64, 32, 256),
    ((8, 28, 28), 1, 64, 512),
]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("size", "batch", "ck", "cv"), SIZES, ids=str)
def test_sizes_in_use(size, batch, ck, cv, dtype):
    qkv = operands(size, batch, ck, cv, dtype=dtype, scale=0.5, device="cuda")
    expected = gradients([x.detach().double().requires_grad_() for x in qkv], "torch")
    assert max(errors(gradients(qkv, "triton"), expected)) < TOLERANCES[dtype]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced channels_last"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_layouts_at_a_size_in_use(layout, dtype):
    plain = operands((65, 97), 2, 32, 256, dtype=dtype, scale=0.5, device="cuda")
    qkv = [as_layout(x, layout) for x in plain]
    expected = gradients([x.detach().double().requires_grad_() for x in qkv], "torch")
    got = gradients(qkv, "triton")
    assert got[0].stride() == torch.empty_like(qkv[2]).stride()
    assert max(errors(got, expected)) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("size", "batch", "ck", "cv"), SIZES[:3], ids=str)
def test_same_bits_every_time(size, batch, ck, cv, dtype):
    qkv = operands(size, batch, ck, cv, dtype=dtype, device="cuda")
    out, grads = gradients(qkv, "triton")
    for _ in range(5):
        again, grads_again = gradients(qkv, "triton")
        assert torch.equal(out, again)
        assert all(torch.equal(a, b) for a, b in zip(grads, grads_again, strict=True))


def test_triton_is_the_choice_on_cuda():
    qkv = operands((9, 11), ck=8, cv=16, dtype=torch.float16, device="cuda")
    with use_backend("triton"):
        expected = criss_cross_attention(*qkv)
    assert torch.equal(criss_cross_attention(*qkv), expected)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_with_inductor(dynamic):
    def run(q, k, v):
        return criss_cross_attention(q * 2, k, v).sin()

    compiled = torch.compile(run, fullgraph=True, dynamic=dynamic)
    for size in ((9, 11), (20, 7)):
        qkv = operands(size, ck=8, cv=16, dtype=torch.float32, device="cuda")
        torch.testing.assert_close(compiled(*qkv), run(*qkv))
        got = torch.autograd.grad(compiled(*qkv).sum(), qkv)
        expected = torch.autograd.grad(run(*qkv).sum(), qkv)
        for g, e in zip(got, expected, strict=True):
            torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-4)


def test_memory_is_linear_in_the_map():
    """No weights are in memory: those of a (128, 256) feature map in float32 would be 48 MiB."""
    qkv = [
        as_layout(x, "channels_last")
        for x in operands((128, 256), 1, 8, 16, dtype=torch.bfloat16, device="cuda")
    ]
    gradients(qkv, "triton")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    criss_cross_attention(*qkv, backend="triton").sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 24 * 2**20
