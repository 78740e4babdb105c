"""Comparison of compiled models with uncompiled ones."""

import argparse
import copy
import shutil

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from ccsa.engine import Trainer, setup_cfg
from ccsa.engine.compilation import compile_parts

needs_compiler = pytest.mark.skipif(
    not shutil.which("g++"), reason="no C++ compiler: apt install g++"
)


def build(root, config, options=()):
    """Return the configuration, with MODEL.COMPILE, and the model of a file, with gamma = 0.7."""
    words = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", "unused", "MODEL.COMPILE", True, *options]
    args = argparse.Namespace(
        config_file=str(root / "configs" / config), opts=[str(word) for word in words]
    )
    cfg = setup_cfg(args)
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.7)
    return cfg, model


def detection_inputs(count=2, size=(64, 96)):
    """Return images of noise with two objects each."""
    height, width = size
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)
    boxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [30.0, 20.0, width - 6.0, height - 6.0]])
    masks = torch.zeros(2, *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    objects = Instances(
        size, gt_boxes=Boxes(boxes), gt_classes=torch.tensor([1, 2]), gt_masks=BitMasks(masks)
    )
    return [{"image": x, "height": height, "width": width, "instances": objects} for x in images]


def semantic_inputs(cfg, count=2, size=(32, 48)):
    """Return images of noise with random labels."""
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)
    return [{"image": x, "sem_seg": torch.randint(0, classes, size)} for x in images]


def assert_same_steps(cfg, model, inputs, *, sizes=1, predicts=True):
    """Compare a model with its compiled form: losses, gradients and statistics of norms, and
    predictions unless ``predicts`` is False, on one size of the images or also on a smaller one."""
    compiled = compile_parts(cfg, copy.deepcopy(model))
    batches = [inputs] if sizes == 1 else [inputs, [_smaller(x) for x in inputs]]
    for batch in batches:
        expected, found = (step(each, batch) for each in (model, compiled))
        torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-4)
        largest = max(float(gradient.abs().max()) for gradient in expected[1].values())
        torch.testing.assert_close(found[1], expected[1], atol=1e-5 * largest, rtol=1e-3)
        torch.testing.assert_close(found[2], expected[2], atol=1e-5, rtol=1e-4)
    for batch in batches if predicts else ():
        with torch.no_grad():
            outputs = [each.eval()(batch) for each in (model, compiled)]
        for expected, found in zip(*outputs, strict=True):
            if "sem_seg" in expected:
                torch.testing.assert_close(found["sem_seg"], expected["sem_seg"], atol=1e-4, rtol=0)
            else:
                expected, found = expected["instances"], found["instances"]
                assert len(expected) == len(found) > 0
                torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-4)
                assert float((found.pred_masks != expected.pred_masks).float().mean()) < 1e-3


def _smaller(item):
    """Return a semantic input without its last rows and columns."""
    image = item["image"][:, :24, :36]
    return {**item, "image": image, "sem_seg": item["sem_seg"][:24, :36]}


def step(model, batch):
    """Return losses, gradients and buffers of a step; the sampling of objects is the same."""
    torch.manual_seed(1)
    model.train().zero_grad()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, dict(model.named_buffers())
