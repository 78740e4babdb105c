"""Compiled models with ResNets, FPN and images of two sizes, which take minutes to compile."""

import pytest
import torch
from support.compiled import assert_same_steps, build, detection_inputs, semantic_inputs

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _forget_programs():
    torch._dynamo.reset()


def test_mask_rcnn_with_criss_cross_attention_and_fpn(root):
    cfg, model = build(root, "digits/ccnet_mask_rcnn.yaml")
    assert_same_steps(cfg, model, detection_inputs(size=(96, 128)))


@pytest.mark.parametrize("name", ["ccnet", "sanet"])
def test_semantic_models_on_two_sizes(root, name):
    cfg, model = build(root, f"digits/{name}.yaml", ["MODEL.SEM_SEG_HEAD.DROPOUT", 0.0])
    assert_same_steps(cfg, model, semantic_inputs(cfg), sizes=2)
