"""Criss-cross attention compared with the dense reference, which is compared with a loop over
positions."""

import pytest
import torch
from support.criss_cross_cases import (
    as_layout,
    errors,
    exact,
    gradients,
    line_wise_gradients,
    operands,
)

from benchmarks.peers import official_attention
from ccsa.ops import criss_cross_attention, criss_cross_weights

SIZES = [(5, 7), (7, 5), (1, 6), (6, 1), (1, 1), (3, 4, 5), (1, 4, 1), (2, 1, 3), (1, 1, 1)]
LAYOUTS_OF_GRADIENTS = {
    "contiguous": lambda x: x,
    "channels-last": lambda x: as_layout(x, "channels_last"),
    "transposed": lambda x: as_layout(x, "transposed"),
    "cropped": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "one number": lambda x: x[(0,) * x.dim()].expand(x.shape),  # of a sum
    "one channel": lambda x: x[:, :1].expand(x.shape),
    "one position": lambda x: x[..., :1].expand(x.shape),
}


def use_small_tiles(monkeypatch, size):
    """Set the bytes of a tile, with one thread, because each thread gets rows of its own."""
    monkeypatch.setattr("ccsa.ops.criss_cross.tiled.TILE_BYTES", (size, size))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def at(x, position):
    """Return the features (C,) of the first image at a position."""
    return x[(0, slice(None), *position)]


@pytest.mark.parametrize("size", [(3, 4), (1, 3), (2, 3, 2)])
def test_reference_is_a_softmax_over_the_cross_of_each_position(size):
    q, k, v = operands(size, batch=1)
    out = criss_cross_attention(q, k, v, backend="reference")
    positions = list(torch.cartesian_prod(*(torch.arange(n) for n in size)).tolist())
    for u in positions:
        cross = [p for p in positions if sum(a != b for a, b in zip(p, u, strict=True)) <= 1]
        assert len(cross) == sum(size) - len(size) + 1
        scores = torch.stack([at(q, u) @ at(k, p) for p in cross])
        values = torch.stack([at(v, p) for p in cross])
        torch.testing.assert_close(at(out, u), scores.softmax(0) @ values)


@pytest.mark.parametrize("batch", [2, 1, 0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_output_and_gradients_agree_with_the_reference(size, batch):
    qkv = operands(size, batch)
    out, grads = gradients(qkv)
    expected, expected_grads = gradients(qkv, "reference")
    assert out.shape == qkv[2].shape
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for grad, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "sliced"])
@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5)], ids=str)
def test_memory_layouts_agree_and_are_kept(size, layout):
    plain = operands(size)
    qkv = [as_layout(x, layout) for x in plain]
    out, grads = gradients(qkv)
    expected, expected_grads = gradients(plain, "reference")
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for grad, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-12)
    assert out.stride() == torch.empty_like(qkv[2]).stride()


@pytest.mark.parametrize("lies", LAYOUTS_OF_GRADIENTS.values(), ids=LAYOUTS_OF_GRADIENTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("ck", "cv"), [(1, 4), (3, 1), (1, 1)])
@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5)], ids=str)
def test_one_channel_in_several_tiles(size, ck, cv, batch, lies, monkeypatch):
    """The strides of an axis of size 1 are arbitrary, also those of the results."""
    use_small_tiles(monkeypatch, 1)
    qkv = operands(size, batch, ck=ck, cv=cv)
    grad = lies(torch.randn(qkv[2].shape, dtype=torch.float64))
    out, wanted = (criss_cross_attention(*qkv, backend=b) for b in (None, "reference"))
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-12)
    got, wanted = (torch.autograd.grad(x, qkv, grad) for x in (out, wanted))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lies", LAYOUTS_OF_GRADIENTS.values(), ids=LAYOUTS_OF_GRADIENTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(5, 7), (1, 7), (5, 1), (3, 4, 5)], ids=str)
def test_gradients_of_the_output_may_lie_anywhere(size, batch, lies, monkeypatch):
    use_small_tiles(monkeypatch, 1500)
    qkv = operands(size, batch)
    grad = lies(torch.randn(qkv[2].shape, dtype=torch.float64))
    got, wanted = (
        torch.autograd.grad(criss_cross_attention(*qkv, backend=backend), qkv, grad)
        for backend in (None, "reference")
    )
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("size", [(5, 7), (3, 4, 5)], ids=str)
def test_scores_of_any_size_neither_overflow_nor_vanish(size, shift):
    """Scores are up to 1e5, so most weights are 0, and some axes contribute almost nothing."""
    q, k, v = operands(size, ck=8, scale=60.0)
    operands_ = [(x.detach() + 60 * shift).requires_grad_() for x in (q, k)] + [v]
    out, grads = gradients(operands_)
    expected, expected_grads = gradients(operands_, "reference")
    for got, wanted in zip((out, *grads), (expected, *expected_grads), strict=True):
        largest = wanted.abs().max().item()
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9 * max(1.0, largest))


@pytest.mark.parametrize(("mean", "bound"), [(1.0, 1e-5), (12.0, 1.5e-3), (40.0, 2e-2)])
def test_scores_far_from_zero_cost_no_more_than_their_own_rounding(mean, bound):
    """The float32 scores are around 16 * mean ** 2, and rounded to 1e-7 of that."""
    q, k, v = operands((33, 29), ck=16, cv=32, dtype=torch.float32)
    shifted = [(x.detach() + mean).requires_grad_() for x in (q, k)] + [v]
    out, grads = gradients(shifted)
    expected, expected_grads = exact(shifted)
    for got, wanted in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert (got.double() - wanted).norm() <= bound * wanted.norm()


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 6e-2), (torch.float16, 8e-3)],
    ids=str,
)
@pytest.mark.parametrize("size", [(6, 9), (3, 4, 5)], ids=str)
def test_types(size, dtype, tolerance):
    qkv = operands(size, dtype=dtype, ck=8, cv=8)
    out, grads = gradients(qkv)
    expected, expected_grads = exact(qkv)
    assert out.dtype == dtype
    for got, wanted in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert got.dtype == dtype
        error = (got.double() - wanted).abs().max() / wanted.abs().max()
        assert error < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gradients_are_as_exact_as_autograds(dtype):
    """They are differences of large numbers, which must not be rounded before the subtraction."""
    qkv = operands((9, 9), dtype=dtype, ck=8, cv=64)
    expected = exact(qkv)
    ours = errors(gradients(qkv), expected)
    theirs = errors(gradients(qkv, attention=official_attention), expected)
    assert all(mine < 1.2 * other for mine, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_gradients_under_autocast_are_those_without():
    qkv = operands((6, 5), dtype=torch.float32, ck=8, cv=32)
    out = criss_cross_attention(*qkv)
    wanted = torch.autograd.grad(out, qkv, out.detach(), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.autograd.grad(out, qkv, out.detach())
    assert all(torch.equal(g, w) for g, w in zip(got, wanted, strict=True))


def test_weights_under_autocast_have_float32_scores():
    q, k, _ = operands((4, 5), ck=16, dtype=torch.float32, scale=200.0)
    wanted = criss_cross_weights(q, k)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(criss_cross_weights(q, k), wanted)


@pytest.mark.parametrize("tile", [1, 1500, 4000])
@pytest.mark.parametrize("size", [(5, 7), (2, 6, 3)], ids=str)
def test_tiles_of_any_size_give_the_same(size, tile, monkeypatch):
    """A tile has one row, some rows of one outer index, or all rows of several outer indices."""
    use_small_tiles(monkeypatch, tile)
    qkv = operands(size, batch=3)
    out, grads = gradients(qkv)
    expected, expected_grads = gradients(qkv, "reference")
    for got, wanted in zip((out, *grads), (expected, *expected_grads), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_float16_scores_may_exceed_its_range():
    q, k, v = operands((4, 5), ck=16, dtype=torch.float16, scale=200.0)
    assert (q.float() * k.float()).sum(1).abs().max() > torch.finfo(torch.float16).max
    out, grads = gradients([q, k, v])
    expected, _ = exact((q, k, v))
    assert all(torch.isfinite(g).all() for g in grads)
    torch.testing.assert_close(out.double(), expected, rtol=2e-3, atol=0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_takes_operands_of_several_types(dtype):
    q, k, v = operands((5, 6), ck=8, dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        out = criss_cross_attention(q.to(dtype), k, v)
        out.float().sum().backward()
    assert out.dtype == dtype
    assert q.grad.dtype == torch.float32
    expected = criss_cross_attention(q, k, v, backend="reference")
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=6e-2)


@pytest.mark.parametrize("size", [(3, 4), (1, 3), (2, 3, 2)], ids=str)
def test_gradcheck(size):
    assert torch.autograd.gradcheck(criss_cross_attention, operands(size))


def test_backward_differentiates_the_log_sum_exp_of_the_whole_cross():
    """Regression test: if the other axis has a constant log-sum-exp, dQ and dK are wrong."""
    qkv = operands((6, 8))
    _, got = gradients(qkv)
    _, expected = gradients(qkv, "reference")
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-12)
    grad = torch.randn(
        qkv[2].shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    for g, wrong in zip(got[:2], line_wise_gradients(*qkv, grad), strict=True):
        assert (wrong - g).norm() > 0.1 * g.norm()


def test_published_outputs_and_gradients(vectors):
    import numpy as np

    from ccsa.blocks import CrissCross

    data = np.load(vectors / "criss_cross_2d.npz")
    cases = sorted({name.split("/")[0] for name in data.files})
    assert cases
    for case in cases:
        x = torch.from_numpy(data[f"{case}/x"]).requires_grad_()
        prefix = f"{case}/param/"
        state = {
            n.removeprefix(prefix): torch.from_numpy(np.asarray(data[n])).reshape(-1)
            if n.endswith("gamma")
            else torch.from_numpy(data[n])
            for n in data.files
            if n.startswith(prefix)
        }
        channels = x.shape[1]
        block = CrissCross(
            channels,
            recurrence=int(data[f"{case}/recurrence"]),
            reduction=channels // len(state["query_conv.bias"]),
        ).double()
        block.load_state_dict(state)
        assert block.gamma.item() == pytest.approx(0.7)
        y = block(x)
        (y * torch.from_numpy(data[f"{case}/grad_y"])).sum().backward()
        grads = {f"grad_param/{n}": p.grad for n, p in block.named_parameters()}
        for name, got in {"y": y, "grad_x": x.grad, **grads}.items():
            wanted = torch.from_numpy(np.asarray(data[f"{case}/{name}"])).reshape(got.shape)
            # Three loops give gradients of up to 1e4, so the bound is relative to the largest;
            # that of the key bias is 0, the rest of numbers of that size.
            error = (got - wanted).abs().max() / max(1.0, wanted.abs().max().item())
            assert error < 1e-10, f"{case}/{name}"


def test_backward_keeps_operands_output_and_one_number_per_position():
    q, k, v = operands((16, 24), batch=2, ck=4, cv=32, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        criss_cross_attention(q, k, v)
    per_position = 4 + 4 + 32 + 32 + 1
    assert sum(x.numel() for x in kept) == 2 * 16 * 24 * per_position
    assert {x.data_ptr() for x in kept} >= {x.data_ptr() for x in (q, k, v)}


def test_channels_last_maps_are_not_copied():
    from torch.utils._python_dispatch import TorchDispatchMode

    from ccsa.ops.criss_cross import tiled

    class Copies(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ in ("copy_", "clone", "_to_copy", "contiguous"):
                self.elements += args[0].numel()
            return out

    qkv = [as_layout(x, "channels_last") for x in operands((9, 11), 1, dtype=torch.float32)]
    with Copies() as copies:
        out, lse = tiled._forward._init_fn(*(x.detach() for x in qkv))
        delta = tiled._delta(out, out)
        tiled._backward._init_fn(out, *(x.detach() for x in qkv), lse, delta)
    assert copies.elements <= 4 * lse.numel()  # per position, never per channel


@pytest.mark.slow
def test_compiled_with_inductor():
    qkv = operands((5, 6), ck=8, dtype=torch.float32)

    def run(q, k, v):
        return criss_cross_attention(q * 2, k, v).sin()

    compiled = torch.compile(run, fullgraph=True)
    out, expected = compiled(*qkv), run(*qkv)
    torch.testing.assert_close(out, expected)
    for got, wanted in zip(
        torch.autograd.grad(out.sum(), qkv), torch.autograd.grad(expected.sum(), qkv), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (1, 3), (2, 3, 4)], ids=str)
def test_weights_are_those_of_the_attention(size):
    q, k, v = operands(size)
    weights = criss_cross_weights(q, k)
    assert weights.shape == (2, *size, sum(size))
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    out = torch.zeros_like(v)
    for axis, along in enumerate(weights.split(size, -1)):
        lines = v.movedim(2 + axis, -1)  # (B, C, *others, L)
        moved = along.movedim(1 + axis, -2)  # (B, *others, L, L)
        out += torch.einsum("b...ij,bc...j->bc...i", moved, lines).movedim(-1, 2 + axis)
    torch.testing.assert_close(out, criss_cross_attention(q, k, v))
    own = weights.split(size, -1)
    for along, axis in zip(own[:-1], range(len(size) - 1), strict=True):
        assert along.movedim(1 + axis, -2).diagonal(dim1=-2, dim2=-1).abs().max() == 0


@pytest.mark.parametrize(
    ("shapes", "dtypes", "words"),
    [
        (((2, 3, 4), (2, 3, 4), (2, 3, 5)), None, "one batch"),
        (((2, 3, 4, 4), (2, 2, 4, 4), (2, 3, 4, 4)), None, "one batch"),
        (((2, 3), (2, 3), (2, 3)), None, "spatial size"),
        (((2, 3, 0, 4), (2, 3, 0, 4), (2, 3, 0, 4)), None, "only the batch"),
        (((2, 3, 4, 4),) * 3, (torch.float32, torch.float64, torch.float32), "one dtype"),
        (((2, 3, 4, 4),) * 3, (torch.int64,) * 3, "floating point"),
    ],
)
def test_operands_that_do_not_go_together_are_refused(shapes, dtypes, words):
    dtypes = dtypes or (torch.float32,) * 3
    tensors = [torch.zeros(s, dtype=d) for s, d in zip(shapes, dtypes, strict=True)]
    with pytest.raises(ValueError, match=words):
        criss_cross_attention(*tensors)


def test_unknown_backend_lists_the_valid_ones():
    with pytest.raises(ValueError, match="triton, tiled, export, reference"):
        criss_cross_attention(*operands((2, 2)), backend="cuda")


def test_shapes_without_data_on_the_meta_device():
    q, k, v = (x.to("meta").detach().requires_grad_() for x in operands((5, 7)))
    out = criss_cross_attention(q, k, v)
    assert out.device.type == "meta" and out.shape == v.shape
    out.sum().backward()
    assert q.grad.shape == q.shape
