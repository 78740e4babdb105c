"""The fast evaluators agree with pycocotools, on datasets that differ in what may go wrong."""

import copy
import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.coco_data import CASES, dataset

from ccsa.errors import MissingPackageError, UserError
from ccsa.evaluation import coco_metrics
from ccsa.evaluation.coco_metrics import (
    BOUNDARY,
    FAST,
    REFERENCE,
    available_evaluator,
    evaluate_coco,
    installed,
)

needs_fast = pytest.mark.skipif(not installed(FAST), reason="hotcoco is not installed")
needs_boundary = pytest.mark.skipif(not installed(BOUNDARY), reason="no faster-coco-eval")


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return dataset(**CASES[request.param])


def official(truth, results, task, limits=(1, 10, 100)):
    """Return pycocotools' evaluation, which this project's module has no part in."""
    results = copy.deepcopy(results)
    if task == "segm":
        for result in results:
            del result["bbox"]
    with redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(truth)
        api.createIndex()
        done = COCOeval(api, api.loadRes(results), task)
        done.params.maxDets = list(limits)
        done.evaluate()
        done.accumulate()
        if limits[-1] == 100:
            done.summarize()
    return done


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("evaluator", [REFERENCE, pytest.param(FAST, marks=needs_fast)])
def test_every_number_is_that_of_pycocotools(case, task, evaluator):
    truth, results = case
    expected = official(truth, results, task)
    found = evaluate_coco(truth, results, task, evaluator=evaluator)
    assert found.evaluator == evaluator
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(getattr(found, name), expected.eval[name]), name
    values = [100 * v if v >= 0 else float("nan") for v in expected.stats]
    np.testing.assert_equal(list(found.metrics().values()), values)
    assert 1 < found.metrics()["AP"] < 99
    assert list(found.metrics()) == (
        ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    )
    for k, value in enumerate(found.category_ap().values()):
        precision = expected.eval["precision"][:, :, k, 0, -1]
        precision = precision[precision > -1]
        np.testing.assert_equal(value, 100 * precision.mean() if precision.size else np.nan)


@needs_boundary
def test_boundary_ap_is_that_of_faster_coco_eval(case):
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    truth, results = copy.deepcopy(case)
    found = evaluate_coco(truth, results, "boundary")
    with redirect_stdout(io.StringIO()):
        api = FasterCOCO(copy.deepcopy(truth))
        for result in results:
            del result["bbox"]
        expected = COCOeval_faster(api, api.loadRes(results), "boundary")
        expected.evaluate()
        expected.accumulate()
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(getattr(found, name), expected.eval[name]), name
    assert found.ap() <= evaluate_coco(truth, results, "segm", evaluator=REFERENCE).ap()


@pytest.mark.parametrize("evaluator", [REFERENCE, pytest.param(FAST, marks=needs_fast)])
def test_limits_above_100_and_a_subset_of_the_images(evaluator):
    truth, results = dataset(**CASES["many detections"])
    assert max(np.bincount([r["image_id"] for r in results])) > 200
    found = evaluate_coco(truth, results, "segm", limit=300, evaluator=evaluator)
    alone = official(truth, results, "segm", (1, 10, 300)).eval["precision"][..., -1]
    assert found.ap(limit=300) == alone[:, :, :, 0][alone[:, :, :, 0] > -1].mean()
    assert found.ap(limit=300) > found.ap()
    part = evaluate_coco(truth, results, "segm", image_ids=[1], evaluator=evaluator)
    one = {**truth, "images": truth["images"][:1]}
    one["annotations"] = [a for a in truth["annotations"] if a["image_id"] == 1]
    only = [r for r in results if r["image_id"] == 1]
    alone = evaluate_coco(one, only, "segm", evaluator=REFERENCE)
    np.testing.assert_equal(part.metrics(), alone.metrics())


def test_the_arguments_are_not_changed(case):
    before = json.dumps(case)
    for evaluator in (REFERENCE, FAST, BOUNDARY):
        if installed(evaluator):
            evaluate_coco(*case, "segm", evaluator=evaluator)
    assert json.dumps(case) == before


def keypoints():
    """Return two people with 17 keypoints, and detections that are some pixels off."""
    rng = np.random.default_rng(0)
    truth, results = dataset(images=3, classes=2, radii=(30, 60))
    for entry in truth["annotations"]:
        x, y, w, h = entry["bbox"]
        points = np.c_[x + w * rng.random(17), y + h * rng.random(17), np.full(17, 2)]
        entry |= {"keypoints": points.ravel().tolist(), "num_keypoints": 17}
        moved = points + np.c_[rng.normal(0, 2, (17, 2)), np.zeros(17)]
        keys = ("image_id", "category_id", "bbox")
        result = {k: entry[k] for k in keys} | {"keypoints": moved.ravel().tolist()}
        results.append(result | {"score": float(rng.random())})
    return truth, [result for result in results if "keypoints" in result]


def test_keypoints_count_20_detections_as_coco_defines():
    truth, results = keypoints()
    found = evaluate_coco(truth, results, "keypoints")
    expected = official(truth, results, "keypoints", (20,))
    with redirect_stdout(io.StringIO()):
        expected.summarize()
    values = [100 * v if v >= 0 else float("nan") for v in expected.stats]
    np.testing.assert_equal(list(found.metrics().values()), values)
    assert list(found.metrics())[5:] == ["AR", "AR50", "AR75", "ARm", "ARl"]
    assert 1 < found.metrics()["AP"] < 99


@pytest.mark.parametrize("number", ["a", -1, 2**60])
def test_ids_that_only_pycocotools_supports_choose_it(number):
    truth, results = dataset(images=2)
    assert available_evaluator("bbox", truth) == (FAST if installed(FAST) else REFERENCE)
    for entry in (*truth["images"], *truth["annotations"], *results):
        key = "image_id" if "image_id" in entry else "id"
        entry[key] = number if entry[key] == 1 else entry[key]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] == number]
    assert available_evaluator("bbox", truth) == REFERENCE
    results = [r for r in results if r["image_id"] == number]
    truth["images"] = truth["images"][:1]
    assert evaluate_coco(truth, results, "bbox").evaluator == REFERENCE


def test_without_the_extra_pycocotools_is_used_and_boundaries_need_it(case, monkeypatch):
    names = {**coco_metrics.EVALUATORS, FAST: "no_such_package", BOUNDARY: "none_either"}
    monkeypatch.setattr(coco_metrics, "EVALUATORS", names)
    assert evaluate_coco(*case, "segm").evaluator == REFERENCE
    with pytest.raises(MissingPackageError, match=r"pip install '\.\[fast-eval\]'"):
        evaluate_coco(*case, "boundary")


def test_unknown_tasks_and_unsuitable_evaluators_are_named(case):
    with pytest.raises(UserError, match="no task 'masks'; available: bbox, segm, boundary"):
        evaluate_coco(*case, "masks")
    with pytest.raises(UserError, match="hotcoco does not evaluate boundary"):
        evaluate_coco(*case, "boundary", evaluator=FAST)
