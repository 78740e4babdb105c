"""Criss-cross attention in compiled, exported and ONNX programs, at any size."""

import importlib.util

import pytest
import torch
from support.criss_cross_cases import operands
from torch import nn

from ccsa.blocks import CrissCross
from ccsa.ops import criss_cross_attention, use_backend

ONNX = ("onnx", "onnxscript", "onnxruntime")


class Attention(nn.Module):
    def forward(self, q, k, v):
        return criss_cross_attention(q, k, v)


def at(size, batch=2, dtype=torch.float32):
    return [x.detach() for x in operands(size, batch, ck=8, cv=16, dtype=dtype)]


def dynamic(axes):
    """Return dynamic shapes of all sizes and the batch, for query, key and value."""
    names = ("t", "h", "w")[-axes:]
    dims = {0: torch.export.Dim("b"), **{2 + i: torch.export.Dim(n) for i, n in enumerate(names)}}
    return (dims,) * 3


def test_compiled_once_for_all_sizes():
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(Attention(), backend=count, fullgraph=True, dynamic=True)
    for size in ((5, 6), (9, 4), (7, 7)):
        torch.testing.assert_close(compiled(*at(size)), Attention()(*at(size)))
    assert len(graphs) == 1


def test_compiled_gradients_at_another_size():
    compiled = torch.compile(Attention(), backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((5, 6), (9, 4)):
        qkv = operands(size, ck=8, dtype=torch.float32)
        got = torch.autograd.grad(compiled(*qkv).sin().sum(), qkv)
        expected = torch.autograd.grad(Attention()(*qkv).sin().sum(), qkv)
        for g, e in zip(got, expected, strict=True):
            torch.testing.assert_close(g, e)


def test_compiled_code_follows_use_backend():
    compiled = torch.compile(Attention(), backend="eager", fullgraph=True)
    qkv = at((4, 5))
    compiled(*qkv)
    with use_backend("triton"), pytest.raises(Exception, match="use_backend 'triton' cannot run"):
        compiled(*qkv)
    compiled(*qkv)


@pytest.mark.parametrize(
    ("size", "strict", "others"),
    [((5, 6), True, [(9, 4), (1, 1)]), ((2, 3, 4), False, [(3, 5, 2), (1, 1, 3)])],
    ids=str,
)
def test_exported_programs_need_no_operator_of_this_library(size, strict, others):
    program = torch.export.export(
        Attention(), tuple(at(size)), dynamic_shapes=dynamic(len(size)), strict=strict
    )
    assert not [n for n in program.graph.nodes if "ccsa" in str(n.target)]
    for qkv in (at(size), *(at(other, batch=3) for other in others)):
        expected = criss_cross_attention(*qkv, backend="reference")
        torch.testing.assert_close(program.module()(*qkv), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_exported_programs_keep_scores_in_float32(dtype):
    program = torch.export.export(Attention(), tuple(at((4, 5), dtype=dtype)))
    q, k, v = at((4, 5), dtype=dtype)
    got, expected = (f(q * 100, k * 100, v) for f in (program.module(), Attention()))
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


def missing():
    return [name for name in ONNX if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(missing()), reason=f"pip install {' '.join(missing())}")
def test_onnx_runs_at_another_size(tmp_path):
    import onnx
    import onnxruntime

    block = CrissCross(16, recurrence=2, reduction=2).eval()
    nn.init.constant_(block.gamma, 0.7)
    path = tmp_path / "criss_cross.onnx"
    torch.onnx.export(
        block,
        (torch.randn(2, 16, 4, 5),),
        path,
        opset_version=18,
        dynamo=True,
        dynamic_shapes=dynamic(2)[:1],
        input_names=["x"],
        verbose=False,
    )
    model = onnx.load(path)
    assert [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")] == [18]
    assert not {"Einsum", "EyeLike"} & {n.op_type for n in model.graph.node}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, size in ((2, (4, 5)), (1, (7, 3)), (3, (1, 8))):
        x = torch.randn(batch, 16, *size)
        (got,) = session.run(None, {"x": x.numpy()})
        expected = block(x).detach()
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-4)
