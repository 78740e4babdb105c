"""Every panoptic configuration: one training step and one evaluation on a few scenes in its own
dataset's layout. Models and images of all but the digits are small, everything else is as
configured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import panoptic_files

from ccsa.data.synthetic.digits import write_digits
from ccsa.data.synthetic.digits_as_coco import write_as_coco

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DIGITS = sorted((CONFIGS / "digits").glob("*panoptic_fpn.yaml"))
CITYSCAPES = sorted((CONFIGS / "cityscapes").glob("*panoptic_fpn.yaml"))
COCO = sorted(CONFIGS.glob("*panoptic_fpn*.yaml"))
SMALL = [
    *("MODEL.WEIGHTS", "", "MODEL.RESNETS.DEPTH", "50", "MODEL.FPN.OUT_CHANNELS", "32"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"),
    *("MODEL.SEM_SEG_HEAD.SANET.CHANNELS", "32"),
    *("INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "DATALOADER.NUM_WORKERS", "0"),
]
# One process for all configurations of a dataset: most of the time goes into starting.
PROGRAM = """
import argparse, math, sys
from pathlib import Path
import torch
from detectron2.utils.env import seed_all_rng
from ccsa.engine import Trainer, check_run, setup_cfg
torch.set_num_threads(1)
folder, files, options = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
for file in files:
    args = argparse.Namespace(
        config_file=file, num_gpus=1, num_machines=1, eval_only=False, resume=False,
        opts=["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2",
              "SOLVER.REFERENCE_WORLD_SIZE", "0", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
              "OUTPUT_DIR", f"{folder}/{Path(file).stem}", *options],
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
    print("done", Path(file).stem, flush=True)
"""


def run(files, root, folder, *options):
    names = ",".join(map(str, files))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), names, *options],
        env={**os.environ, "DETECTRON2_DATASETS": str(root)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("done ")] == [
        file.stem for file in files
    ]


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
