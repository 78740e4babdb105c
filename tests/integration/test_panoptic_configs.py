"""Train every panoptic configuration for one step and evaluate it, on a few scenes in the layout of
its dataset. Except for the digits, models and images are small; the rest is as configured."""

import os
import subprocess
import sys

import pytest
from support import former_configs, panoptic_files

from ccsa.data.synthetic.digits import write_digits
from ccsa.data.synthetic.digits_as_coco import write_as_coco

pytestmark = pytest.mark.slow
# Names of former files stand for the base with overlays that replaced them.
PANOPTIC = [name for name in former_configs.NAMES if "panoptic_fpn" in name]
DIGITS = [name for name in PANOPTIC if name.startswith("digits/")]
CITYSCAPES = [name for name in PANOPTIC if name.startswith("cityscapes/")]
COCO = [name for name in PANOPTIC if "/" not in name]
SMALL = [
    *("MODEL.WEIGHTS", "", "MODEL.RESNETS.DEPTH", "50", "MODEL.FPN.OUT_CHANNELS", "32"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"),
    *("MODEL.SEM_SEG_HEAD.SANET.CHANNELS", "32"),
    *("INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "DATALOADER.NUM_WORKERS", "0"),
]
# One process runs all configurations of a dataset, because most of the time is spent on starting.
PROGRAM = """
import argparse, math, sys
from pathlib import Path
import torch
from detectron2.utils.env import seed_all_rng
from ccsa.engine import Trainer, check_run, setup_cfg
torch.set_num_threads(1)
folder, commands, options = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
for command in commands:
    name, file, *overlays = command.split("+")
    args = argparse.Namespace(
        config_file=file, overlays=overlays,
        num_gpus=1, num_machines=1, eval_only=False, resume=False,
        opts=["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2",
              "SOLVER.REFERENCE_WORLD_SIZE", "0", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
              "OUTPUT_DIR", f"{folder}/{name}", *options],
    )
    cfg = setup_cfg(args)
    check_run(cfg, args)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True)
    seed_all_rng(0)
    trainer = Trainer(cfg)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    after = list(trainer.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after))
    results = trainer.results
    assert 0 <= results["panoptic_seg"]["PQ"] <= 100 and 0 <= results["sem_seg"]["mIoU"] <= 100
    assert "AP" in results["segm"], list(results)
    print("done", name, flush=True)
"""


def run(names, root, folder, *options):
    stems = [name.rpartition("/")[2] for name in names]
    commands = []
    for name, stem in zip(names, stems, strict=True):
        file, overlays = former_configs.command(name)
        commands.append("+".join([stem, file, *overlays]))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), ",".join(commands), *options],
        env={**os.environ, "DETECTRON2_DATASETS": str(root)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("done ")] == (
        stems
    )


def test_digits(tmp_path):
    write_digits(tmp_path / "digits", {"train": 4, "val": 2})
    assert len(DIGITS) == 2
    run(DIGITS, tmp_path, tmp_path / "out")


def prepare(root, name, datasets):
    subprocess.run(
        [sys.executable, root / "tools/prepare_dataset.py", name, "--root", datasets],
        check=True,
        capture_output=True,
    )


def test_coco(root, tmp_path):
    write_as_coco(tmp_path, train=4, val=2)
    prepare(root, "coco_panoptic", tmp_path)
    assert len(COCO) == 8
    run(COCO, tmp_path, tmp_path / "out", *SMALL)


def test_cityscapes(root, tmp_path):
    panoptic_files.cityscapes(tmp_path)
    prepare(root, "cityscapes_panoptic", tmp_path)
    assert len(CITYSCAPES) == 2
    run(CITYSCAPES, tmp_path, tmp_path / "out", *SMALL)
