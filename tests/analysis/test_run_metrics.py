"""The metric of a run on all of its images is that of results.json."""

import json

import numpy as np
import pytest
from support.panoptic_digits import NAME, noisy_run

from ccsa.analysis.run_metrics import image_metric
from ccsa.analysis.runs import Run
from ccsa.errors import UserError
from ccsa.evaluation.image_counts import PANOPTIC, SEMANTIC
from ccsa.evaluation.instances import DETECTIONS

METRICS = [
    *(("bbox", m) for m in ("AP", "AP50", "AP75", "AP-2")),
    *(("segm", m) for m in ("AP", "AP50", "AP75", "AP-2")),
    *(("sem_seg", m) for m in ("mIoU", "fwIoU", "BoundaryIoU", "mACC", "pACC")),
    *(("panoptic_seg", m) for m in ("PQ", "PQ_th", "PQ_st", "PQ-2")),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with noisy_run(tmp_path_factory.mktemp("run_metrics")) as found:
        yield found


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


def test_a_run_without_a_test_dataset_is_refused(run):
    cfg = run.cfg.clone()
    cfg.DATASETS.TEST = ()
    with pytest.raises(UserError, match=r"has no DATASETS\.TEST; evaluate the run again"):
        image_metric(Run(run.folder, cfg, run.results, None), "segm", "AP")
