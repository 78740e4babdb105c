"""A short training run of the main example, and the uses of its result."""

import json
import re
import shutil

import pytest
import torch
from support.run_tools import NO_TEST, call, train

pytestmark = pytest.mark.slow
BLOCK = "backbone.bottom_up.res4.0.context"
AP_BOUND = 15.0  # 24 is typical; a block that loses its input stays near 0


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(root, place):
    """Train for 200 iterations and return the run folder and the output."""
    printed = train(
        *(root, place, "SOLVER.MAX_ITER", 200, "SOLVER.STEPS", "(160,)"),
        *("SOLVER.CHECKPOINT_PERIOD", 100, "OUTPUT_DIR", "main"),
    )
    return place / "main", printed


def test_training_reaches_its_average_precision(trained):
    folder, printed = trained
    results = json.loads((folder / "results.json").read_text())["results"]
    assert results["segm"]["AP"] > AP_BOUND
    assert results["bbox"]["AP"] > AP_BOUND
    assert re.search(rf"mask AP {results['segm']['AP']:.1f} in \d+ s", printed)
    for table in ("Evaluation results for bbox", "Evaluation results for segm"):
        assert table in printed
    for file in ("results.json", "predictions.png", "model_final.pth", "log.txt"):
        assert (folder / file).exists() and f"main/{file}" in printed
    assert list(folder.glob("events.out.tfevents*"))
    assert not list(folder.rglob("*.partial*"))


def test_progress_shows_time_left_loss_and_memory(trained):
    _, printed = trained
    lines = [line for line in printed.splitlines() if re.search(r"\d+/200 ", line)]
    assert len(lines) >= 10
    assert all("loss" in x and "memory" in x and "left" in x for x in lines[1:])
    assert "device: " in printed
    assert "backbone.bottom_up.res4.0 " in printed  # the placement table


def test_gamma_has_learnt_and_is_logged(trained):
    folder, _ = trained
    logged = [line[f"gamma/{BLOCK}"] for line in metrics(folder) if f"gamma/{BLOCK}" in line]
    assert len(logged) >= 10 and logged[-1] != 0
    state = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    assert state[f"{BLOCK}.gamma"].item() == pytest.approx(logged[-1])


def test_eval_only_gives_the_same_figures(root, place, trained):
    folder, _ = trained
    train(
        *(root, place, "--eval-only", "MODEL.WEIGHTS", folder / "model_final.pth"),
        *("OUTPUT_DIR", "evaluated"),
    )
    first, again = (
        json.loads((place / name / "results.json").read_text())["results"]
        for name in ("main", "evaluated")
    )
    for task in ("bbox", "segm"):
        assert again[task]["AP"] == pytest.approx(first[task]["AP"], abs=0.2)


def test_resume_goes_on_where_it_ended(root, place, trained):
    copy = place / "resumed"
    shutil.copytree(trained[0], copy)
    printed = train(
        *(root, place, "--resume", "SOLVER.MAX_ITER", 204, "OUTPUT_DIR", copy), *NO_TEST
    )
    assert "Starting training from iteration 200" in printed
    assert torch.load(copy / "model_final.pth", weights_only=True)["iteration"] == 203
    before = torch.load(trained[0] / "model_final.pth", weights_only=True)["model"]
    after = torch.load(copy / "model_final.pth", weights_only=True)["model"]
    assert not torch.equal(before[f"{BLOCK}.gamma"], after[f"{BLOCK}.gamma"])


def test_a_run_folder_is_not_taken_again(root, place, trained):
    state = {p: p.stat().st_mtime_ns for p in trained[0].iterdir()}
    printed = train(root, place, "OUTPUT_DIR", trained[0], status=2)
    assert "contains a run" in printed and "Traceback" not in printed
    assert {p: p.stat().st_mtime_ns for p in trained[0].iterdir()} == state


def test_demo_draws_scenes_with_a_run(root, place, trained):
    scenes = place / "datasets/digits/val"
    call(
        *(root, place, "demo.py", "--weights", trained[0]),
        *("--input", scenes / "00000[12].jpg", "--output", "shown"),
    )
    assert sorted(p.name for p in (place / "shown").iterdir()) == ["000001.jpg", "000002.jpg"]
