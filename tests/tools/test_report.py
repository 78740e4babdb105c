"""Every run of tools/train_net.py ends with a report; tools/report.py writes one for any runs."""

import importlib
import json
import re
from functools import partial

import numpy as np
import pytest
import report as tool
import yaml
from support import own_scenes
from support.forked import OK, run_forked
from support.fuzz.world import SHORT, TINY

from ccsa.analysis.runs import read_run
from ccsa.report import evaluation


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """Return a function that trains one iteration of CCNet on class masks."""
    folder = tmp_path_factory.mktemp("report")
    own_scenes.write_class_masks(folder / "data", own_scenes.make_scenes(14))
    base, model = TINY["semantic"]
    content = {"_BASE_": str(root / f"configs/own/{base}.yaml"), **SHORT}
    content |= {"MODEL": {"DEVICE": "cpu", **model}, "TEST": {"EVAL_PERIOD": 0}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    train_net = importlib.import_module("tools.train_net")

    def train(name, *words):
        start = ["--config-file", folder / "tiny.yaml", "--data", folder / "data"]
        outcome = run_forked(train_net, [*start, "OUTPUT_DIR", folder / name, *words], folder)
        assert outcome.kind == OK, outcome.text
        return folder / name, outcome.text

    return train


@pytest.fixture
def run(run_tool):
    return partial(run_tool, tool)


def content(file):
    text = file.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def first(trained):
    return trained("first")


def test_a_run_ends_with_its_report(first):
    folder, printed = first
    assert f"report:      {folder}/report.html" in printed
    data = content(folder / "report.html")["runs"][0]
    results = json.loads((folder / "results.json").read_text())
    assert data["metrics"]["sem_seg"]["mIoU"] == pytest.approx(
        results["results"]["sem_seg"]["mIoU"]
    )
    assert data["notes"] == []
    assert [block["path"] for block in data["blocks"]] == ["sem_seg_head.attention"]
    assert data["cost"]["parameters"] > 1000 and data["cost"]["seconds"] > 0
    assert data["curves"]["total_loss"]["iteration"] == [0]
    assert data["provenance"]["command"].startswith("python tools.train_net.py --config-file")
    assert data["provenance"]["images"] == 2 and data["provenance"]["versions"]["torch"]
    counts = np.array(data["semantic"]["confusion"]["counts"])
    pixels = sum(row["count"] for row in data["classes"][0]["rows"])
    assert counts.sum() == pixels > 0
    assert 0 < len(data["worst"]) <= 2


def test_the_tool_writes_the_same_again(run, first, tmp_path):
    folder, _ = first
    file = tmp_path / "page.html"
    status, printed, error = run(folder, "--output", file)
    assert status == 0, error
    assert printed.startswith("first: mIoU ") and f"written: {file}" in printed
    again, before = content(file), content(folder / "report.html")
    for key in ("metrics", "classes", "semantic", "worst", "curves", "blocks"):
        assert again["runs"][0][key] == before["runs"][0][key], key
    assert run(folder, "--output", file)[0] == 2, "it would be overwritten"
    assert run(folder)[0] == 0, "the report of the run itself is replaced"


def test_two_runs_are_compared(run, trained, first, tmp_path):
    second, printed = trained("second", "SOLVER.BASE_LR", 0.5, "TEST.REPORT", False)
    assert "report:" not in printed and not (second / "report.html").exists()
    status, _, error = run(first[0], second)
    assert status == 2 and "name the page with --output" in error
    file = tmp_path / "both.html"
    assert run(first[0], second, "--output", file)[0] == 0
    data = content(file)
    assert [r["name"] for r in data["runs"]] == ["first", "second"]
    assert "second compared with first: " in data["verdict"]["sentences"][-1]


def test_a_report_that_fails_changes_nothing(trained, monkeypatch):
    def fail(*args):
        raise ArithmeticError("a fault\nof the report")

    monkeypatch.setattr(evaluation, "report_data", fail)
    folder, printed = trained("failed")
    assert "The report was not written (ArithmeticError: a fault of the report)." in printed
    assert not (folder / "report.html").exists()
    assert read_run(folder).results["sem_seg"]["mIoU"] >= 0
