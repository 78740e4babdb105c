"""The Triton kernels where there is no GPU: in the interpreter, and through the compiler."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)


def run(root, *command, **environment):
    """A Python process with the paths of this one."""
    paths = os.pathsep.join([str(root / "projects"), *sys.path])
    return subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="test_triton_gpu.py runs them on the device")
def test_kernels_in_the_interpreter(root):
    cases = "tests/criss_cross_kernels.py"
    done = run(root, "-m", "pytest", "-x", cases, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
