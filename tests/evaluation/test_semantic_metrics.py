"""The boundary IoU of classes is what its paper defines, and evaluations are shown as tables."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ccsa.evaluation.semantic import SemanticEvaluator, boundary_counts
from ccsa.evaluation.semantic_metrics import semantic_metrics

CLASSES = 4


def slow_boundary(mask):
    """Return the pixels of a mask within 2 % of the diagonal from its edge: one erosion by a pixel
    after the other, outside the image there is no mask."""
    depth = max(1, round(0.02 * np.hypot(*mask.shape)))
    inner = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(inner, np.ones((3, 3), np.uint8), iterations=depth)[1:-1, 1:-1]
    return mask & ~inner.astype(bool)


def labels(seed, size=(60, 80)):
    """Return a label image of regions, with some ignored ones, and a similar prediction."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, CLASSES + 1, (4, 5))
    label = np.kron(coarse, np.ones((size[0] // 4, size[1] // 5), int))
    predicted = np.roll(np.where(label == CLASSES, 1, label), (seed, 2), (0, 1))
    return predicted, label


@pytest.mark.parametrize("seed", range(4))
def test_boundary_counts_are_those_of_each_class_alone(seed):
    predicted, label = labels(seed)
    valid = label != CLASSES
    counts = boundary_counts(predicted, label, CLASSES)
    assert counts.sum() > 1000
    for c in range(CLASSES):
        mine, true = (slow_boundary((x == c) & valid) for x in (predicted, label))
        assert counts[:, c].tolist() == [(mine & true).sum(), mine.sum(), true.sum()]


def test_classes_that_do_not_occur_are_nan_and_do_not_count():
    confusion = np.zeros((4, 4), int)
    confusion[:2, :2] = [[30, 10], [0, 60]]
    confusion[2, 1] = 5  # class 2 is predicted, but occurs nowhere
    confusion[0, 3] = 1000  # ignored
    overall, classes = semantic_metrics(confusion, np.zeros((3, 3), int), ["a", "b", "c"])
    assert overall["mIoU"] == pytest.approx(100 * (30 / 40 + 60 / 75) / 2)
    assert overall["pACC"] == pytest.approx(100 * 90 / 105)
    assert overall["mACC"] == pytest.approx(100 * (30 / 30 + 60 / 75) / 2)
    assert np.isnan(classes["IoU"]["c"]) and np.isnan(overall["BoundaryIoU"])


def test_the_terminal_shows_tables_and_the_predictions_are_written(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccsa"), "propagate", True)
    records = []
    for i in range(2):
        label = np.where((x := labels(i)[1]) == CLASSES, 255, x).astype(np.uint8)
        file = tmp_path / f"{i}.png"
        Image.fromarray(label).save(file)
        records.append({"file_name": str(file), "sem_seg_file_name": str(file)})
    name = "tables"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=["sky", "sea", "-", "1"], ignore_label=255)
    try:
        evaluator = SemanticEvaluator(name, tmp_path / "out")
        with caplog.at_level(logging.INFO):
            for _ in range(2):  # a second evaluation does not contain the first
                evaluator.reset()
                for i, record in enumerate(records):
                    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels(i)[0]), CLASSES)
                    evaluator.process([record], [{"sem_seg": one_hot.permute(2, 0, 1).float()}])
                results = evaluator.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)
    assert "OrderedDict" not in caplog.text and "np.float64" not in caplog.text
    lines = caplog.text.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("|   mIoU"))
    values = [float(cell) for cell in lines[heading + 2].strip("|").split("|")]
    assert values[0] == round(results["mIoU"], 2) and values[2] == round(results["BoundaryIoU"], 2)
    (sea,) = {line for line in lines if line.startswith("| sea ")}
    assert f"{results['BoundaryIoU-sea']:.2f}" in sea and f"{results['IoU-sea']:.2f}" in sea
    assert all(type(value) is float for value in results.values())

    written = json.loads((tmp_path / "out/sem_seg_predictions.json").read_text())
    assert {entry["file_name"] for entry in written} == {r["file_name"] for r in records}
    classes = sum(len(np.unique(labels(i)[0])) for i in range(2))
    assert len(written) == classes
