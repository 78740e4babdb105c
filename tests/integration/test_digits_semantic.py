"""Train and evaluate the semantic configurations of digits on a few scenes, for one step each, and
count the FLOPs of their models."""

import math

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.env import seed_all_rng

from ccsa.analysis import flop_analysis
from ccsa.data.image_reader import read_image
from ccsa.data.synthetic.digits import register_digits, write_digits
from ccsa.engine import Trainer, check_run
from ccsa.inference.predictor import ModelPredictor

pytestmark = pytest.mark.slow
NAMES = ("fcn", "ccnet", "ccnet_r0", "sanet", "senet", "sanet_noblock")
# If there is only one loss, it is logged as the total loss only.
SANET_LOSSES = {"loss_mask_sem_seg", "loss_dense_sem_seg", "loss_category"}
# Operators that only move data, work on each element, or reduce: without matrix multiplications.
# fmt: off
UNCOUNTED = {
    "aten._local_scalar_dense", "aten._softmax", "aten._to_copy", "aten._unsafe_index",
    "aten._unsafe_view", "aten.abs", "aten.add", "aten.add_", "aten.addcmul", "aten.alias",
    "aten.all", "aten.arange", "aten.avg_pool2d", "aten.bitwise_and", "aten.cat", "aten.ceil",
    "aten.clamp", "aten.clone", "aten.constant_pad_nd", "aten.copy_", "aten.div", "aten.empty",
    "aten.eq", "aten.exp", "aten.expand", "aten.floor", "aten.full", "aten.ge", "aten.gt",
    "aten.index", "aten.index_put_", "aten.index_select", "aten.lift_fresh", "aten.log2",
    "aten.max", "aten.max_pool2d_with_indices", "aten.mean", "aten.min", "aten.mul",
    "aten.mul_", "aten.ne", "aten.nonzero", "aten.ones", "aten.permute", "aten.relu",
    "aten.relu_", "aten.repeat_interleave", "aten.select", "aten.sigmoid", "aten.slice",
    "aten.split", "aten.split_with_sizes", "aten.sqrt", "aten.stack", "aten.sub", "aten.sum",
    "aten.t", "aten.topk", "aten.transpose", "aten.unbind", "aten.unsqueeze", "aten.unsqueeze_",
    "aten.view", "aten.zeros",
    "torchvision.nms", "torchvision.roi_align",
}
# fmt: on


@pytest.fixture(scope="module", autouse=True)
def scenes(datasets):
    """Write a few scenes and register them in catalogs that contain no others."""
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
    inputs = [ModelPredictor(cfg, model).prepare(read_image(record["file_name"]))]
    analysis = flop_analysis(model, inputs)
    assert set(analysis.uncounted_operators()) <= UNCOUNTED
    counted = analysis.by_operator()
    assert counted["aten.convolution"] > 0.8 * analysis.total()
    attention = name in ("ccnet", "ccnet_mask_rcnn")
    assert ("ccsa.criss_cross_forward" in counted) == attention
    fused_attention = any("scaled_dot_product" in operator for operator in counted)
    assert fused_attention == (name == "nonlocal_mask_rcnn")


def test_flops_of_the_attention_in_ccnet_by_hand(configure, tmp_path):
    cfg, _ = configure("digits/ccnet.yaml", tmp_path)
    model = Trainer.build_model(cfg)
    inputs = [{"image": torch.zeros(3, 160, 160), "height": 160, "width": 160}]
    parts = flop_analysis(model, inputs).by_module()
    positions, channels, inner = 20 * 20, 64, 8
    projections = positions * channels * (inner + inner + channels)
    attention = positions * (20 + 20 - 1) * (inner + channels)
    found = parts["model.sem_seg_head.attention"]
    assert found == 2 * (projections + attention)  # R = 2
