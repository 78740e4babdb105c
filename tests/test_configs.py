"""Every configuration builds, and the twins differ in their block lines alone."""

import argparse

import pytest

from ccsa.engine.checks import check_model
from ccsa.engine.setup import setup_cfg

ROOT_CONFIGS = ["ccnet", "sa", "se", "nonlocal"]
BLOCKS = {
    "ccnet": "CrissCross",
    "sa": "SqueezeAttention",
    "se": "SqueezeExcitation",
    "nonlocal": "NonLocal",
}


def load(root, name):
    file = str(root / "configs" / name)
    return setup_cfg(argparse.Namespace(config_file=file, opts=["MODEL.DEVICE", "cpu"]))


def test_every_config_builds(root):
    files = sorted((root / "configs").rglob("*.yaml"))
    assert len(files) >= 17
    for file in files:
        check_model(load(root, file.relative_to(root / "configs")))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("folder", "depth"), [("", ""), ("", "_R_101"), ("digits/", "")], ids=["R50", "R101", "digits"]
)
def test_twins_differ_in_their_block_lines_alone(root, folder, depth, block):
    plain = load(root, f"{folder}mask_rcnn{depth}.yaml")
    other = load(root, f"{folder}{block}_mask_rcnn{depth}.yaml")
    assert plain.MODEL.CONTEXT.BLOCKS == []
    (line,) = other.MODEL.CONTEXT.BLOCKS
    assert line["at"] == "backbone.bottom_up.res4.-2"
    assert line["block"] == BLOCKS[block]
    plain.defrost()
    plain.MODEL.CONTEXT.BLOCKS = other.MODEL.CONTEXT.BLOCKS
    assert plain == other


def test_coco_follows_the_papers_schedule(root):
    for name, weights in (("ccnet_mask_rcnn", "R-50"), ("ccnet_mask_rcnn_R_101", "R-101")):
        cfg = load(root, f"{name}.yaml")
        solver = cfg.SOLVER
        assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.BASE_LR) == (90000, 16, 0.02)
        assert tuple(solver.STEPS) == (60000, 80000)
        assert solver.REFERENCE_WORLD_SIZE == 8
        assert weights in cfg.MODEL.WEIGHTS
        assert cfg.MODEL.CONTEXT.BLOCKS[0]["recurrence"] == 2
        assert cfg.DATASETS.TRAIN == ("coco_2017_train",)
