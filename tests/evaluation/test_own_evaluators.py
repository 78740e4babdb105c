"""Evaluation of a user's own data: perfect predictions score 100, and official results stay."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.data.datasets.coco import load_sem_seg
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from support import own_scenes

from ccsa.data.synthetic.digits import write_digits
from ccsa.data.tasks import decode_mask, panoptic_segments, semantic_label
from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError
from ccsa.evaluation import PanopticQualityEvaluator, build_evaluator
from ccsa.evaluation.instances import InstanceEvaluator, complete_annotations
from ccsa.evaluation.semantic import SemanticEvaluator

OWN = Path(__file__).parents[1] / "vectors" / "own_data"


@pytest.fixture
def validation(root):
    """Return a function that registers a folder for a kind of model and returns the name of its
    validation set."""
    before = set(DatasetCatalog.list())

    def register(folder, config="mask_rcnn", *opts):
        file = str(root / f"configs/own/{config}.yaml")
        words = ["MODEL.DEVICE", "cpu", *map(str, opts)]
        args = argparse.Namespace(config_file=file, opts=words, data=str(folder))
        return setup_cfg(args).DATASETS.TEST[0]

    yield register
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.pop(name)
        for metadata in [m for m in MetadataCatalog.list() if m.startswith(name)]:
            MetadataCatalog.pop(metadata)


def corners(annotation):
    return BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)


def perfect_instances(record, keep=lambda annotation: True):
    """Return the objects of a record as predictions."""
    size = record["height"], record["width"]
    objects = [a for a in record["annotations"] if not a.get("iscrowd") and keep(a)]
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor([corners(a) for a in objects]).reshape(-1, 4))
    found.scores = torch.linspace(0.99, 0.5, len(objects))
    found.pred_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.long)
    masks = [_mask(a, size) for a in objects]
    found.pred_masks = torch.from_numpy(np.array(masks).reshape(-1, *size))
    return found


def _mask(annotation, size):
    if annotation.get("segmentation"):
        return decode_mask(annotation, size)
    mask = np.zeros(size, bool)
    x1, y1, x2, y2 = (round(v) for v in corners(annotation))
    mask[y1:y2, x1:x2] = True
    return mask


def score_instances(evaluator, records, predict=perfect_instances):
    evaluator.reset()
    for record in records:
        keys = ("image_id", "file_name", "height", "width")
        evaluator.process([{k: record[k] for k in keys}], [{"instances": predict(record)}])
    return evaluator.evaluate()


@pytest.mark.parametrize("dialect", own_scenes.DIALECTS)
def test_perfect_instances_score_100_from_every_dialect(validation, tmp_path, dialect):
    own_scenes.DIALECTS[dialect][0](tmp_path / "data", own_scenes.make_scenes(14))
    name = validation(tmp_path / "data")
    results = score_instances(build_evaluator(name, tmp_path / "out"), DatasetCatalog.get(name))
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("layout", ["coco_compressed", "class_masks", "coco_panoptic"])
def test_a_perfect_semantic_segmentation_scores_100(validation, tmp_path, layout):
    write = getattr(own_scenes, f"write_{layout}")
    write(tmp_path / "data", own_scenes.make_scenes(14))
    name = validation(tmp_path / "data", "ccnet")
    classes = len(MetadataCatalog.get(name).stuff_classes)
    assert score_semantic(name, lambda label: label, classes, tmp_path)["mIoU"] == 100


def score_semantic(name, predict, classes, tmp_path, make=SemanticEvaluator):
    evaluator = make(name, output_dir=str(tmp_path))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        label = torch.from_numpy(predict(semantic_label(record)).astype(int)).clamp(max=classes - 1)
        scores = torch.nn.functional.one_hot(label, classes).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": scores}])
    return evaluator.evaluate()["sem_seg"]


@pytest.mark.parametrize("layout", ["coco_compressed", "coco_panoptic"])
def test_a_perfect_panoptic_segmentation_scores_100(validation, tmp_path, layout):
    getattr(own_scenes, f"write_{layout}")(tmp_path / "data", own_scenes.make_scenes(14))
    name = validation(tmp_path / "data", "panoptic_fpn")
    evaluator = PanopticQualityEvaluator(name)
    for record in DatasetCatalog.get(name):
        ids, segments = panoptic_segments(record)
        evaluator.process(
            [record], [{"panoptic_seg": (torch.from_numpy(ids.astype(int)), segments)}]
        )
    results = evaluator.evaluate()["panoptic_seg"]
    assert results["PQ"] == 100 and results["PQ_th"] == 100 and results["PQ_st"] == 100


# The cases.


@pytest.mark.parametrize(
    "case",
    ["val_without_iscrowd", "val_without_area", "train_and_val_number_classes_differently"],
)
def test_perfect_predictions_score_100_in_the_cases(validation, tmp_path, case):
    name = validation(OWN / case)
    results = score_instances(build_evaluator(name, tmp_path), DatasetCatalog.get(name))
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("missing", ["iscrowd", "area"])
def test_json_that_lacks_fields_is_completed(tmp_path, missing):
    file = OWN / f"val_without_{missing}" / "val.json"
    name = f"completed_{missing}"
    load = lambda: load_coco_json(str(file), str(file.parent / "val"), name)  # noqa: E731
    DatasetCatalog.register(name, load)
    try:
        records = DatasetCatalog.get(name)
        MetadataCatalog.get(name).set(json_file=str(file), image_root=str(file.parent / "val"))
        results = score_instances(InstanceEvaluator(name, tmp_path), records)
        assert results["bbox"]["AP"] == pytest.approx(100)
        assert results["segm"]["AP"] == pytest.approx(100)
    finally:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def test_objects_without_a_mask_count_for_boxes_only(validation, tmp_path, logged):
    name = validation(OWN / "some_boxes_without_polygon")
    records = DatasetCatalog.get(name)
    evaluator = build_evaluator(name, tmp_path)
    results = score_instances(evaluator, records)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert "4 of 8 objects have no mask" in logged.text
    only_masks = score_instances(
        evaluator, records, lambda r: perfect_instances(r, lambda a: "segmentation" in a)
    )
    assert only_masks["segm"]["AP"] == pytest.approx(100)
    assert only_masks["bbox"]["AP"] < 60


def test_ap_at_the_models_limit_is_reported_next_to_cocos(validation, tmp_path):
    name = validation(OWN / "more_detections_than_100")
    records = DatasetCatalog.get(name)
    results = score_instances(build_evaluator(name, tmp_path, max_detections=300), records)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] < 70
        assert results[task]["AP@300"] == pytest.approx(100)
        assert results[task]["AP50@300"] == pytest.approx(100)
    results = score_instances(build_evaluator(name, tmp_path), records)
    assert not any("@" in metric for metric in results["bbox"])


@pytest.mark.parametrize("ids", [[0, 1, 2], [5, 5, 5], [None, None, None]])
def test_annotation_ids_are_made_unique_and_positive(ids):
    annotations = [{"id": i, "bbox": [0, 0, 2, 3], "segmentation": []} for i in ids]
    complete_annotations(annotations)
    assert [a["id"] for a in annotations] == [1, 2, 3]
    assert all(a["iscrowd"] == 0 and a["area"] == 6 for a in annotations)


# Labels out of range.


def test_a_label_out_of_range_is_never_a_hit(validation, tmp_path):
    name = validation(OWN / "val_label_out_of_range_counts_as_hit", "ccnet")
    with pytest.raises(UserError, match=r"val_labels/000001\.png contains the value 5"):
        score_semantic(name, np.zeros_like, 3, tmp_path)


def test_the_exact_iou_after_mapping_the_value_to_ignore(validation, tmp_path):
    case = OWN / "val_label_out_of_range_counts_as_hit"
    name = validation(case, "ccnet", "DATASETS.LABEL_MAPPING", "{5: 255}")
    labels = np.stack([np.array(Image.open(f)) for f in sorted((case / "val_labels").iterdir())])
    counted = labels[labels != 5]
    results = score_semantic(name, np.zeros_like, 3, tmp_path)
    assert results["IoU-bg"] == pytest.approx(100 * (counted == 0).mean(), abs=1e-9)


# Official datasets.


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official") / "digits"
    write_digits(folder, {"train": 1, "val": 6}, 0)
    return folder


def noisy(record):
    """Return inexact predictions, the same for the same record."""
    rng = np.random.default_rng(record["image_id"])
    found = perfect_instances(record)
    found.pred_boxes.tensor += torch.from_numpy(rng.normal(0, 2, (len(found), 4)))
    found.pred_masks = torch.roll(found.pred_masks, 2, -1)
    found.scores = torch.from_numpy(rng.random(len(found)))
    wrong = torch.from_numpy(rng.random(len(found)) < 0.2)
    found.pred_classes[wrong] = 0
    return found


def test_the_results_of_official_instances_are_those_of_detectron2(digits, tmp_path):
    name, file = "official_instances", digits / "annotations/instances_val.json"
    DatasetCatalog.register(name, lambda: load_coco_json(str(file), str(digits / "val"), name))
    try:
        records = DatasetCatalog.get(name)
        MetadataCatalog.get(name).set(json_file=str(file), evaluator_type="coco")
        own = score_instances(InstanceEvaluator(name, tmp_path / "a"), records, noisy)
        theirs = score_instances(
            COCOEvaluator(name, output_dir=str(tmp_path / "b")), records, noisy
        )
        for task, metrics in theirs.items():  # and the recalls, which Detectron2 leaves out
            same = {k: v for k, v in own[task].items() if not k.startswith("AR")}
            assert json.dumps(same) == json.dumps(metrics)
        assert list(own) == list(theirs)
        assert 5 < own["segm"]["AP"] < 95
    finally:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def test_the_results_of_official_labels_are_those_of_detectron2(digits, tmp_path):
    name = "official_labels"
    folders = str(digits / "sem_seg_val"), str(digits / "val")
    DatasetCatalog.register(name, lambda: load_sem_seg(*folders, image_ext="jpg"))
    classes = MetadataCatalog.get("digits_val_sem_seg").stuff_classes
    MetadataCatalog.get(name).set(stuff_classes=classes, ignore_label=255)

    def theirs(dataset, output_dir):
        loading = lambda file, dtype: np.array(Image.open(file)).astype(dtype)  # noqa: E731
        return SemSegEvaluator(dataset, output_dir=output_dir, sem_seg_loading_fn=loading)

    def shifted(label):
        return np.roll(np.where(label == 255, 0, label), 3, 1)

    try:
        own, official = (
            score_semantic(name, shifted, len(classes), tmp_path / str(i), make)
            for i, make in enumerate((SemanticEvaluator, theirs))
        )
        # Detectron2's boundary IoU counts differences of class numbers.
        for key in (k for k in official if not k.startswith(("BoundaryIoU", "min(IoU"))):
            assert own[key] == pytest.approx(official[key], abs=1e-12, nan_ok=True)
        assert set(own) == {*official, "BoundaryIoU"}
        assert 5 < own["mIoU"] < 95
    finally:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)
