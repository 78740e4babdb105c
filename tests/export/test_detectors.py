"""Exported detectors find what the model finds, at sizes that were not traced."""

import importlib.util

import numpy as np
import pytest
import torch
from support import detectors as kinds
from support.detectors import build_detector

from ccsa.errors import UserError
from ccsa.export import FORMATS, InstancePart, detection_differences, export, exported_part
from ccsa.export.canvas import eager_inputs
from ccsa.export.checks import compare, run_alone, test_images
from ccsa.export.metadata import program_metadata

test_images.__test__ = False  # a function of the package, not a test


def written(folder, kind, name, *changes):
    """Return the model, its part, and the file of its program."""
    if name == "onnx" and not importlib.util.find_spec("onnxruntime"):
        pytest.skip("pip install onnx onnxruntime onnxscript")
    cfg, model = build_detector(kind, *changes)
    part, file = exported_part(model, cfg), folder / f"model{FORMATS[name].suffix}"
    assert isinstance(part, InstancePart)
    export(part, name, file, program_metadata(cfg, [f"digit {i}" for i in range(10)], part=part))
    return model, part, file


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kinds.mask_rcnn, "onnx"),
        (kinds.mask_rcnn, "torchscript"),
        (kinds.cascade, "onnx"),
        (kinds.retinanet, "onnx"),
        (kinds.mask_head, "onnx"),
    ],
)
def test_a_program_finds_what_the_model_finds(tmp_path, kind, name):
    model, part, file = written(tmp_path, kind, name)
    differences = detection_differences(model, part, file)
    assert len(differences) == 7 and "1x1" in differences
    assert sum(found.expected for found in differences.values()) > 80
    for size, found in differences.items():
        assert found.agrees, (size, found)


@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_an_image_may_have_no_detections(tmp_path, name):
    key = "MODEL.ROI_HEADS.SCORE_THRESH_TEST"
    *_, file = written(tmp_path, kinds.mask_rcnn, name, key, 1.0)
    found = run_alone(file, {"a": np.zeros((50, 70, 3), np.uint8)})["a"]
    shapes = {key: value.shape for key, value in found.items()}
    assert shapes == {"boxes": (0, 4), "scores": (0,), "classes": (0,), "masks": (0, 50, 70)}


@pytest.mark.parametrize("kind", [kinds.mask_rcnn, kinds.cascade, kinds.retinanet])
def test_the_part_is_the_model(kind):
    cfg, model = build_detector(kind)
    part = exported_part(model, cfg)
    image = torch.from_numpy(test_images()["77x203"])
    with torch.no_grad():
        outputs = part(image)
        expected = model(eager_inputs(part, [image]))[0]["instances"]
    assert len(expected) > 5
    torch.testing.assert_close(outputs[0], expected.pred_boxes.tensor)
    torch.testing.assert_close(outputs[1], expected.scores)
    assert torch.equal(outputs[2], expected.pred_classes)
    if kind is not kinds.retinanet:
        assert torch.equal(outputs[3], expected.pred_masks)


def test_sizes_are_those_of_detectron2():
    from detectron2.data.transforms import ResizeShortestEdge

    cfg, model = build_detector(kinds.mask_rcnn)
    part = exported_part(model, cfg)
    generator = np.random.default_rng(0)
    for height, width in generator.integers(20, 900, (200, 2)).tolist():
        expected = ResizeShortestEdge.get_output_shape(height, width, 128, 256)
        size = part.preparation.used_size(torch.tensor([height, width]))
        assert tuple(size.tolist()) == expected, (height, width)


def detections(*scores):
    n = len(scores)
    boxes = np.arange(4.0 * n).reshape(n, 4) * 10
    return {"boxes": boxes, "scores": np.array(scores), "classes": np.zeros(n, int)}


def test_detections_are_compared():
    a = detections(0.9, 0.8)
    assert compare(a, a, 0.05, 100).agrees
    b = {**a, "boxes": a["boxes"] + 0.02}
    assert compare(b, a, 0.05, 100).box == pytest.approx(0.02)
    assert not compare(b, a, 0.05, 100).agrees
    assert not compare({**a, "scores": a["scores"] - 2e-4}, a, 0.05, 100).agrees
    assert compare({**a, "classes": np.ones(2, int)}, a, 0.05, 100).unmatched == 4
    mask = np.zeros((2, 10, 10), bool)
    mask[:, :5] = True
    with_masks, other = {**a, "masks": mask}, mask.copy()
    other[0, 0, 0] = False
    assert compare({**a, "masks": other}, with_masks, 0.05, 100).iou == pytest.approx(49 / 50)
    assert compare({**a, "masks": mask[:, :, :9]}, with_masks, 0.05, 100).iou == 0


def test_a_detection_at_a_limit_may_be_missing():
    a, fewer = detections(0.9, 0.05005), detections(0.9)
    assert compare(fewer, a, 0.05, 100).agrees and compare(a, fewer, 0.05, 100).agrees
    assert compare(fewer, a, 0.04, 100).unmatched == 1
    assert compare(detections(0.9), detections(0.9, 0.899999), 0.05, 1).agrees


def test_a_part_that_cannot_be_exported_is_named():
    cfg, model = build_detector(kinds.mask_rcnn)
    model.roi_heads.keypoint_on = True
    with pytest.raises(UserError, match=r"set MODEL\.KEYPOINT_ON False"):
        exported_part(model, cfg)
    model.roi_heads = torch.nn.Identity()
    with pytest.raises(
        UserError, match=r"ROI_HEADS\.NAME Identity cannot be exported; use Standard"
    ):
        exported_part(model, cfg)


def test_a_program_that_fails_is_reported(tmp_path):
    file = tmp_path / "model.pt"
    file.write_text("no program")
    with pytest.raises(UserError, match=r"failed in a process of its own: .+"):
        run_alone(file, {"a": np.zeros((5, 5, 3), np.uint8)})
