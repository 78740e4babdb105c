"""Error costs, confusion, curves, calibration and slices have the values of their definitions."""

import io
from contextlib import redirect_stdout

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.coco_data import CASES, SIZE, dataset

from ccsa.analysis.detections import match_images
from ccsa.analysis.detections.confusion import confusion_matrix
from ccsa.analysis.detections.curves import GRID, Scored, calibration, threshold_curves
from ccsa.analysis.detections.errors import error_costs, error_kinds
from ccsa.analysis.detections.slices import slices
from ccsa.analysis.detections.suspects import image_errors, label_suspects

WITHOUT_CROWDS = [name for name in CASES if name != "crowds"]


def hotcoco_evaluation(truth, results, task="bbox"):
    """Return hotcoco's evaluation, whose analyses have no part in this project's."""
    hotcoco = pytest.importorskip("hotcoco")
    api = hotcoco.COCO(truth)
    done = hotcoco.COCOeval(api, api.load_res(results), task)
    with redirect_stdout(io.StringIO()):
        done.run()
    return done


@pytest.mark.parametrize("case", WITHOUT_CROWDS)
def test_error_costs_are_those_of_hotcoco(case):
    truth, results = dataset(**CASES[case])
    expected = hotcoco_evaluation(truth, results).tide_errors()
    found = error_costs(match_images(truth, results, "bbox"))
    assert found.ap == pytest.approx(100 * expected["ap_base"], abs=1e-9)
    assert found.counts == {kind: expected["counts"][kind] for kind in found.counts}
    costs = {kind: 100 * expected["delta_ap"][kind] for kind in found.costs}
    assert found.costs == pytest.approx(costs, abs=1e-9)


def boxes(*rows, score=None):
    """Return entries of one image from (category, x, y, width, height[, score])."""
    entries = []
    for i, (kind, x, y, w, h, *rest) in enumerate(rows, 1):
        entry = {"image_id": 1, "category_id": kind, "bbox": [x, y, w, h], "area": w * h}
        entry |= {"score": rest[0]} if rest else {"id": i, "iscrowd": 0}
        entries.append(entry)
    return entries


def truth_of(annotations, categories=(1, 2)):
    return {
        "images": [{"id": 1, "width": SIZE, "height": SIZE}],
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c)} for c in categories],
    }


def test_each_kind_of_error_is_recognized():
    objects = (1, 0, 0, 20, 20), (2, 50, 50, 20, 20), (1, 100, 100, 20, 20), (1, 60, 120, 20, 20)
    truth = truth_of(boxes(*objects))
    found = boxes(
        (1, 0, 0, 20, 20, 0.9),  # correct
        (1, 0, 1, 20, 20, 0.8),  # Dupe
        (1, 50, 50, 20, 19, 0.7),  # Cls
        (1, 110, 100, 20, 20, 0.6),  # Loc: IoU 1 / 3
        (2, 10, 0, 20, 20, 0.5),  # Both: IoU 1 / 3 with another class
        (2, 140, 0, 10, 10, 0.4),  # Bkg
        (1, 60, 120, 20, 20, 0.3),  # correct: only before such a one does a duplicate cost AP
    )
    (m,) = match_images(truth, found, "bbox")
    kinds, targets = error_kinds(m)
    assert kinds.tolist() == ["", "Dupe", "Cls", "Loc", "Both", "Bkg", ""]
    assert targets.tolist() == [-1, -1, 1, 2, -1, -1, -1]
    costs = error_costs([m])
    assert costs.counts == {"Cls": 1, "Loc": 1, "Both": 1, "Dupe": 1, "Bkg": 1, "Miss": 0}
    assert all(costs.costs[kind] > 0 for kind in ("Cls", "Loc", "Dupe"))


def test_an_image_without_objects_and_one_without_detections():
    alone = error_costs(match_images(truth_of([]), boxes((1, 0, 0, 5, 5, 0.5)), "bbox"))
    assert alone.counts["Bkg"] == 1 and alone.ap == 0
    missed = error_costs(match_images(truth_of(boxes((1, 0, 0, 9, 9))), [], "bbox"))
    assert missed.counts["Miss"] == 1 and sum(missed.counts.values()) == 1


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


@pytest.mark.parametrize("case", WITHOUT_CROWDS)
def test_the_confusion_matrix_is_that_of_a_loop(case):
    truth, results = dataset(**CASES[case])
    categories = [c["id"] for c in truth["categories"]]
    limits = {c: 0.2 + c / 20 for c in categories}
    size = len(categories)
    expected = np.zeros((size + 1, size + 1), int)
    for image in truth["images"]:
        free = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        found = [r for r in results if r["image_id"] == image["id"]]
        for kind in categories:  # COCO's limit
            same = sorted((r for r in found if r["category_id"] == kind), key=lambda r: -r["score"])
            found = [r for r in found if r["category_id"] != kind] + same[:100]
        order = {id(r): i for i, r in enumerate(results)}
        for result in sorted(found, key=lambda r: (-r["score"], order[id(r)])):
            kind = result["category_id"]
            if result["score"] < limits[kind]:
                continue
            best = max(free, key=lambda a: iou(a["bbox"], result["bbox"]), default=None)
            if best is not None and iou(best["bbox"], result["bbox"]) >= 0.5:
                free.remove(best)
                expected[best["category_id"] - 1, kind - 1] += 1
            else:
                expected[size, kind - 1] += 1
        for annotation in free:
            expected[annotation["category_id"] - 1, size] += 1
    found = confusion_matrix(match_images(truth, results, "bbox"), categories, limits)
    assert found.tolist() == expected.tolist() and expected.sum() > 10


@pytest.mark.parametrize("case", ["ordinary", "crowds", "many detections"])
def test_calibration_is_that_of_hotcoco(case):
    truth, results = dataset(**CASES[case])
    expected = hotcoco_evaluation(truth, results).calibration()
    found = calibration(match_images(truth, results, "bbox"))
    assert found["ece"] == pytest.approx(expected["ece"], abs=1e-9)
    for mine, theirs in zip(found["bins"], expected["bins"], strict=True):
        assert mine["count"] == theirs["count"]
        if mine["count"]:
            assert mine["score"] == pytest.approx(theirs["avg_confidence"], abs=1e-9)
            assert mine["precision"] == pytest.approx(theirs["avg_accuracy"], abs=1e-9)


@pytest.mark.parametrize("case", ["ordinary", "crowds"])
def test_curves_count_the_detections_above_each_threshold(case):
    truth, results = dataset(**CASES[case])
    matches = match_images(truth, results, "segm")
    names = {c["id"]: c["name"] for c in truth["categories"]}
    curves = threshold_curves(matches, names)
    for number, name in [(None, None), *names.items()]:
        curve = curves["all"] if number is None else curves["classes"][name]
        scored = [
            (float(m.scores[d]), bool(m.correct[0, d]))
            for m in matches
            for d in range(len(m.found))
            if not m.ignored[0, d] and number in (None, int(m.found_classes[d]))
        ]
        objects = sum(
            not a["iscrowd"] and number in (None, a["category_id"]) for a in truth["annotations"]
        )

        def values(threshold, scored=scored, objects=objects):
            kept = [correct for score, correct in scored if score >= threshold]
            f1 = 2 * sum(kept) / (len(kept) + objects)
            return (sum(kept) / len(kept) if kept else np.nan), sum(kept) / objects, f1

        if not objects:
            assert curve["best"] is None and np.isnan(curve["f1"]).all()
            continue
        expected = np.array([values(threshold) for threshold in GRID]).T
        for key, row in zip(("precision", "recall", "f1"), expected, strict=True):
            np.testing.assert_allclose(curve[key], row, atol=1e-12)
        best = max(values(score)[2] for score, _ in scored)
        assert curve["best"]["f1"] == pytest.approx(best, abs=1e-12)
        assert values(curve["best"]["threshold"])[2] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("case", ["ordinary", "crowds", "many detections"])
def test_precision_over_recall_is_that_of_pycocotools(case):
    truth, results = dataset(**CASES[case])
    matches = match_images(truth, results, "bbox")
    names = {c["id"]: c["name"] for c in truth["categories"]}
    curves = threshold_curves(matches, names)
    reference = COCO()
    reference.dataset = truth
    reference.createIndex()
    evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
    most = max(len(m.found) for m in matches)
    evaluation.params.maxDets = [1, 10, max(100, most)]
    evaluation.evaluate()
    evaluation.accumulate()
    assert curves["recalls"] == pytest.approx(evaluation.params.recThrs)
    for index, number in enumerate(evaluation.params.catIds):
        expected = evaluation.eval["precision"][0, :, index, 0, -1]
        expected = np.where(expected < 0, np.nan, expected)  # a class without objects
        found = curves["classes"][names[number]]["over_recall"]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_precision_over_recall_of_all_classes():
    """Scores 0.9 (correct), 0.8 (wrong), 0.7 (correct) of 4 objects."""
    scored = Scored(np.array([0.7, 0.9, 0.8]), np.array([1, 1, 0]), 4)
    found = scored.over_recall()
    np.testing.assert_allclose(found[:26], 1)
    np.testing.assert_allclose(found[26:51], 2 / 3)
    np.testing.assert_allclose(found[51:], 0)


def test_slices_partition_the_objects():
    truth, results = dataset(seed=9, images=20, most=8, crowds=0.1)
    matches = match_images(truth, results, "segm")
    found = slices(matches)
    objects = [a for a in truth["annotations"] if not a["iscrowd"]]
    hits = {m.objects[g]["id"]: m.hits[:, g] for m in matches for g in range(len(m.objects))}
    for bins in found.values():
        assert sum(b["objects"] for b in bins) == len(objects)
        assert all(0 <= b["recall"] <= b["recall50"] <= 1 for b in bins)
    small = [a for a in objects if a["area"] < 32**2]
    (found_small,) = (b for b in found["size"] if b["name"].startswith("small"))
    assert found_small["objects"] == len(small)
    assert found_small["recall"] == pytest.approx(np.mean([hits[a["id"]] for a in small]))
    assert found_small["recall50"] == pytest.approx(np.mean([hits[a["id"]][0] for a in small]))

    alone = near = 0
    for a in objects:
        others = [
            np.hypot(*(center(a) - center(b))) / np.hypot(SIZE, SIZE)
            for b in objects
            if b is not a and (b["image_id"], b["category_id"]) == (a["image_id"], a["category_id"])
        ]
        alone += not others
        near += bool(others) and min(others) < 0.1
    distances = {b["name"]: b["objects"] for b in found[_DISTANCE]}
    assert distances.get("below 10 % of the diagonal", 0) == near
    assert distances["no other object of the class"] == alone


_DISTANCE = "distance to the nearest object of the same class"


def center(annotation):
    x, y, w, h = annotation["bbox"]
    return np.array([x + w / 2, y + h / 2])


def test_neighbors_and_positions():
    truth = truth_of(boxes((1, 0, 0, 20, 20), (2, 25, 0, 20, 20), (1, 120, 130, 20, 20)))
    found = slices(match_images(truth, boxes((1, 0, 0, 20, 20, 0.9)), "bbox"))
    assert {b["name"]: b["objects"] for b in found["neighbors"]} == {"none": 1, "1": 2}
    positions = {b["name"]: (b["objects"], b["recall50"]) for b in found["position in the image"]}
    assert positions == {"top left": (2, 0.5), "bottom right": (1, 0.0)}


def test_suspected_annotations():
    truth = truth_of(boxes((1, 0, 0, 20, 20), (2, 50, 50, 20, 20), (1, 100, 100, 40, 40)))
    found = boxes(
        (1, 0, 0, 20, 20, 0.95),
        (1, 50, 50, 20, 20, 0.9),
        (2, 0, 130, 20, 20, 0.99),
        (1, 140, 0, 9, 9, 0.7),
    )
    suspects = label_suspects(match_images(truth, found, "bbox"))
    assert [(s.kind, s.annotated, s.detected) for s in suspects] == [
        ("missing annotation", None, 2),
        ("wrong class", 2, 1),
        ("no object", 1, None),
    ]


def test_the_worst_images_are_first():
    truth, results = dataset(seed=4)
    matches = match_images(truth, results, "segm")
    errors = image_errors(matches, dict.fromkeys(range(1, 5), 0.5))
    assert len(errors) == len(truth["images"])
    assert [e.f1 for e in errors] == sorted(e.f1 for e in errors)
    assert sum(e.correct + e.missed for e in errors) == len(truth["annotations"])
    kept = sum(r["score"] >= 0.5 for r in results)
    assert sum(e.correct + e.wrong for e in errors) == kept


def test_masks_in_every_form_of_coco_are_compared():
    truth, results = dataset(images=2, crowds=0)
    expected = match_images(truth, results, "segm")
    for entry in truth["annotations"]:
        mask = coco_mask.merge(coco_mask.frPyObjects(entry["segmentation"], SIZE, SIZE))
        pixels = coco_mask.decode(mask).ravel(order="F")
        ends = np.flatnonzero(np.diff(pixels)) + 1
        counts = np.diff([0, *ends, pixels.size]).tolist()
        entry["segmentation"] = {"size": [SIZE, SIZE], "counts": [0] * pixels[0] + counts}
    for m, other in zip(expected, match_images(truth, results, "segm"), strict=True):
        np.testing.assert_array_equal(m.ious, other.ious)
