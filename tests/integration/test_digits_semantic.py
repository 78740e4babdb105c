"""The semantic configurations of digits as they are, but for the number of scenes: one training
step, one evaluation, and what the step costs."""

import math

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.env import seed_all_rng

from ccsa.analysis import flop_analysis
from ccsa.data.synthetic.digits import register_digits, write_digits
from ccsa.engine import Trainer, check_run
from ccsa.inference.predictor import Predictor
from ccsa.visualization.media import read_image

pytestmark = pytest.mark.slow
NAMES = ("fcn", "ccnet", "ccnet_r0", "sanet", "senet", "sanet_noblock")
# A single loss is logged as the total alone.
SANET_LOSSES = {"loss_mask_sem_seg", "loss_dense_sem_seg", "loss_category"}
# Operators that fvcore does not know and that multiply nothing, or next to nothing.
FREE = {
    *("aten::addcmul", "aten::avg_pool2d", "aten::feature_dropout", "aten::pad", "aten::relu"),
    *("aten::mean", "aten::sum", "aten::mT", "aten::numpy_T", "aten::movedim", "aten::unflatten"),
    *("aten::topk", "prim::CallFunction"),
    "torchvision::roi_align",
}


@pytest.fixture(scope="module", autouse=True)
def scenes(datasets):
    """A few scenes, in catalogs that hold no others."""
    write_digits(datasets / "digits", {"train": 8, "val": 2})
    register_digits(datasets)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_and_one_evaluation(configure, name, tmp_path):
    cfg, args = configure(f"digits/{name}.yaml", tmp_path, "SOLVER.MAX_ITER", 1)
    check_run(cfg, args)
    seed_all_rng(0)
    trainer = Trainer(cfg)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    latest = {key: h.latest() for key, h in trainer.storage.histories().items() if "loss" in key}
    assert set(latest) - {"total_loss"} == (SANET_LOSSES if name.startswith("s") else set())
    assert all(math.isfinite(value) for value in latest.values())
    after = list(trainer.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    (results,) = trainer.results.values()
    assert 0 <= results["mIoU"] <= 100
    assert {"IoU-0", "IoU-9", "IoU-sand", "IoU-checks"} <= set(results)


@pytest.mark.parametrize("name", [*NAMES, "ccnet_mask_rcnn", "nonlocal_mask_rcnn"])
def test_every_operator_that_multiplies_is_counted(configure, name, tmp_path):
    cfg, _ = configure(f"digits/{name}.yaml", tmp_path)
    model = Trainer.build_model(cfg)
    record = DatasetCatalog.get(cfg.DATASETS.TEST[0])[0]
    inputs = [Predictor(cfg, model).prepare(read_image(record["file_name"]))]
    analysis = flop_analysis(model, inputs)
    assert set(analysis.unsupported_ops()) <= FREE
    counted = analysis.by_operator()
    assert counted["conv"] > 0.8 * analysis.total()
    attention = name in ("ccnet", "ccnet_mask_rcnn")
    assert ("criss_cross_forward" in counted) == attention
    assert ("scaled_dot_product_attention" in counted) == (name == "nonlocal_mask_rcnn")


def test_flops_of_the_attention_in_ccnet_by_hand(configure, tmp_path):
    cfg, _ = configure("digits/ccnet.yaml", tmp_path)
    model = Trainer.build_model(cfg)
    inputs = [{"image": torch.zeros(3, 160, 160), "height": 160, "width": 160}]
    parts = flop_analysis(model, inputs).by_module()
    positions, channels, inner = 20 * 20, 64, 8
    projections = positions * channels * (inner + inner + channels)
    attention = positions * (20 + 20 - 1) * (inner + channels)
    found = parts["model.sem_seg_head.attention"]
    assert found == 2 * (projections + attention)  # two loops
