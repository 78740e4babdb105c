"""MODEL.COMPILE: compiled models compute what uncompiled ones compute, and what is rejected."""

import argparse
import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage
from support.compiled import (
    assert_same_steps,
    build,
    detection_inputs,
    needs_compiler,
    semantic_inputs,
)

from ccsa.analysis import attention_maps
from ccsa.engine import compilation
from ccsa.engine.compilation import check_compilation, compile_parts, compiled_parts
from ccsa.engine.trained_model import trained_cfg
from ccsa.errors import UserError

# A Mask R-CNN whose backbone of three convolutions compiles in seconds; tests/soak has ResNets.
DETECTOR = [
    *("MODEL.BACKBONE.NAME", "PlainBackbone", "MODEL.PLAIN.CHANNELS", [8, 16]),
    *("MODEL.PLAIN.STRIDES", [4, 2], "MODEL.ANCHOR_GENERATOR.SIZES", [[32]]),
    *("MODEL.RPN.IN_FEATURES", ["conv2"], "MODEL.ROI_HEADS.IN_FEATURES", ["conv2"]),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.CONV_DIMS", [16]),
    *("MODEL.CONTEXT.BLOCKS", [{"at": "backbone.conv2", "block": "CrissCross"}]),
]


@needs_compiler
@pytest.mark.slow
def test_mask_rcnn_has_the_same_losses_and_gradients(root):
    cfg, model = build(root, "digits/ccnet_mask_rcnn.yaml", DETECTOR)
    assert_same_steps(cfg, model, detection_inputs(), predicts=False)


@needs_compiler
@pytest.mark.slow
def test_a_semantic_model_has_the_same_losses_gradients_and_logits(root):
    options = ["MODEL.SEM_SEG_HEAD.DROPOUT", 0.0, "MODEL.PLAIN.CHANNELS", [8, 8]]
    options += ["MODEL.PLAIN.STRIDES", [2, 2], "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["conv2"]]
    options += ["MODEL.CONTEXT.BLOCKS", [{"at": "backbone.conv2", "block": "CrissCross"}]]
    cfg, model = build(root, "far_cue/any_ccnet_R2.yaml", options)
    assert_same_steps(cfg, model, semantic_inputs(cfg))


@pytest.fixture
def detector(root):
    return build(root, "digits/ccnet_mask_rcnn.yaml", DETECTOR)


def test_the_parts_are_backbone_and_heads(detector):
    names = [name for name, _ in compiled_parts(detector[1])]
    layers = [name for name in names if name.startswith("roi_heads.mask_head.")]
    assert names[:4] == [
        *("backbone", "proposal_generator.rpn_head", "roi_heads.box_head"),
        "roi_heads.box_predictor",
    ]
    assert layers == names[4:] and "roi_heads.mask_head.predictor" in layers


def test_keys_stay_and_copies_are_not_compiled(detector):
    cfg, model = detector
    keys = list(model.state_dict())
    compile_parts(cfg, model, backend="eager")
    assert list(model.state_dict()) == keys
    assert model.backbone._compiled_call_impl is not None
    average = torch.optim.swa_utils.AveragedModel(model).module
    assert all(module._compiled_call_impl is None for module in average.modules())


def test_attention_is_recorded_in_a_compiled_model(detector):
    cfg, model = detector
    inputs = detection_inputs()[:1]
    expected = attention_maps(model, inputs).criss_cross
    compile_parts(cfg, model, backend="eager").eval()(inputs)  # compiled before hooks exist
    found = attention_maps(model, inputs).criss_cross
    assert list(found) == list(expected) and len(found) == 1
    path = next(iter(expected))
    torch.testing.assert_close(found[path][0].weights, expected[path][0].weights)
    assert model.backbone._compiled_call_impl is not None


def test_nothing_is_compiled_unless_it_is_requested(root):
    cfg, model = build(root, "digits/ccnet_mask_rcnn.yaml", [*DETECTOR, "MODEL.COMPILE", False])
    compile_parts(cfg, model)
    assert all(module._compiled_call_impl is None for module in model.modules())
    check_compilation(cfg, model, processes=8)


def test_a_tool_compiles_only_if_its_command_says_so(root):
    words = {"weights": "", "config_file": str(root / "configs/digits/fcn.yaml")}
    base = ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"]
    assert not trained_cfg(argparse.Namespace(**words, opts=base)).MODEL.COMPILE
    options = [*base, "MODEL.COMPILE", "True"]
    assert trained_cfg(argparse.Namespace(**words, opts=options)).MODEL.COMPILE


def test_several_processes_are_rejected(detector):
    with pytest.raises(UserError, match="supports one process, and this job has 2; use one"):
        check_compilation(*detector, processes=2)


def test_a_model_without_known_parts_is_rejected(detector):
    with pytest.raises(UserError, match="nothing to compile in a Linear"):
        check_compilation(detector[0], torch.nn.Linear(2, 2))


def test_a_missing_compiler_is_named(detector, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(UserError, match=r"no-such-compiler -O2 was not found; install it .* CXX"):
        check_compilation(*detector)


def test_a_compiler_that_fails_is_reported_before_work_starts(detector, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)

    def fails(function):
        raise RuntimeError("Python.h: no such file")

    monkeypatch.setattr(compilation, "torch", SimpleNamespace(compile=fails, zeros=torch.zeros))
    with pytest.raises(UserError, match=r"RuntimeError: Python.h.*MODEL.COMPILE False"):
        check_compilation(*detector)


def test_losses_of_a_copy_do_not_touch_the_compiled_model(detector):
    cfg, model = detector
    compile_parts(cfg, model, backend="eager")
    other = copy.deepcopy(model)
    torch.nn.init.zeros_(other.backbone.conv2.weight)
    with EventStorage():
        model.train()(detection_inputs())
    assert model.backbone.conv2.weight.abs().max() > 0
