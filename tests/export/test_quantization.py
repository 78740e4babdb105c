"""Programs in 8-bit integers: which layers are quantized, what is reported, and errors."""

import json
import subprocess
import sys
from functools import partial

import export_model as tool
import numpy as np
import onnx
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from support.tiny_runs import SEMANTIC, write_run

from ccsa import add_ccsa_config
from ccsa.data.synthetic import digits
from ccsa.errors import UserError
from ccsa.export import run_program
from ccsa.export.evaluation import seconds_in_turns
from ccsa.export.quantization import calibration_images, is_quantized


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Register a few scenes in catalogs that contain nothing else, and write a run on them."""
    root = tmp_path_factory.mktemp("int8")
    digits.write_digits(root / "digits", {"train": 9, "val": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetCatalog, "data", {})
        patch.setattr(MetadataCatalog, "data", {})
        digits.register_digits(root)
        write_run(root / "run", SEMANTIC)
        yield root


@pytest.fixture
def run(run_tool, monkeypatch):
    monkeypatch.setattr(tool.logging, "disable", lambda level: None)
    return partial(run_tool, tool)


@pytest.fixture(scope="module")
def programs(place):
    """Return the paths of the float32 and the int8 program of the run, and what was printed."""
    words = ["--weights", str(place / "run"), "--format", "onnx", "--output"]
    floats, integers = place / "float.onnx", place / "int8.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool.logging, "disable", lambda level: None)
        for file, more in ((floats, []), (integers, ["--int8"])):
            patch.setattr(sys, "argv", ["export_model.py", *words, str(file), *more])
            tool.main()
    return floats, integers


def test_convolutions_are_quantized_and_attention_is_not(programs):
    floats, integers = (onnx.load(file) for file in programs)
    kinds = [node.op_type for node in floats.graph.node]
    inputs = {node.output[0]: node for node in integers.graph.node}
    found = {"quantized": 0, "kept": 0}
    for node in integers.graph.node:
        if node.op_type == "Conv":
            source = inputs.get(node.input[0])
            integer = source is not None and source.op_type == "DequantizeLinear"
            found["quantized" if integer else "kept"] += 1
            assert integer == ("attention" not in node.name), node.name
    assert found["quantized"] >= 4
    assert kinds.count("MatMul") == [n.op_type for n in integers.graph.node].count("MatMul")
    info = {p.key: json.loads(p.value) for p in integers.metadata_props}
    assert info["int8"]["calibration_images"] == 9
    assert info["int8"]["quantized_layers"] == found["quantized"]
    kept = {p.key: json.loads(p.value) for p in floats.metadata_props}
    assert {k: v for k, v in info.items() if k != "int8"} == kept


def test_the_program_runs_alone_and_predicts_nearly_the_same(programs, tmp_path):
    rng = np.random.default_rng(0)
    images = {f"{h}x{w}": rng.integers(0, 255, (h, w, 3), np.uint8) for h, w in ((61, 90), (1, 1))}
    np.savez(tmp_path / "images.npz", **images)
    results = []
    for i, file in enumerate(programs):
        output = tmp_path / f"{i}.npz"
        command = [sys.executable, "-I", run_program.__file__, str(file)]
        subprocess.run([*command, str(tmp_path / "images.npz"), str(output)], check=True)
        results.append(np.load(output))
    assert all(results[1][f"{name}/semantic"].shape == images[name].shape[:2] for name in images)
    same = results[0]["61x90/semantic"] == results[1]["61x90/semantic"]
    assert same.mean() > 0.9


def test_metric_and_speed_are_printed(run, place, tmp_path):
    words = ["--weights", place / "run", "--format", "onnx", "--output", tmp_path / "a.onnx"]
    status, printed, error = run(*words, "--int8", "--check")
    assert status == 0, error
    assert "the same classes as the model" in printed  # before it was quantized
    line = next(line for line in printed.splitlines() if line.startswith("int8: "))
    assert "calibrated with 9 images; on digits_val_sem_seg, mIoU " in line
    assert "times as fast" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "torchscript", "--output", "a.pt"], "--int8 is for --format onnx"),
        (
            [
                "--format",
                "onnx",
                "--output",
                "a.onnx",
                "DATASETS.TRAIN",
                "()",
                "DATASETS.TEST",
                "()",
            ],
            "--int8 reports the metric on a test dataset; set DATASETS.TEST",
        ),
    ],
)
def test_errors(run, place, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, _, error = run("--weights", place / "run", "--int8", *words)
    assert status == 2 and message in error
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_are_an_error(place):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.DATASETS.TRAIN = ("digits_val_sem_seg",)
    with pytest.raises(UserError, match="at least 8 images, but digits_val_sem_seg has 3"):
        calibration_images(cfg)


def test_nodes_of_other_operations_and_of_blocks_are_kept():
    blocks = ["sem_seg_head.stages.res2.1", "backbone.res4.0.context"]
    assert is_quantized("Conv", "/backbone/res4/res4.0/conv1/Conv", blocks)
    assert not is_quantized("MatMul", "/backbone/res4/res4.0/conv1/MatMul", blocks)
    assert not is_quantized("Conv", "/sem_seg_head/stages.res2/stages.res2.1/main/Conv", blocks)
    assert not is_quantized("Gemm", "/backbone/res4/context/Gemm", blocks)
    assert is_quantized("Conv", "/stem/1/Conv", blocks)


def test_programs_run_in_turns():
    calls = []
    programs = [lambda image, i=i: calls.append(i) for i in range(2)]
    times = seconds_in_turns(programs, [np.zeros((1, 1, 3), np.uint8)] * 4)
    assert calls[6:] == [0, 1, 1, 0, 0, 1, 1, 0] and len(times) == 2
