"""Training that is interrupted, that meets a corrupt image, in two processes, on COCO's layout."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import torch
from support.run_tools import ALL_BOXES, CONFIG, NO_TEST, command, environment, train

from ccsa.data.synthetic.digits_as_coco import write_as_coco

pytestmark = pytest.mark.slow


def test_an_interrupt_leaves_a_checkpoint_to_resume_from(root, place):
    words = ("--config-file", root / CONFIG, "OUTPUT_DIR", "stopped", *NO_TEST)
    process = subprocess.Popen(
        command(root, "train_net.py", *words),
        cwd=place,
        env=environment(place),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell makes its background processes ignore interrupts, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = place / "stopped/log.txt"
    give_up = time.monotonic() + 600  # on a busy machine, writing the scenes takes minutes
    while process.poll() is None and time.monotonic() < give_up:
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


def test_a_corrupt_image_is_named(root, place):
    datasets = place / "broken"
    shutil.copytree(place / "datasets", datasets)
    for image in (datasets / "digits/train").glob("*.jpg"):
        image.write_bytes(image.read_bytes()[:200])
    for allowed, message in (
        ([], r"error: .*digits/train/\d+\.jpg"),  # found before training
        (["unreadable_image"], r"error: cannot read .*digits/train/\d+\.jpg"),
    ):
        done = subprocess.run(
            command(
                *(root, "train_net.py", "--config-file", root / CONFIG, *NO_TEST),
                *("DATALOADER.NUM_WORKERS", 1),  # the second error comes from another process
                *("DATASETS.ALLOW", allowed),
            ),
            cwd=place,
            env={**os.environ, "DETECTRON2_DATASETS": str(datasets)},
            text=True,
            capture_output=True,
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert re.search(message, done.stderr), done.stderr[-500:]


def test_two_gloo_processes_train_one_model(root, place):
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
