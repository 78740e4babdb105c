"""Exported semantic and video models give the classes of the model, at sizes not traced."""

import importlib.util

import pytest
import torch
from detectron2.config import get_cfg
from support.tiny_segmentors import semantic, video
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.engine import Trainer
from ccsa.export import SemanticProgram, export, exported_part, semantic_differences
from ccsa.export.canvas import eager_inputs
from ccsa.export.metadata import program_metadata


def whole(kind):
    torch.manual_seed(0)
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", "ContextModel"
    cfg.MODEL.PIXEL_STD = [57.0] * 3  # attention scores of ordinary size
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 96, 200
    kind(cfg)
    model = Trainer.build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.7)
    part = exported_part(model, cfg)
    assert isinstance(part, SemanticProgram) and part.outputs == ["semantic"]
    return cfg, model, part


@pytest.mark.parametrize("kind", [semantic, video])
@pytest.mark.parametrize("name", ["torchscript", "onnx"])
def test_a_program_gives_the_classes_of_the_model(tmp_path, kind, name):
    if name == "onnx" and not importlib.util.find_spec("onnxruntime"):
        pytest.skip("pip install onnx onnxruntime onnxscript")
    cfg, model, part = whole(kind)
    file = tmp_path / ("model.onnx" if name == "onnx" else "model.pt")
    export(part, name, file, program_metadata(cfg, part=part))
    differences = semantic_differences(model, part, file)
    assert len(differences) == 7 and set(differences.values()) == {0.0}
    with torch.no_grad():  # another model is noticed
        model.sem_seg_head.predictor.weight.neg_()
    assert min(semantic_differences(model, part, file).values()) > 0.1


@pytest.mark.parametrize(("kind", "shape"), [(semantic, (77, 203, 3)), (video, (3, 77, 203, 3))])
def test_the_logits_are_those_of_the_model(kind, shape):
    _, model, part = whole(kind)
    pixels = torch.randint(256, shape, dtype=torch.uint8)
    with torch.no_grad():
        expected = model(eager_inputs(part, [pixels]))[0]["sem_seg"]
        torch.testing.assert_close(part.logits(pixels), expected)
