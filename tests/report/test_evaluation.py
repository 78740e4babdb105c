"""Every number of a report is the one that its source gives."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support.panoptic_digits import NAME, noisy_run

from ccsa.analysis.detections import match_images
from ccsa.analysis.detections.errors import error_costs
from ccsa.analysis.detections.slices import slices
from ccsa.analysis.evidence import interval
from ccsa.analysis.image_metrics import MeanQuality
from ccsa.analysis.run_metrics import image_metric
from ccsa.evaluation.coco_metrics import REFERENCE, evaluate_coco
from ccsa.evaluation.image_counts import read_panoptic_counts
from ccsa.report.evaluation import report_data
from ccsa.report.page import confusion_view, render_report
from ccsa.report.sections.detections import confusion
from ccsa.report.sections.provenance import comparable, data_hash
from ccsa.report.sections.training import gamma_in_words


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with noisy_run(tmp_path_factory.mktemp("report"), images=8) as found:
        yield found


@pytest.fixture(scope="module")
def data(run):
    """Return the JSON in the page."""
    text = render_report(report_data([run]))
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def files(run):
    folder = run.folder / "inference" / NAME
    truth = json.loads((run.folder.parent / "digits/annotations/instances_val.json").read_text())
    return truth, json.loads((folder / "coco_instances_results.json").read_text())


def test_the_metrics_are_those_of_results_json(run, data):
    shown = data["runs"][0]["metrics"]
    for task, values in run.results.items():
        for name, value in values.items():
            if "-" not in name:
                assert shown[task][name] == pytest.approx(value, abs=1e-9, nan_ok=True) or (
                    shown[task][name] is None and np.isnan(value)
                )
    assert set(shown["sem_seg"]) == {"mIoU", "fwIoU", "BoundaryIoU", "mACC", "pACC"}


def test_the_ap_is_that_of_pycocotools(data, files):
    expected = evaluate_coco(*files, "segm", evaluator=REFERENCE).metrics()
    shown = data["runs"][0]["metrics"]["segm"]
    for name, value in expected.items():
        assert (shown[name] is None and np.isnan(value)) or shown[name] == pytest.approx(value)


def test_classes_have_their_counts(run, data, files):
    tables = data["runs"][0]["classes"]
    assert [table["unit"] for table in tables] == ["objects", "pixels", "segments"]
    truth = files[0]
    names = {c["id"]: c["name"] for c in truth["categories"]}
    counts = Counter(names[a["category_id"]] for a in truth["annotations"])
    assert {row["name"]: row["count"] for row in tables[0]["rows"]} == {
        name: counts[name] for name in names.values()
    }
    assert tables[0]["columns"] == ["mask AP", "box AP"]
    for row in tables[0]["rows"]:
        expected = [run.results[task][f"AP-{row['name']}"] for task in ("segm", "bbox")]
        shown = [float("nan") if v is None else v for v in row["values"]]
        assert shown == pytest.approx(expected, abs=1e-9, nan_ok=True)
    pixels = sum(row["count"] for row in tables[1]["rows"])
    assert pixels == 8 * 160 * 160


def test_the_analysis_of_detections(data, files):
    found = data["runs"][0]["detections"]
    matches = match_images(*files, "segm")
    costs = error_costs(matches)
    assert found["errors"]["ap50"] == pytest.approx(costs.ap, abs=1e-9)
    for entry in found["errors"]["kinds"]:
        assert entry["cost"] == pytest.approx(costs.costs[entry["kind"]], abs=1e-9)
        assert entry["count"] == costs.counts[entry["kind"]]
    assert sum(e["count"] for e in found["errors"]["kinds"]) > 3
    assert found["slices"] == json.loads(json.dumps(slices(matches)))
    counts = np.array(found["confusion"]["counts"])
    objects = sum(not a["iscrowd"] for a in files[0]["annotations"])
    assert counts[:-1].sum() == objects and counts.shape == (11, 11)


def test_the_verdict_has_the_interval_of_the_main_metric(run, data):
    counts = read_panoptic_counts(run.folder / "inference" / NAME)
    expected = interval(MeanQuality(counts.images))
    row = data["verdict"]["comparison"]["rows"][0]
    assert row["interval"] == pytest.approx(expected[1:], abs=1e-9)
    assert row["mean"] == pytest.approx(
        image_metric(run, "panoptic_seg", "PQ").values(np.ones((1, 8)))
    )
    low, high = (f"{v:.1f}" for v in expected[1:])
    assert data["verdict"]["sentences"] == [
        f"run: panoptic quality {expected.value:.1f}, with a 95 % interval of {low} to {high} "
        "over the choice of the validation images."
    ]


def test_what_is_missing_is_noted(data):
    run = data["runs"][0]
    assert run["cost"] is None and run["curves"] is None and run["blocks"] == []
    assert [note.partition(":")[0] for note in run["notes"]] == ["cost"]
    assert "has no checkpoint" in run["notes"][0]


def test_the_worst_images_are_drawn_next_to_the_truth(data):
    worst = data["runs"][0]["worst"]
    assert 3 < len(worst) <= 8
    scores = [float(re.match(r"F1 ([\d.]+):", entry["text"])[1]) for entry in worst]
    assert scores == sorted(scores)
    for entry in worst:
        assert entry["truth"].startswith("data:image/jpeg;base64,")
        assert entry["truth"] != entry["prediction"]


def test_two_runs_are_compared_with_the_first(run):
    other = run.cfg.clone()
    other.defrost()
    other.SOLVER.MAX_ITER = 7
    found = report_data([run, type(run)(run.folder, other, run.results, None)], pictures=4)
    assert [r["name"] for r in found["runs"]] == ["run, MAX_ITER 40000", "run, MAX_ITER 7"]
    assert (
        "No difference can be shown with 1 seed and 8 images: +0.00"
        in found["verdict"]["sentences"][-1]
    )
    assert [len(r["worst"]) for r in found["runs"]] == [2, 2]


def test_the_rows_of_a_matrix_are_shares_and_large_ones_become_a_list():
    found = confusion(["a", "b"], np.array([[3, 1], [0, 0]]), "objects")
    assert found["largest"] == [{"truth": "a", "found": "b", "count": 1, "share": 25.0}]
    rows = confusion_view(found)["rows"]
    assert [[cell["share"] for cell in row] for row in rows] == [[75, 25], [0, 0]]
    many = np.eye(300, dtype=int)
    many[7, 9] = 2
    found = confusion(list(map(str, range(300))), many, "pixels")
    assert found["counts"] is None and confusion_view(found)["rows"] is None
    assert found["largest"][0] == {"truth": "7", "found": "9", "count": 2, "share": 200 / 3}


@pytest.mark.parametrize(
    ("gamma", "words"),
    [(0.0, "unchanged"), (0.5, "adds 0.5 times"), (-2.0, "subtracts 2 times"), (1e-4, "hardly")],
)
def test_gamma_in_words(gamma, words):
    assert words in gamma_in_words(gamma)


def test_the_hash_of_data_follows_annotations_and_not_folders():
    record = {"file_name": "/a/1.png", "height": 2, "annotations": [{"bbox": [1, 2, 3, 4]}]}
    moved = record | {"file_name": "/b/1.png"}
    changed = record | {"annotations": [{"bbox": [1, 2, 3, 5]}]}
    assert data_hash([record]) == data_hash([moved]) != data_hash([changed])
    assert "not a public benchmark" in comparable("my_val")
    assert "COCO val2017" in comparable("coco_2017_val_panoptic")


def test_own_data_named_like_a_benchmark_are_not_called_one():
    name = "lips_of_speakers_val"
    DatasetCatalog.register(name, list)
    try:
        assert "images of LIP" in comparable(name)
        MetadataCatalog.get(name).set(own=True)
        assert "not a public benchmark" in comparable(name)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
