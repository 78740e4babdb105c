"""The choice of the backend, requests by name, and the messages for backends that cannot run."""

import logging
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from support.criss_cross_cases import gradients, operands
from torch.autograd import forward_ad

from ccsa.errors import UserError
from ccsa.ops import criss_cross_attention, use_backend
from ccsa.ops.criss_cross import (
    can_run_export,
    can_run_reference,
    can_run_tiled,
    can_run_torch,
    can_run_triton,
    dispatch,
    tiled,
)


@pytest.fixture(autouse=True)
def no_request(monkeypatch):
    monkeypatch.delenv("CCSA_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def ran(monkeypatch):
    """Return the list that collects the names of the backends that run."""
    names = []
    for name in dispatch.BACKENDS:

        def attention(q, k, v, name=name):
            names.append(name)
            return v

        monkeypatch.setitem(dispatch.BACKENDS, name, attention)
    return names


def on_gpu(dtype, axes):
    """Return an object with the attributes of a CUDA tensor that the predicates read."""
    return SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype, dim=lambda: 2 + axes)


def test_keyword_goes_before_the_manager_before_the_environment(ran, monkeypatch):
    qkv = operands((2, 3))
    criss_cross_attention(*qkv)
    monkeypatch.setenv("CCSA_BACKEND", "reference")
    criss_cross_attention(*qkv)
    with use_backend("tiled"):
        criss_cross_attention(*qkv)
        with use_backend("reference"):
            criss_cross_attention(*qkv)
            criss_cross_attention(*qkv, backend="tiled")
        criss_cross_attention(*qkv)
    criss_cross_attention(*qkv)
    assert ran == ["tiled", "reference", "tiled", "reference", "tiled", "tiled", "reference"]


def test_former_names_of_backends_still_work(ran, monkeypatch):
    qkv = operands((2, 3))
    criss_cross_attention(*qkv, backend="torch")
    with use_backend("torch"):
        criss_cross_attention(*qkv)
        assert dispatch.requested_backend(None) == ("use_backend", "tiled")
    monkeypatch.setenv("CCSA_BACKEND", "torch")
    criss_cross_attention(*qkv)
    assert ran == ["tiled"] * 3 and can_run_torch is can_run_tiled


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("source", ["keyword", "manager", "environment"])
@pytest.mark.parametrize("name", ["reference", "tiled", "export"])
def test_every_backend_can_be_requested_by_name(name, source, size, monkeypatch):
    qkv = operands(size)
    expected, expected_grads = gradients(qkv, "reference")
    called = []
    attention = dispatch.BACKENDS[name]
    monkeypatch.setitem(
        dispatch.BACKENDS, name, lambda *qkv: called.append(name) or attention(*qkv)
    )
    if source == "keyword":
        out, grads = gradients(qkv, name)
    elif source == "manager":
        with use_backend(name):
            out, grads = gradients(qkv)
    else:
        monkeypatch.setenv("CCSA_BACKEND", name)
        out, grads = gradients(qkv)
    assert called == [name]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=1e-12)


def test_compiled_code_rejects_an_unknown_backend():
    def run(*qkv):
        return criss_cross_attention(*qkv, backend="cuda")

    torch._dynamo.reset()
    with pytest.raises(Exception, match="backend: unknown backend 'cuda'; available: triton"):
        torch.compile(run, backend="eager", fullgraph=True)(*operands((2, 3)))


def test_a_manager_ends_with_an_error_too(ran):
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    criss_cross_attention(*operands((2, 3)))
    assert ran == ["tiled"]


def test_managers_of_two_threads_end_in_any_order(ran):
    first, second = use_backend("reference"), use_backend("tiled")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    criss_cross_attention(*operands((2, 3)))
    second.__exit__(None, None, None)
    assert ran == ["tiled"] and not dispatch._managers


def test_unknown_backends_are_named_with_who_asked_and_the_valid_ones(monkeypatch):
    qkv = operands((2, 3))
    valid = "'cuda'; available: triton, tiled, export, reference"
    with pytest.raises(ValueError, match=f"^backend: unknown backend {valid}"):
        criss_cross_attention(*qkv, backend="cuda")
    with pytest.raises(ValueError, match=f"^use_backend: .*{valid}"), use_backend("cuda"):
        pass
    monkeypatch.setenv("CCSA_BACKEND", "cuda")
    with pytest.raises(ValueError, match=f"^CCSA_BACKEND: .*{valid}"):
        criss_cross_attention(*qkv)


@pytest.mark.parametrize(
    ("size", "dtype", "words"),
    [
        ((2, 1, 1, 3), torch.float32, "feature maps of up to 3 axes, not 4"),
        ((2, 3), torch.float32, "needs CUDA .*, and the tensors are on cpu"),
    ],
)
def test_a_refusal_says_why_and_what_can_run(size, dtype, words, monkeypatch):
    monkeypatch.setattr(dispatch, "TRITON", (3, 6))
    qkv = operands(size, dtype=dtype)
    assert not can_run_triton(*qkv) and can_run_tiled(*qkv)
    assert can_run_export(*qkv) and can_run_reference(*qkv)
    able = "tiled, export, reference"
    with pytest.raises(UserError, match=f"'triton' cannot run: .*{words}.* {able}$"):
        criss_cross_attention(*qkv, backend="triton")


def test_types_that_no_backend_computes_are_listed():
    qkv = [x.to(torch.float8_e4m3fn) for x in operands((2, 3))]
    types = "torch.float16, torch.bfloat16, torch.float32, torch.float64, not torch.float8_e4m3fn"
    with pytest.raises(UserError, match=f"'tiled' cannot run: it computes {types}"):
        criss_cross_attention(*qkv, backend="tiled")
    with pytest.raises(UserError, match=r"no backend can compute torch\.float8"):
        criss_cross_attention(*qkv)


def test_what_cuda_tensors_get(monkeypatch):
    monkeypatch.setattr(dispatch, "TRITON", (3, 6))
    for major, dtype, axes, name in [
        (9, torch.bfloat16, 2, "triton"),
        (8, torch.float32, 3, "triton"),
        (7, torch.float16, 2, "tiled"),
        (9, torch.float64, 2, "tiled"),
        (9, torch.float16, 4, "tiled"),
    ]:
        x = on_gpu(dtype, axes)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, m=major: (m, 5))
        assert dispatch.choose(None, x, x, x) is dispatch.BACKENDS[name]
    x = on_gpu(torch.float16, 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ValueError, match=r"compute capability 8.0, and cuda:0 has 7.5"):
        dispatch.choose("triton", x, x, x)


@pytest.mark.parametrize(
    ("version", "words"), [((3, 3), "needs Triton 3.4, .* 3.3 is installed"), (None, "pip install")]
)
def test_triton_that_is_old_or_absent_is_left_alone(monkeypatch, version, words):
    monkeypatch.setattr(dispatch, "TRITON", version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    x = on_gpu(torch.float16, 2)
    assert dispatch.choose(None, x, x, x) is dispatch.BACKENDS["tiled"]
    with pytest.raises(ValueError, match=words):
        dispatch.choose("triton", x, x, x)


def test_the_capability_is_a_constant_to_the_compiler(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))

    def run(x):
        return x * dispatch._capability(x.device.index)[0]

    run = torch.compile(run, backend="eager", fullgraph=True)
    assert run(torch.ones(2)).tolist() == [9, 9]


def test_types_that_nobody_computes_are_refused():
    qkv = [x.detach().to(torch.float8_e4m3fn) for x in operands((2, 3))]
    with pytest.raises(
        ValueError,
        match=r"no backend can compute .*float8.* on cpu \([^{]*; tiled, export, reference: it "
        r"computes torch\.float16, [^{]*\); convert",
    ):
        criss_cross_attention(*qkv)


def test_the_interpreter_does_not_take_over_the_cpu(ran, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(dispatch, "TRITON", (3, 6))
    qkv = operands((2, 3), dtype=torch.float32)
    criss_cross_attention(*qkv)
    assert ran == ["tiled"] and can_run_triton(*qkv)


def test_the_choice_is_logged_once(caplog):
    dispatch._log.cache_clear()
    qkv = operands((2, 3))
    with caplog.at_level(logging.INFO, "ccsa"):
        for _ in range(3):
            criss_cross_attention(*qkv)
        criss_cross_attention(*qkv, backend="reference")
    assert [r.getMessage() for r in caplog.records] == [
        "criss-cross attention uses the backend 'tiled' (cpu, float64)"
    ]


def test_without_triton_only_asking_for_it_fails(root):
    program = """
import sys
sys.modules["triton"] = None  # as where it is not installed: importing it fails
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "triton" else real(name, *a)
import torch
from ccsa.ops import criss_cross_attention
qkv = torch.randn(3, 1, 2, 3, 4).unbind()
criss_cross_attention(*qkv)
try:
    criss_cross_attention(*qkv, backend="triton")
except ValueError as e:
    assert "pip install triton" in str(e), e
else:
    raise AssertionError
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(root / "projects")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def through_an_outer_level(attention, q, k, v, dq):
    one = torch.ones((), dtype=q.dtype)

    def inner(q):
        return torch.func.jvp(lambda scale: attention(q, k, v) * scale, (one,), (one,))[0]

    return torch.func.jvp(inner, (q,), (dq,))[1]


def of_gradients(attention, q, k, v, dq):
    """Only the gradient of the output has a tangent."""
    q = q.clone().requires_grad_()
    with forward_ad.dual_level():
        weight = forward_ad.make_dual(v, v + 1)
        grad = torch.autograd.grad((attention(q, k, v) * weight).sum(), q)[0]
        return forward_ad.unpack_dual(grad).tangent


def of_a_batch(attention, q, k, v, dq):
    many = [torch.stack([x, 2 * x]) for x in (q, k, v, dq)]
    mapped = torch.func.vmap(lambda q: attention(q, k, v))
    return torch.func.jvp(mapped, (many[0],), (many[3],))[1]


def compiled(attention, q, k, v, dq):
    torch._dynamo.reset()

    def derivative(q, dq):
        return torch.func.jvp(lambda q: attention(q, k, v), (q,), (dq,))[1]

    return torch.compile(derivative, fullgraph=True, backend="aot_eager")(q, dq)


@pytest.mark.parametrize("case", [through_an_outer_level, of_gradients, of_a_batch, compiled])
def test_forward_mode_derivatives_are_right_or_refused(case):
    qkv = [x.detach() for x in operands((2, 3))]
    dq = torch.randn_like(qkv[0])
    got = case(criss_cross_attention, *qkv, dq)
    wanted = case(partial(criss_cross_attention, backend="reference"), *qkv, dq)
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(got, wanted)
    able = "can run: export, reference"
    with pytest.raises(Exception, match=f"'tiled' cannot run: .*forward-mode.*{able}"):
        case(partial(criss_cross_attention, backend="tiled"), *qkv, dq)


def test_compiled_code_calls_the_operator():
    """It does not use the operations of exported programs, which keep all weights in memory."""
    called = []

    def backend(graph, inputs):
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch._dynamo.reset()
    torch.compile(criss_cross_attention, fullgraph=True, backend=backend)(*operands((2, 3)))
    assert any("ccsa.criss_cross_forward" in name for name in called)


def test_operators_follow_the_rules_of_torch_library():
    qkv = operands((2, 3))
    torch.library.opcheck(tiled._forward, tuple(qkv))
    plain = [x.detach() for x in qkv]
    out, lse = tiled._forward(*plain)
    delta = tiled._delta(out, out)
    torch.library.opcheck(tiled._backward, (out, *plain, lse, delta))


@pytest.mark.parametrize("name", [[], {}, 3])
def test_a_backend_is_requested_by_a_string(name):
    qkv = operands((2, 3))
    with pytest.raises(UserError, match=r"backend must be the name of a backend, not .*available"):
        criss_cross_attention(*qkv, backend=name)
    with pytest.raises(UserError, match="use_backend must be the name"), use_backend(name):
        pass


@pytest.mark.parametrize("operand", [torch.zeros(()), torch.zeros(3), torch.zeros(2, 3), 3, None])
def test_operands_are_feature_maps(operand):
    q, k, v = operands((2, 3))
    for name, qkv in (("query", (operand, k, v)), ("value", (q, k, operand))):
        with pytest.raises(UserError, match=rf"{name} must be (a tensor )?\(B, C, \*S\)"):
            criss_cross_attention(*qkv)
