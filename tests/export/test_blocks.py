"""Every block exports to every format, at sizes other than the one it was exported with."""

import importlib.util

import pytest
import torch
from torch import nn

from ccsa.blocks import build_block
from ccsa.ops.criss_cross import use_backend

BLOCKS = [
    ("CrissCross", {"recurrence": 1}, 2),
    ("CrissCross", {"recurrence": 1, "dims": 3}, 3),
    ("SqueezeAttention", {}, 2),
    ("SqueezeExcitation", {}, 2),
    ("NonLocal", {}, 2),
    ("NonLocal", {"dims": 3}, 3),
]
SIZES = {2: [(9, 13), (6, 5), (17, 4)], 3: [(3, 9, 13), (3, 6, 5), (3, 17, 4)]}


@pytest.fixture(params=BLOCKS, ids=lambda case: f"{case[0]}-{case[2]}d")
def case(request):
    """Return a block with an open gate, an example for its export, and inputs of other sizes."""
    name, keywords, axes = request.param
    torch.manual_seed(0)
    block = build_block(name, 16, **keywords).eval()
    nn.init.constant_(block.gamma, 0.7)
    example = torch.randn(1, 16, *(3, 6, 8)[-axes:])
    return block, example, [torch.randn(1, 16, *size) for size in SIZES[axes]]


def agrees(run, block, inputs):
    with torch.no_grad():
        for x in inputs:
            torch.testing.assert_close(run(x), block(x), rtol=1e-4, atol=1e-5)


def onnx_program(file):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def dims(x, **keywords):
    axes = (x.dim() - 2, x.dim() - 1)
    return {axis: torch.export.Dim(f"size{axis}", min=4, max=500, **keywords) for axis in axes}


def test_torch_export_and_its_onnx_take_other_sizes(case, tmp_path):
    block, example, inputs = case
    with torch.no_grad():
        sizes = (dims(example),)
        program = torch.export.export(block, (example,), dynamic_shapes=sizes, strict=False)
    assert "ccsa" not in program.graph_module.code  # it runs where ccsa is not installed
    agrees(program.module(), block, inputs)
    if not importlib.util.find_spec("onnxscript"):
        pytest.skip("pip install onnxscript")
    file = tmp_path / "block.onnx"
    torch.onnx.export(
        program, (), file, opset_version=18, dynamo=True, input_names=["x"], verbose=False
    )
    agrees(onnx_program(file), block, inputs)


@pytest.mark.filterwarnings("ignore")
def test_a_trace_and_its_onnx_take_other_sizes(case, tmp_path):
    block, example, inputs = case
    with torch.no_grad(), use_backend("export"):
        program = torch.jit.trace(block, example, check_trace=False)
        assert "ccsa::" not in str(program.inlined_graph)  # it runs where ccsa is not installed
        agrees(program, block, inputs)
        if not importlib.util.find_spec("onnx"):
            pytest.skip("pip install onnx")
        file, axes = tmp_path / "block.onnx", (example.dim() - 2, example.dim() - 1)
        torch.onnx.export(
            block, (example,), file, opset_version=16, dynamo=False, input_names=["x"],
            dynamic_axes={"x": list(axes)}
        )  # fmt: skip
    agrees(onnx_program(file), block, inputs)
