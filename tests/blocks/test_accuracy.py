"""Every block against float64, over data types, scales, sizes and backends; and what it rejects."""

import logging

import pytest
import torch
from torch import nn

from benchmarks.accuracy import BLOCKS, DTYPES, bound, bounds_table, measure
from ccsa.blocks import CrissCross, NonLocal, SqueezeAttention, SqueezeExcitation
from ccsa.errors import UserError
from ccsa.ops.criss_cross import precision
from ccsa.ops.criss_cross.precision import needs_float64

SIZES = [(5, 7), (1, 4), (4, 1), (1, 1), (2, 3, 4)]
SCALES = [1.0, 10.0, 1e2, 3e2, 1e3, 1e4, 6e4]
KINDS = [CrissCross, NonLocal, SqueezeAttention, SqueezeExcitation]


@pytest.fixture
def warnings(monkeypatch, caplog):
    """The warnings of large scores, as if none had been given in this process."""
    monkeypatch.setattr(precision, "_warned", False)
    monkeypatch.setattr(precision, "_calls", 0)
    caplog.set_level(logging.WARNING, logger=precision.logger.name)
    return lambda: [r.getMessage() for r in caplog.records if r.name == precision.logger.name]


def opened(kind, channels=16, **keywords):
    torch.manual_seed(0)
    block = kind(channels, **keywords)
    nn.init.ones_(block.gamma)
    return block


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BLOCKS)
def test_errors_are_below_the_documented_bounds(name, dtype):
    spec, checked = BLOCKS[name], 0
    attention = spec["name"] in ("CrissCross", "NonLocal")
    backends = ["tiled", "export"] if spec["name"] == "CrissCross" else [None]
    for scale in SCALES:
        limit = bound(spec["name"], dtype, scale)
        if limit is None:
            assert dtype == "float16" and scale > 1e3
            continue
        for size in SIZES if attention else SIZES[:-1]:
            for backend in backends:
                errors = measure(spec, size, DTYPES[dtype], scale, backend)
                positions = torch.Size(size).numel()
                assert not limit.broken_by(errors, positions), (scale, size, backend, errors)
                checked += 1
    assert checked >= 16


def test_the_documentation_has_the_bounds(root):
    assert bounds_table() in (root / "docs/OPS.md").read_text()


@pytest.mark.parametrize("recurrence", [1, 2])
def test_a_compiled_block_has_the_errors_of_float32(recurrence):
    """It cannot choose float64 by the values. Its backward pass can, because it is an operator."""
    spec = {"name": "CrissCross", "recurrence": recurrence}
    for scale in (1.0, 1e3, 1e4):
        torch._dynamo.reset()
        errors = measure(
            spec, (5, 7), torch.float32, scale,
            transform=lambda block: torch.compile(block, backend="aot_eager", fullgraph=True),
        )  # fmt: skip
        assert max(errors[:3]) < 1e-4, (scale, errors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["CrissCross R=2", "NonLocal"])
def test_autocast_has_the_errors_of_float64_where_scores_are_large(name, dtype):
    for scale in (1e3, 1e4, 6e4):  # the projections exceed the range of float16
        errors = measure(BLOCKS[name], (5, 7), dtype, scale, autocast=True)
        assert max(errors[:2]) < 1e-5 and errors.layers < 1e-2, (scale, errors)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_gate_changes_no_bit_at_any_scale(kind, dtype):
    block, x = kind(16).to(dtype), (1e4 * torch.randn(2, 16, 5, 7)).to(dtype)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_large_scores_give_the_same_bits_every_time(checkpoint):
    block = opened(CrissCross, checkpoint=checkpoint).train()
    x = (1e3 * torch.randn(2, 16, 5, 7)).requires_grad_()
    runs = []
    for _ in range(2):
        y = block(x)
        runs.append((y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert runs[0][0].dtype == torch.float32


def test_half_precision_warns_once_of_large_scores(warnings):
    block, x = opened(CrissCross).half(), torch.randn(1, 16, 5, 7).half()
    block(x)
    assert not warnings()
    for _ in range(3):
        block(300 * x)
    (text,) = warnings()
    assert "above 256, gradients may exceed the range of float16" in text and "OPS.md" in text


def test_bfloat16_on_the_cpu_needs_no_warning(warnings):
    block, x = opened(NonLocal).bfloat16(), 300 * torch.randn(1, 16, 5, 7).bfloat16()
    block(x)
    assert not warnings()


def test_a_gpu_looks_at_few_calls_in_half_precision(monkeypatch, warnings):
    looked = []
    monkeypatch.setattr(precision, "score_bound", lambda q, k: looked.append(0) or 1e3)
    monkeypatch.setattr(precision, "_values_are_known", lambda x: True)

    class OnGpu:
        device, dtype, numel = torch.device("cuda"), torch.bfloat16, lambda self: 1

    assert not any(needs_float64(OnGpu(), OnGpu()) for _ in range(20))
    assert len(looked) == 1 and "bfloat16 loses accuracy" in warnings()[0]
    monkeypatch.setattr(precision, "_warned", False)
    monkeypatch.setattr(precision, "score_bound", lambda q, k: looked.append(0) or 1.0)
    monkeypatch.setattr(precision, "_calls", 0)
    assert not any(needs_float64(OnGpu(), OnGpu()) for _ in range(20))
    assert len(looked) == 1 + 5  # calls 1, 2, 4, 8 and 16


def test_nan_and_infinity_are_not_hidden():
    for value in (torch.nan, torch.inf):
        x = torch.randn(1, 16, 3, 4)
        x[0, 0, 1, 1] = value
        for kind in (CrissCross, NonLocal):
            assert not opened(kind)(x).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_are_not_floating_point_are_rejected(kind):
    block = kind(16)
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        words = f"{kind.__name__} computes floating-point features, but x is {dtype}"
        with pytest.raises(UserError, match=words):
            block(torch.ones(1, 16, 3, 4).to(dtype))


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_feature_map_without_positions(kind, size):
    block, x = opened(kind), torch.randn(2, 16, *size, requires_grad=True)
    if kind is not SqueezeExcitation:
        with pytest.raises(UserError, match=f"{kind.__name__} needs at least one position"):
            block(x)
        return
    y = block(x)
    y.sum().backward()
    assert y.shape == x.shape == x.grad.shape
    assert all(weight.grad.eq(0).all() for weight in block.parameters())


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_agrees_with_float64(kind, scale):
    block, x = opened(kind), scale * torch.randn(1, 16, 3, 4)
    tangent = torch.randn(x.shape)
    got = torch.func.jvp(block, (x,), (tangent,))[1]
    expected = torch.func.jvp(block.double(), (x.double(),), (tangent.double(),))[1]
    assert (got - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_torch_func(kind):
    block, x = opened(kind), torch.randn(1, 16, 3, 4, requires_grad=True)
    got = torch.func.grad(lambda x: block(x).square().sum())(x.detach())
    expected = torch.autograd.grad(block(x).square().sum(), x)[0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def second_derivative(block, x):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), x)[0]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_second_derivatives(kind):
    block, x = opened(kind).double(), torch.randn(1, 16, 2, 3, dtype=torch.float64)
    step, direction = 1e-6, torch.randn(x.shape, dtype=torch.float64)

    def squares(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(block(x).square().sum(), x)[0].square().sum()

    slope = (squares(x + step * direction) - squares(x - step * direction)) / (2 * step)
    got = (second_derivative(block, x) * direction).sum()
    torch.testing.assert_close(got, slope, rtol=1e-4, atol=1e-4)


def test_second_derivatives_of_criss_cross_need_the_backend_export():
    from ccsa.ops import use_backend

    block, x = opened(CrissCross), torch.randn(1, 16, 2, 3)
    with pytest.raises(UserError, match="second derivatives with the backends 'export'"):
        second_derivative(block, x)
    with use_backend("export"):
        got = second_derivative(block, x)
    with use_backend("reference"):
        torch.testing.assert_close(got, second_derivative(block, x), rtol=1e-3, atol=1e-3)


def test_programs_that_do_not_know_the_values_stay_in_float32():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    x = 1e3 * torch.randn(1, 16, 3, 4)
    assert needs_float64(x, x)
    seen = []
    torch.func.vmap(lambda q: seen.append(needs_float64(q[None], q[None])) or q)(x)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
        seen.append(needs_float64(fake, fake))
    make_fx(lambda q: seen.append(needs_float64(q, q)) or q)(x)
    torch.jit.trace(lambda q: seen.append(needs_float64(q, q)) or q, x, check_trace=False)
    assert seen and not any(seen)
    outer = []
    torch.func.grad(lambda q: outer.append(needs_float64(q, q)) or q.sum())(x)
    assert outer == [True]
