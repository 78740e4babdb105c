"""Tools as programs of their own, in a folder of their own."""

import os
import subprocess
import sys

CONFIG = "configs/digits/ccnet_mask_rcnn.yaml"
ALL_BOXES = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)  # a few iterations are sure of nothing
NO_TEST = ("DATASETS.TEST", "[]")  # where only training is looked at


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
