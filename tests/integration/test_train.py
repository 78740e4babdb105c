"""The main job in its short form, and what users do with its result."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from ccsa.data.coco_layout import write_as_coco

pytestmark = pytest.mark.slow
CONFIG = "configs/digits/ccnet_mask_rcnn.yaml"
BLOCK = "backbone.bottom_up.res4.0.context"
AP_BOUND = 15.0  # 24 where this was written; a block that loses its input stays near 0
ALL_BOXES = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)  # a few iterations are sure of nothing
NO_TEST = ("DATASETS.TEST", "[]")  # where only training is looked at


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def command(root, tool, *words):
    return [sys.executable, str(root / "tools" / tool), *map(str, words)]


def environment(place):
    return {**os.environ, "DETECTRON2_DATASETS": str(place / "datasets")}


def call(root, place, tool, *words, status=0):
    """Run a tool in ``place``; gives what it printed."""
    done = subprocess.run(
        command(root, tool, *words),
        cwd=place,
        env=environment(place),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


def train(root, place, *words, config=CONFIG, **kwargs):
    return call(root, place, "train_net.py", "--config-file", root / config, *words, **kwargs)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(root, place):
    """A run of 200 iterations and what it printed."""
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
    assert "holds a run" in printed and "Traceback" not in printed
    assert {p: p.stat().st_mtime_ns for p in trained[0].iterdir()} == state


def test_demo_draws_scenes_with_a_run(root, place, trained):
    scenes = place / "datasets/digits/val"
    call(
        *(root, place, "demo.py", "--weights", trained[0]),
        *("--input", scenes / "00000[12].jpg", "--output", "shown"),
    )
    assert sorted(p.name for p in (place / "shown").iterdir()) == ["000001.jpg", "000002.jpg"]


def test_an_interrupt_leaves_a_checkpoint_to_resume_from(root, place, trained):
    words = ("--config-file", root / CONFIG, "OUTPUT_DIR", "stopped", *NO_TEST)
    process = subprocess.Popen(
        command(root, "train_net.py", *words),
        cwd=place,
        env=environment(place),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell lets what it starts in the background ignore interrupts; children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = place / "stopped/log.txt"
    for _ in range(600):
        if log.exists() and "  20/" in log.read_text():
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    try:
        printed = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in printed, printed[-3000:]
    saved = torch.load(next((place / "stopped").glob("model_*.pth")), weights_only=True)
    assert saved["iteration"] >= 19
    again = train(
        *(root, place, "--resume", "OUTPUT_DIR", "stopped"),
        *("SOLVER.MAX_ITER", saved["iteration"] + 3, "SOLVER.STEPS", "(1,)", *NO_TEST),
    )
    assert f"Starting training from iteration {saved['iteration'] + 1}" in again


def test_a_corrupt_image_is_named(root, place, trained):
    datasets = place / "broken"
    shutil.copytree(place / "datasets", datasets)
    for image in (datasets / "digits/train").glob("*.jpg"):
        image.write_bytes(image.read_bytes()[:200])
    done = subprocess.run(
        command(
            *(root, "train_net.py", "--config-file", root / CONFIG, *NO_TEST),
            *("DATALOADER.NUM_WORKERS", 1),  # the error comes from another process
        ),
        cwd=place,
        env={**os.environ, "DETECTRON2_DATASETS": str(datasets)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(r"error: cannot read .*digits/train/\d+\.jpg", done.stderr)


def test_two_gloo_processes_train_one_model(root, place, trained):
    printed = train(
        *(root, place, "--num-gpus", 2, "--dist-url", "auto", "MODEL.DEVICE", "cpu"),
        *("SOLVER.MAX_ITER", 4, "OUTPUT_DIR", "two", *ALL_BOXES),
    )
    assert (place / "two/log.txt.rank1").exists()
    assert printed.count("mask AP ") == 1
    assert torch.load(place / "two/model_final.pth", weights_only=True)["iteration"] == 3
    results = json.loads((place / "two/results.json").read_text())["results"]
    assert "segm" in results


def test_coco_layout_trains_and_evaluates(root, place):
    write_as_coco(place / "datasets_coco", train=8, val=2)
    done = subprocess.run(
        command(
            *(root, "train_net.py", "--config-file", root / "configs/ccnet_mask_rcnn.yaml"),
            *("MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", "coco"),
            *("INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", 96),
            *("DATALOADER.NUM_WORKERS", 0, *ALL_BOXES),
        ),
        cwd=place,
        env={**os.environ, "DETECTRON2_DATASETS": str(place / "datasets_coco")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "8/8 " in done.stdout and "Evaluation results for segm" in done.stdout
