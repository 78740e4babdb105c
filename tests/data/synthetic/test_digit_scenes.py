"""Drawing of the digit scenes: digits are visible, and can be learned at stride 4."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from ccsa.data.synthetic.digit_scenes import SIZE, draw_scene, load_scans
from ccsa.data.synthetic.digits import THINGS, write_digits
from ccsa.evaluation.build import read_labels


def test_digits_are_solid_and_stand_out():
    scans, classes = load_scans("train")
    for seed in range(40):
        scene = draw_scene(np.random.default_rng(seed), scans, classes)
        free = ~scene.masks.any(0)
        for mask in scene.masks:
            solid = mask.astype(np.uint8)
            _, _, width, height = cv2.boundingRect(solid)
            assert 28 <= height <= 90 and width >= 9  # pixels
            assert cv2.distanceTransform(solid, cv2.DIST_L2, 5).max() >= 3  # half a stroke width
            around = cv2.dilate(solid, np.ones((9, 9))).astype(bool) & free
            contrast = np.abs(scene.image[mask].mean(-1) - scene.image[around].mean())
            assert np.median(contrast) > 20  # of 256 gray levels


def test_splits_hold_the_digits_in_equal_shares():
    for split, share in (("train", 0.8), ("val", 0.2)):
        _, classes = load_scans(split)
        np.testing.assert_allclose(np.bincount(classes) / (180 * share), 1, atol=0.06)


def test_semantic_labels_score_full_marks_against_themselves(tmp_path, monkeypatch):
    write_digits(tmp_path / "digits", {"val": 4})
    records = [
        {
            "file_name": str(image),
            "sem_seg_file_name": str(tmp_path / "digits/sem_seg_val" / f"{image.stem}.png"),
        }
        for image in sorted((tmp_path / "digits/val").iterdir())
    ]
    name = "digits_to_score"
    DatasetCatalog.register(name, lambda: records)
    metadata = MetadataCatalog.get("digits_val_sem_seg")
    MetadataCatalog.get(name).set(stuff_classes=metadata.stuff_classes, ignore_label=255)
    try:
        evaluator = SemSegEvaluator(name, distributed=False, sem_seg_loading_fn=read_labels)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    evaluator.reset()
    for record in records:
        labels = torch.as_tensor(read_labels(record["sem_seg_file_name"]))
        assert labels.shape == (SIZE, SIZE)
        logits = torch.nn.functional.one_hot(labels, len(metadata.stuff_classes))
        evaluator.process([record], [{"sem_seg": logits.permute(2, 0, 1).float()}])
    results = evaluator.evaluate()["sem_seg"]
    assert results["mIoU"] == pytest.approx(100)
    assert results[f"IoU-{THINGS[7]}"] in (pytest.approx(100), pytest.approx(np.nan, nan_ok=True))
