"""Train the configurations of far_cue with fewer images and iterations."""

from pathlib import Path

import pytest
import torch
from detectron2.utils.env import seed_all_rng

from ccsa.data.synthetic.far_cue import register_far_cue, write_far_cue
from ccsa.engine import Trainer, check_run

pytestmark = pytest.mark.slow
FILES = sorted((Path(__file__).resolve().parents[2] / "configs" / "far_cue").glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def images(datasets):
    write_far_cue(datasets / "far_cue", {"train": 1000, "val": 50})
    register_far_cue(datasets)


def train(cfg, args):
    check_run(cfg, args)
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    after = list(trainer.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return trainer.results["sem_seg"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_one_step_and_one_evaluation(configure, file, tmp_path):
    results = train(*configure(file, tmp_path, "SOLVER.MAX_ITER", 1))
    assert 0 <= results["mIoU"] <= 100
    assert {"IoU-ground", "IoU-red cue", "IoU-white cue"} <= set(results)


def test_one_loop_finds_the_cue_on_the_cross(configure, tmp_path):
    """A short training is far better than guessing (0.3) for every class."""
    options = ["SOLVER.MAX_ITER", 400]
    results = train(*configure("far_cue/cross_ccnet_R1.yaml", tmp_path, *options))
    assert results["mIoU"] > 60
