"""tools/compare_runs.py states whether a difference is more than chance, as text and as a page."""

import json
import re
from functools import partial

import compare_runs as tool
import numpy as np
import pytest
from support.browser import console_errors, open_page, requested_urls

from ccsa.analysis.evidence import difference
from ccsa.analysis.image_metrics import PixelMetric
from ccsa.evaluation.image_counts import SemanticCounts, write_semantic_counts
from ccsa.evaluation.semantic_metrics import semantic_metrics

IMAGES, NAMES = [f"{i}.png" for i in range(40)], ["sand", "</script><b>sea"]
DATASET = "digits_val_sem_seg"


@pytest.fixture
def run(run_tool):
    return partial(run_tool, tool)


@pytest.fixture
def evaluated(make_run):
    """Create finished runs whose images have random counts of a given quality."""

    def make(folder, quality, seed, config="digits/fcn.yaml"):
        rng = np.random.default_rng(seed)
        right = rng.binomial(1000, np.clip(rng.normal(quality, 0.05, (40, 2)), 0, 1))
        wrong = 1000 - right
        pixels = np.stack([right, np.full((40, 2), 1000), right + wrong[:, ::-1]], 1)
        sums = pixels.sum(0)
        confusion = np.zeros((3, 3), np.int64)
        confusion[[0, 1], [0, 1]] = sums[0]
        confusion[[1, 0], [0, 1]] = sums[1] - sums[0]
        overall, _ = semantic_metrics(confusion, pixels.sum(0), NAMES)
        path = make_run(folder, {"sem_seg": overall}, config, options=["SEED", seed])
        counts = SemanticCounts(IMAGES, NAMES, pixels, pixels, confusion[:2, :2])
        write_semantic_counts(path / "inference" / DATASET, counts)
        return path, PixelMetric("mIoU", IMAGES, pixels)

    return make


@pytest.fixture
def three(evaluated):
    first = [evaluated(f"digits/fcn/{seed}", 0.6, seed) for seed in (1, 2, 3)]
    second = [
        evaluated(f"digits/sanet/{seed}", 0.7, seed, "digits/sanet.yaml") for seed in (1, 2, 3)
    ]
    return first, second


def test_the_difference_to_the_first_row_has_an_interval_and_a_sentence(run, three):
    first, second = three
    status, out, _ = run(*(path for path, _ in (*first, *second)), "--no-cost")
    expected = difference([m for _, m in first], [m for _, m in second], ([1, 2, 3], [1, 2, 3]))
    assert status == 0 and expected.shown
    assert f"sanet compared with fcn: {expected.sentence}\n" in out
    header, _, one, other, *_ = out.splitlines()
    assert re.split(r"\s{2,}", header.strip())[4:6] == ["95 % interval", "difference"]
    change = f"{expected.value:+.1f} ({expected.low:+.1f} to {expected.high:+.1f})"
    assert change in other and "(" not in one
    assert "There is a difference of +" in out and "3 seeds and 40 images" in out


def test_another_baseline_reverses_the_difference(run, three):
    folders = [path for path, _ in (*three[0], *three[1])]
    _, out, _ = run(*folders, "--no-cost", "--baseline", "sanet")
    assert "fcn compared with sanet: There is a difference of -" in out
    status, _, error = run(*folders, "--no-cost", "--baseline", "fcnn")
    assert status == 2 and "--baseline" in error and "fcn" in error


def test_runs_without_counts_are_shown_with_a_note(run, evaluated, make_run):
    path, _ = evaluated("digits/fcn/1", 0.6, 1)
    older = make_run("digits/old/1", {"sem_seg": {"mIoU": 50.0}}, "digits/sanet.yaml")
    status, out, _ = run(path, older, "--no-cost")
    assert status == 0 and "note: old has no interval: " in out
    assert "sem_seg_counts.npz does not exist; evaluate the run again" in out
    assert "95 % interval" in out and "compared with" not in out


def test_the_page_has_the_same_numbers(run, three, tmp_path):
    folders = [path for path, _ in (*three[0], *three[1])]
    page = tmp_path / "page.html"
    status, out, _ = run(*folders, "--no-cost", "--html", page)
    assert status == 0 and f"written: {page}" in out
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    data = json.loads(found[1])
    first, second = ([m for _, m in part] for part in three)
    expected = difference(first, second, ([1, 2, 3], [1, 2, 3]))
    change = data["rows"][1]["difference"]
    assert [change[k] for k in ("value", "low", "high")] == pytest.approx(expected[:3], abs=1e-9)
    values = [float(m.values(np.ones((1, 40)))[0]) for m in second]
    assert data["rows"][1]["values"] == pytest.approx(values, abs=1e-9)
    assert data["metric"] == "mIoU" and data["baseline"] == "fcn"
    assert run(*folders, "--no-cost", "--html", page)[0] == 2, "it would be overwritten"


@pytest.mark.parametrize("width", [390, 1600])
def test_the_page_in_a_browser(run, three, tmp_path, width):
    folders = [path for path, _ in (*three[0], *three[1])]
    page = tmp_path / "page.html"
    assert run(*folders, "--no-cost", "--html", page)[0] == 0
    with open_page(page, width) as driver:
        assert console_errors(driver) == []
        assert [u for u in requested_urls(driver) if not u.startswith("file:")] == []
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        assert "There is a difference" in driver.find_element("css selector", ".verdict").text
        bars = driver.find_elements("css selector", "svg")
        assert len(bars) == 1 and bars[0].size["width"] > 250
