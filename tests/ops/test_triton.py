"""The Triton kernels without a GPU: in the interpreter, and compiled only."""

import collections
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ccsa.ops.criss_cross import triton_ops
from ccsa.ops.criss_cross.tiles import score_tiles, value_tiles

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)
TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="test_triton_gpu.py runs them on the device")
def test_kernels_in_the_interpreter(root):
    cases = "tests/support/criss_cross_kernels.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", cases],
        cwd=root,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root / "projects"), *sys.path]),
            "TRITON_INTERPRET": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


def launches(monkeypatch, size, batch, ck, cv, dtype):
    """Return (kernel, arguments, keywords) of each launch; nothing runs."""
    noted = []

    class Kernels:
        def loop_bound(self, n):
            return n

        def __getattr__(self, name):
            def launch(*args, **keywords):
                noted.append((name, args, keywords))

            return collections.defaultdict(lambda: launch)  # for any grid

    launching = contextlib.contextmanager(lambda _: iter([Kernels()]))
    monkeypatch.setattr(triton_ops, "_launching", launching)
    q, k, v = (torch.empty(batch, c, *size, dtype=dtype, device="meta") for c in (ck, ck, cv))
    out, lse = triton_ops._forward._init_fn(q, k, v)
    triton_ops._backward._init_fn(out, q, k, v, out, lse)
    return noted


def compiled(name, args, keywords):
    """Return the kernel compiled for compute capability 9.0, specialized for these arguments."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ccsa.ops.criss_cross import triton_kernels

    kernel = getattr(triton_kernels, name)
    names = kernel.arg_names
    options = {n: x for n, x in keywords.items() if n not in names}
    args = (*args, *(keywords[n] for n in names[len(args) :]))
    constants, aligned = {}, {}

    def kind(x, place, constant):
        if isinstance(x, torch.Tensor):
            aligned[place] = [["tt.divisibility", 16]]
            return TYPES[x.dtype]
        if isinstance(x, tuple):
            return tuple(kind(y, (*place, i), False) for i, y in enumerate(x))
        if constant or x == 1:
            constants[place] = x
            return "constexpr"
        if x % 16 == 0:
            aligned[place] = [["tt.divisibility", 16]]
        return "i32"

    signature = {
        p.name: kind(x, (i,), p.is_constexpr)
        for i, (p, x) in enumerate(zip(kernel.params, args, strict=True))
    }
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def resources(binary, tmp_path):
    """Return the registers and the bytes of stack per thread, to which registers are spilled."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip(f"no {tool.name} in this build of Triton")
    path = tmp_path / "kernel.cubin"
    path.write_bytes(binary)
    text = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True).stdout
    return tuple(int(re.search(rf"{word}:(\d+)", text)[1]) for word in ("REG", "STACK"))


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.bfloat16, (97, 97)), (torch.float32, (97, 97)), (torch.float64, (97, 97))],
    ids=str,
)
def test_the_compiler_takes_the_kernels_at_a_size_in_use(dtype, size, monkeypatch, tmp_path):
    """The interpreter cannot check types, use of tensor cores, and spilled registers."""
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        pytest.skip("TRITON_INTERPRET is set: nothing is compiled")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    noted = launches(monkeypatch, size, 1, 64, 512, dtype)
    assert collections.Counter(name for name, *_ in noted) == {
        "attention_forward": 2,
        "value_gradient": 2,
        "compute_delta": 1,
        "query_key_gradient": 2,
    }
    for name, args, keywords in noted:
        if name != "compute_delta" and args[-1]:  # the first axis does less
            continue
        built = compiled(name, args, keywords)
        _, stack = resources(built.asm["cubin"], tmp_path)
        if dtype != torch.float64:  # it is for large scores only, where nothing else is right
            assert stack <= 64, f"{name} spills {stack} bytes per thread"
        if dtype == torch.bfloat16 and name != "compute_delta":
            assert "wgmma.mma_async" in built.asm["ptx"]  # the tensor cores
            assert "cp.async" in built.asm["ptx"]  # loads beside products


def test_tf32_is_used_where_pytorch_uses_it(monkeypatch):
    size = ((2, 3), 1, 16, 16, torch.float32)
    precisions = []
    for word in ("highest", "high"):
        torch.set_float32_matmul_precision(word)
        try:
            precisions.append(launches(monkeypatch, *size)[0][2]["PRECISION"])
        finally:
            torch.set_float32_matmul_precision("highest")
    assert precisions == ["ieee", "tf32"]


@pytest.mark.parametrize("tiles", [value_tiles, score_tiles])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tiles_are_powers_of_two_that_tensor_cores_take(tiles, dtype):
    for length in (1, 7, 16, 17, 97, 128, 129, 1000):
        for ck, cv in ((1, 1), (20, 40), (64, 512), (300, 3000)):
            for n in tiles(dtype, length, ck, cv)[:4]:
                assert 16 <= n <= 128 and n & (n - 1) == 0


def test_parts_of_the_query_gradient_take_no_more_memory_than_a_value(monkeypatch):
    for size, cv, launched in [((97, 97), 512, 2), ((9, 1000), 512, 2), ((9, 2000), 512, 4)]:
        noted = launches(monkeypatch, size, 1, 64, cv, torch.bfloat16)
        scores = [args for name, args, _ in noted if name == "query_key_gradient"]
        assert len(scores) == launched
        assert scores[0][7].numel() <= cv * size[0] * size[1]


@pytest.mark.parametrize("channels", [1, 16, 20, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_rows_of_half_precision_are_aligned(dtype, channels):
    x = torch.randn(2, 1, 3, 5, channels).to(dtype)
    aligned = triton_ops._aligned(x)
    if dtype == torch.float32 or channels % 16 == 0:
        assert aligned is x
    else:
        assert aligned.shape[-1] % 16 == 0 and not any(n % 16 for n in aligned.stride()[:-1])
        assert torch.equal(aligned[..., :channels], x) and not aligned[..., channels:].any()


def test_rows_of_a_slice_are_aligned():
    """A slice of the channels has the strides of the whole tensor, and begins anywhere."""
    x = torch.randn(2, 1, 3, 5, 48).half()
    assert triton_ops._aligned(x[..., 16:32]).data_ptr() == x[..., 16:32].data_ptr()
    for part in (x[..., 8:24], torch.randn(2, 1, 3, 5, 40).half()[..., :16]):
        aligned = triton_ops._aligned(part)
        assert torch.equal(aligned, part) and aligned.is_contiguous()
