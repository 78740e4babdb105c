"""tools/export_model.py on a detector, run as users run it."""

from functools import partial

import export_model as tool
import pytest
import torch
from support.detectors import build_detector, mask_rcnn

from ccsa.export import FORMATS, Difference


@pytest.fixture
def arguments(run_tool, tmp_path):
    """Return a function that exports a tiny Mask R-CNN and returns status, output and errors."""
    cfg, model = build_detector(mask_rcnn)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    files = ("--config-file", tmp_path / "config.yaml", "--weights", tmp_path / "model.pth")
    return partial(run_tool, tool, *files, "--format", "torchscript", "--output")


def test_a_detector_is_exported_completely_and_checked(arguments, tmp_path):
    file = tmp_path / "model.pt"
    status, printed, errors = arguments(file, "--check")
    assert status == 0, errors
    assert "image -> boxes, scores, classes, masks" in printed
    assert "uint8 RGB (height, width, 3) of any height and width" in printed
    assert "checked in a process without ccsa, on 120x150, 77x203" in printed
    metadata = FORMATS["torchscript"].metadata(file)
    assert metadata["outputs"] == ["boxes", "scores", "classes", "masks"]
    assert metadata["blocks"] == [{"at": "backbone.bottom_up.res4", "block": "CrissCross"}]
    assert metadata["input_channels"] == "RGB" and metadata["most_detections"] == 20
    assert metadata["model"] == "GeneralizedRCNN" and metadata["version"]


def test_a_detector_that_differs_is_not_left(arguments, tmp_path, monkeypatch):
    differs = {"77x203": Difference(9, 0.5, 0.0, 1.0, 2)}
    monkeypatch.setattr(tool, "detection_differences", lambda *args: differs)
    status, _, errors = arguments(tmp_path / "model.pt", "--check")
    assert status == 2 and not (tmp_path / "model.pt").exists()
    assert "differs from the model on an image (77x203): of 9 detections, 2 have no" in errors
