"""Tests of examples/run_onnx.py, run as users run it, on an exported detector."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.detectors import build_detector, mask_rcnn

from ccsa.export import export, exported_part, program_metadata

TOOL = Path(__file__).parents[1] / "examples/run_onnx.py"
NAMES = [f"digit {i}" for i in range(10)]
pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("onnxruntime"), reason="pip install onnx onnxruntime onnxscript"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a program and an image of 150 x 100 pixels."""
    folder = tmp_path_factory.mktemp("run")
    cfg, model = build_detector(mask_rcnn)
    part = exported_part(model, cfg)
    export(part, "onnx", folder / "model.onnx", program_metadata(cfg, NAMES, part=part))
    pixels = np.random.default_rng(0).integers(0, 256, (13, 19, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((150, 100)).save(folder / "image.png")
    return folder


def run(*arguments):
    # -E: PYTHONPATH is not searched, as on a machine without ccsa.
    command = [sys.executable, "-E", "-s", str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_detections_are_printed_and_drawn(folder, tmp_path):
    result = tmp_path / "result.png"
    done = run(folder / "model.onnx", folder / "image.png", result, "--threshold", "0.1")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines and all(line[0] in NAMES and float(line[1]) >= 0.1 for line in lines)
    before, after = (
        np.asarray(Image.open(f).convert("RGB")) for f in (folder / "image.png", result)
    )
    assert after.shape == before.shape and (after != before).any()


def test_mistakes_end_with_one_sentence(folder, tmp_path):
    program, image, result = folder / "model.onnx", folder / "image.png", tmp_path / "result.png"
    cases = [
        ((image, image, result), "is not a program that onnxruntime can run"),
        ((program, program, result), "cannot be read as an image"),
        ((program, image, image), "would be overwritten"),
        ((tmp_path / "no.onnx", image, result), "no.onnx"),
    ]
    for arguments, message in cases:
        done = run(*arguments)
        assert done.returncode == 1 and message in done.stderr, (arguments, done.stderr)
        assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
        assert not result.exists()


def test_it_imports_nothing_of_this_project():
    files = (TOOL, TOOL.with_name("onnx_tiles.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert not any(f"import {name}" in text for name in ("ccsa", "torch", "detectron2"))
