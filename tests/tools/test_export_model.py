"""tools/export_model.py, run as users run it, on a tiny run of far_cue's network."""

import importlib.util
import re
from functools import partial

import export_model as tool
import pytest
import torch
from detectron2.modeling import build_model

from ccsa.checkpoint import Classes, classes_entry
from ccsa.engine.setup import setup_cfg
from ccsa.export import FORMATS

CONFIG = "far_cue/any_ccnet_R1.yaml"


@pytest.fixture
def run(make_run):
    """Return the folder of a run with random weights and gamma != 0."""
    folder = make_run("run", None, config=CONFIG)
    torch.manual_seed(0)

    class Arguments:
        config_file, opts = str(folder / "config.yaml"), ()

    model = build_model(setup_cfg(Arguments))
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, 0.7)
    classes = classes_entry(Classes([], ["near", "far"]))
    torch.save({"model": model.state_dict(), **classes}, folder / "model_final.pth")
    return folder


@pytest.fixture
def export(run_tool):
    """Return a function that runs the tool and returns its exit status, output and errors."""
    return partial(run_tool, tool)


def test_a_run_becomes_a_program_that_is_checked(export, run, tmp_path):
    file = tmp_path / "new" / "model.pt"
    status, printed, _ = export("--weights", run, "--format", "torchscript", "--output", file,
                                "--check")  # fmt: skip
    assert status == 0
    assert f"written: {file}" in printed and "image -> semantic" in printed
    assert re.search(r"^weights: (\d+) of the model's \1 tensors loaded$", printed, re.MULTILINE)
    assert "any height and width" in printed
    assert "checked in a process without ccsa, on 120x150, 77x203" in printed
    program = torch.jit.load(file)
    assert program(torch.zeros(64, 33, 3, dtype=torch.uint8))[0].shape == (64, 33)
    state = torch.load(run / "model_final.pth")["model"]
    assert torch.equal(program.state_dict()["head.fcn.predictor.weight"],
                       state["sem_seg_head.fcn.predictor.weight"])  # fmt: skip


def test_a_program_knows_its_classes_and_intensities(export, run, tmp_path):
    file = tmp_path / "model.pt"
    status, printed, _ = export("--weights", run, "--format", "torchscript", "--output", file,
                                "INPUT.INTENSITY_RANGE", "[100, 5000]")  # fmt: skip
    assert status == 0 and "stuff_classes: near, far" in printed
    assert "intensity range: 100 to 5000 become 0 and 255" in printed
    metadata = FORMATS["torchscript"].metadata(file)
    assert metadata["stuff_classes"] == ["near", "far"]
    assert metadata["intensity_range"] == [100, 5000]


def test_a_model_without_all_of_its_weights_is_not_written(export, run, tmp_path):
    state = torch.load(run / "model_final.pth")["model"]
    del state["sem_seg_head.fcn.predictor.weight"]
    torch.save({"model": state}, run / "model_final.pth")
    arguments = ["--weights", run, "--format", "torchscript", "--output", tmp_path / "model.pt"]
    status, _, errors = export(*arguments)
    assert status == 2 and "1 missing (sem_seg_head.fcn.predictor.weight)" in errors
    assert not (tmp_path / "model.pt").exists()


def test_a_video_model_takes_clips(export, root, tmp_path):
    config = root / "configs/moving_cue/T5.yaml"
    status, printed, _ = export("--config-file", config, "--format", "torchscript", "--output",
                                tmp_path / "model.pt", "--check", "MODEL.WEIGHTS", "")  # fmt: skip
    assert status == 0 and "sizes: a clip of 5 frames" in printed and "checked in" in printed


def test_a_program_that_differs_is_not_left(export, run, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "semantic_differences", lambda *args: {"77x203": 0.5, "1x1": 0.0})
    file = tmp_path / "model.pt"
    arguments = ["--weights", run, "--format", "torchscript", "--output", file]
    status, _, errors = export(*arguments, "--check")
    assert (
        status == 2
        and "(77x203) in the class of 50.00% of the pixels" in errors
        and not file.exists()
    )
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    status, printed, _ = export(*arguments)
    assert status == 0 and file.exists() and "not checked: add --check" in printed


def test_what_a_check_needs_is_asked_for_before_anything_is_built(
    export, run, tmp_path, monkeypatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name)
    )
    monkeypatch.setattr(tool, "trained_cfg", lambda *args, **keywords: pytest.fail("built"))
    arguments = ["--weights", run, "--format", "onnx", "--output", tmp_path / "model.onnx"]
    status, _, errors = export(*arguments, "--check")
    assert status == 2
    assert (
        "needs onnxruntime, which is not installed: run pip install '.[export]' in a clone of ccsa"
        in errors
    )


def test_mistakes_end_with_one_message_that_names_the_cure(export, run, root, tmp_path):
    taken, new = tmp_path / "taken.onnx", tmp_path / "model.onnx"
    taken.write_text("precious")
    cases = [
        (["--weights", run, "--output", taken], "would be overwritten"),
        (["--weights", run, "--output", tmp_path / "model.pt"], "name a .onnx file"),
        (["--weights", tmp_path / "nowhere.pth", "--output", new], "nowhere.pth does not exist"),
        (["--weights", taken, "--output", new], "--config-file"),
        (["--output", new], "add --weights"),
        (["--output", taken / "model.onnx"], "cannot be written"),
        (["--output", new, "--config-file", root / "configs" / CONFIG], 'MODEL.WEIGHTS ""'),
        (["--weights", tmp_path / "nowhere.pth", "--output", new, "--config-file",
          root / "configs" / CONFIG], "nowhere.pth does not exist"),
        (["--weights", run, "--output", new, "MODEL.NO_SUCH", "1"], "MODEL.NO_SUCH"),
    ]  # fmt: skip
    for arguments, message in cases:
        status, _, errors = export("--format", "onnx", *arguments)
        assert status == 2, arguments
        assert errors.startswith("error: ") and message in errors, (arguments, errors)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "taken.onnx"]
    assert taken.read_text() == "precious"
