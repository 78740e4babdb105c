"""Compiled models with ResNets, FPN and images of two sizes, which take minutes to compile.

They are compared in float64: on images of noise, a change of the weights by 1e-7 of their values
changes gradients of these models in float32 by 1 %.
"""

import copy

import pytest
import torch
from support.compiled import (
    assert_same_steps,
    build,
    detection_inputs,
    needs_compiler,
    semantic_inputs,
    step,
)

from ccsa.engine.compilation import compile_parts

pytestmark = [pytest.mark.slow, needs_compiler]


@pytest.fixture(autouse=True)
def _forget_programs():
    torch._dynamo.reset()


def test_mask_rcnn_with_criss_cross_attention_and_fpn(root):
    """Its losses are compared in float32, because non-maximum suppression refuses float64."""
    cfg, model = build(root, "digits/ccnet_mask_rcnn.yaml")
    compiled = compile_parts(cfg, copy.deepcopy(model))
    batch = detection_inputs(size=(96, 128))
    losses, found = (step(each, batch)[0] for each in (model, compiled))
    torch.testing.assert_close(found, losses, atol=1e-5, rtol=1e-4)

    image = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    weights: dict[str, torch.Tensor] = {}
    results = []
    for each in (model, compiled):
        backbone = each.double().backbone
        each.zero_grad()
        maps = backbone(image)
        for name, x in maps.items():
            weights.setdefault(name, torch.randn_like(x))
        sum((x * weights[name]).sum() for name, x in maps.items()).backward()
        gradients = {k: p.grad for k, p in backbone.named_parameters() if p.grad is not None}
        results.append((maps, gradients))
    (maps, gradients), (found_maps, found_gradients) = results
    torch.testing.assert_close(found_maps, maps, atol=1e-9, rtol=1e-9)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert any("context.gamma" in name for name in gradients)
    torch.testing.assert_close(found_gradients, gradients, atol=1e-9 * largest, rtol=1e-7)


@pytest.mark.parametrize("name", ["ccnet", "sanet"])
def test_semantic_models_on_two_sizes(root, name):
    cfg, model = build(root, f"digits/{name}.yaml", ["MODEL.SEM_SEG_HEAD.DROPOUT", 0.0])
    assert_same_steps(cfg, model.double(), semantic_inputs(cfg), sizes=2)
