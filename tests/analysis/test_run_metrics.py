"""The metric of a run on all of its images is that of results.json."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from support.panoptic_digits import perfect

from ccsa.analysis.run_metrics import image_metric
from ccsa.analysis.runs import Run
from ccsa.data.synthetic import digits
from ccsa.errors import UserError
from ccsa.evaluation import build_evaluator
from ccsa.evaluation.image_counts import PANOPTIC, SEMANTIC
from ccsa.evaluation.instances import DETECTIONS

NAME = "digits_val_panoptic_separated"
METRICS = [
    *(("bbox", m) for m in ("AP", "AP50", "AP75", "AP-2")),
    *(("segm", m) for m in ("AP", "AP50", "AP75", "AP-2")),
    *(("sem_seg", m) for m in ("mIoU", "fwIoU", "BoundaryIoU", "mACC", "pACC")),
    *(("panoptic_seg", m) for m in ("PQ", "PQ_th", "PQ_st", "PQ-2")),
]


def worse(item, output, rng):
    """Change a prediction: objects are lost, found as another class, or moved."""
    found, (ids, infos) = output["instances"], output["panoptic_seg"]
    kept = torch.from_numpy(rng.random(len(found)) > 0.2)
    found.scores = torch.from_numpy(rng.random(len(found)))
    found.pred_boxes.tensor += torch.from_numpy(rng.normal(0, 1.5, (len(found), 4)))
    found.pred_masks = found.pred_masks.roll(int(rng.integers(0, 4)), 2)
    wrong = torch.from_numpy(rng.random(len(found)) < 0.1)
    found.pred_classes[wrong] = 7
    scores = output["sem_seg"].roll(int(rng.integers(0, 5)), 1)
    ids = ids.roll(int(rng.integers(0, 25)), 0)
    infos = [i | {"category_id": 7} if i["isthing"] and rng.random() < 0.2 else i for i in infos]
    return item, {"instances": found[kept], "sem_seg": scores, "panoptic_seg": (ids, infos)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run_metrics")
    digits.write_digits(root / "digits", {"train": 1, "val": 6})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetCatalog, "data", {})
        patch.setattr(MetadataCatalog, "data", {})
        digits.register_digits(root)
        folder = root / "run"
        evaluator = build_evaluator(NAME, folder / "inference" / NAME)
        evaluator.reset()
        rng = np.random.default_rng(0)
        for item, output in perfect(root / "digits", evaluator):
            item, output = worse(item, output, rng)
            evaluator.process([item], [output])
        cfg = get_cfg()
        cfg.DATASETS.TEST = (NAME,)
        yield Run(folder, cfg, evaluator.evaluate(), None)


@pytest.mark.parametrize(("task", "metric"), METRICS)
def test_all_images_give_the_metric_of_the_run(run, task, metric):
    found = image_metric(run, task, metric)
    expected = run.results[task][metric]
    assert len(found.images) == 6 and 1 < expected < 99
    assert found.values(np.ones((1, 6))) == pytest.approx(expected, abs=1e-9)
    assert np.ptp([v for v in found.values(np.eye(6)) if v == v]) > 0.1, "images differ"


def test_other_metrics_are_refused(run):
    with pytest.raises(UserError, match="no interval of bbox/APs is known"):
        image_metric(run, "bbox", "APs")
    with pytest.raises(UserError, match="no class 'nothing'"):
        image_metric(run, "sem_seg", "IoU-nothing")


@pytest.mark.parametrize(
    ("task", "metric", "name", "content"),
    [
        ("sem_seg", "mIoU", SEMANTIC, None),
        ("sem_seg", "mIoU", SEMANTIC, b"no archive"),
        ("panoptic_seg", "PQ", PANOPTIC, None),
        (
            "panoptic_seg",
            "PQ",
            PANOPTIC,
            b'{"categories": [], "images": {"1": {"1": [1]}}}',
        ),
        ("panoptic_seg", "PQ", PANOPTIC, b"[" * 5000),
        ("segm", "AP", DETECTIONS, None),
        ("segm", "AP", DETECTIONS, b"[1"),
        ("segm", "AP", DETECTIONS, b"{}"),
        ("segm", "AP", DETECTIONS, b'[{"image_id": 1, "category_id": 1, "score": NaN}]'),
    ],
)
def test_a_file_that_is_damaged_or_missing_is_named(run, tmp_path, task, metric, name, content):
    folder = tmp_path / "inference" / NAME
    folder.mkdir(parents=True)
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.*; evaluate the run again"):
        image_metric(Run(tmp_path, run.cfg, run.results, None), task, metric)


def test_files_of_another_evaluation_are_not_used(run):
    results = json.loads(json.dumps(run.results))
    results["segm"]["AP"] += 0.01
    with pytest.raises(UserError, match="belong to different evaluations"):
        image_metric(Run(run.folder, run.cfg, results, None), "segm", "AP")
