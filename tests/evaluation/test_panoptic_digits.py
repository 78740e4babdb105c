"""One evaluation of panoptic digits measures boxes, masks, semantics and panoptic quality."""

import argparse
import json
import logging

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import tiny_models
from support.panoptic_digits import perfect

from ccsa.data.synthetic import digits
from ccsa.engine import Trainer, setup_cfg
from ccsa.evaluation import PanopticQualityEvaluator, build_evaluator, evaluate_files, main_metric
from ccsa.evaluation.instances import InstanceEvaluator
from ccsa.evaluation.semantic import SemanticEvaluator

NAME = "digits_val_panoptic_separated"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Write a few scenes and register them in catalogs that contain nothing else."""
    root = tmp_path_factory.mktemp("datasets")
    digits.write_digits(root / "digits", {"train": 1, "val": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetCatalog, "data", {})
        patch.setattr(MetadataCatalog, "data", {})
        digits.register_digits(root)
        yield root / "digits"


@pytest.fixture
def logged(caplog, monkeypatch):
    for name in ("ccsa", "detectron2"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    with caplog.at_level(logging.INFO):
        yield caplog


def test_metadata_choose_all_three(place, tmp_path, logged):
    parts = build_evaluator(NAME, tmp_path)._evaluators
    assert [type(e) for e in parts] == [
        *(SemanticEvaluator, InstanceEvaluator, PanopticQualityEvaluator)
    ]
    assert not any(record.levelno >= logging.WARNING for record in logged.records)


def test_a_perfect_prediction_is_100_in_all_three(place, tmp_path, logged):
    evaluator = build_evaluator(NAME, tmp_path)
    evaluator.reset()
    for item, output in perfect(place, evaluator):
        evaluator.process([item], [output])
    results = evaluator.evaluate()
    assert set(results) == {"sem_seg", "bbox", "segm", "panoptic_seg"}
    for task, key in (("sem_seg", "mIoU"), ("bbox", "AP"), ("segm", "AP")):
        assert results[task][key] == pytest.approx(100)
    for key in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
        assert results["panoptic_seg"][key] == 100
    assert main_metric(results) == ("panoptic quality", 100)
    assert "Panoptic quality" in logged.text and "Mask AP (" in logged.text


def test_standard_panoptic_datasets_have_panoptic_quality_alone(place, tmp_path):
    """Detectron2's ``coco_2017_val_panoptic`` has no semantic labels and may have no instances."""
    keep = ("panoptic_json", "panoptic_root", "evaluator_type")
    metadata = MetadataCatalog.get(NAME).as_dict()
    kept = {k: v for k, v in metadata.items() if k in keep or k.endswith("contiguous_id")}
    MetadataCatalog.get("standard").set(**kept)
    (part,) = build_evaluator("standard", tmp_path)._evaluators
    assert isinstance(part, PanopticQualityEvaluator)
    MetadataCatalog.get("cities").set(**kept | {"evaluator_type": "cityscapes_panoptic_seg"})
    part = build_evaluator("cities", tmp_path)._evaluators[-1]
    assert isinstance(part, PanopticQualityEvaluator)


def test_a_model_is_evaluated_and_its_files_written(place, tmp_path, logged):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_models.PANOPTIC_FPN))
    words = ["TEST.PANOPTIC_FILES", "True", "OUTPUT_DIR", str(tmp_path / "run")]
    words += ["MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", "0.0"]
    cfg = setup_cfg(argparse.Namespace(config_file=str(tmp_path / "config.yaml"), opts=words))
    torch.manual_seed(0)
    results = Trainer.test(cfg, Trainer.build_model(cfg))
    assert {"sem_seg", "bbox", "segm", "panoptic_seg"} <= set(results)
    folder = tmp_path / "run" / "inference" / NAME
    quality, _ = evaluate_files(
        *(place / "annotations/panoptic_val.json", place / "panoptic_val"),
        *(folder / "panoptic_predictions.json", folder / "panoptic_predictions"),
    )
    assert results["panoptic_seg"]["PQ"] == 100 * quality.results()["All"]["pq"]
    written = json.loads((folder / "panoptic_predictions.json").read_text())
    assert sum(len(entry["segments_info"]) for entry in written["annotations"]) > 0
