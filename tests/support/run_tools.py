"""Run the tools as separate programs in a separate folder."""

import os
import subprocess
import sys

CONFIG = "configs/digits/ccnet_mask_rcnn.yaml"
ALL_BOXES = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)  # scores are low after few iterations
NO_TEST = ("DATASETS.TEST", "[]")  # for tests of training only


def command(root, tool, *words):
    """Return the command line that runs a file of the folder tools."""
    return [sys.executable, str(root / "tools" / tool), *map(str, words)]


def environment(folder):
    """Return the environment of a tool whose datasets are in ``folder / "datasets"``."""
    return {**os.environ, "DETECTRON2_DATASETS": str(folder / "datasets")}


def call(root, folder, tool, *words, status=0):
    """Run a tool in ``folder``, check its exit status and return its output."""
    done = subprocess.run(
        command(root, tool, *words),
        cwd=folder,
        env=environment(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


def train(root, folder, *words, config=CONFIG, report=False, **kwargs):
    """Run tools/train_net.py in ``folder`` and return its output."""
    words = [*words, "TEST.REPORT", report]
    return call(root, folder, "train_net.py", "--config-file", root / config, *words, **kwargs)
