"""Exported programs agree with the model at other sizes than they were written with."""

import importlib.util

import pytest
import torch
from detectron2.config import get_cfg
from support.tiny_segmentors import BLOCK, semantic, video
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.engine import Trainer
from ccsa.errors import MissingPackageError, UserError
from ccsa.export import (
    FORMATS,
    BackbonePart,
    SemanticPart,
    difference,
    export,
    exported_part,
    program_metadata,
)
from ccsa.export.programs import check_packages, example_image
from ccsa.modeling import TimmBackbone


def plain(cfg):
    """Configure a head without a block, which torch.export exports fastest."""
    semantic(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NAME = "FCNHead"


def resnet(cfg):
    """Configure SANet's head on a dilated ResNet-18."""
    semantic(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_dilated_resnet_backbone"
    resnet, levels = cfg.MODEL.RESNETS, ["res2", "res3", "res4", "res5"]
    resnet.DEPTH, resnet.RES2_OUT_CHANNELS, resnet.NORM = 18, 64, "BN"
    resnet.OUT_FEATURES, cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = levels, levels
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.SANET.CHANNELS = "SANetHead", 8


def detector(cfg):
    """Configure Mask R-CNN on a ResNet-18 with FPN, with a block on one level."""
    cfg.MODEL.MASK_ON = True
    # With attention scores in the hundreds, a rounding error would select another position.
    cfg.MODEL.PIXEL_STD = [255.0] * 3
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH, resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS = 18, 64, 64
    levels = ["res2", "res3", "res4", "res5"]
    resnet.NORM, resnet.OUT_FEATURES = "BN", levels
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS = levels, 8
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.IN_FEATURES = "StandardROIHeads", ["p2"]
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.CONTEXT.BLOCKS = [{"at": "backbone.fpn_output4", **BLOCK}]


@pytest.fixture
def build():
    def make(kind):
        torch.manual_seed(0)
        cfg = get_cfg()
        add_ccsa_config(cfg)
        cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", "ContextModel"
        kind(cfg)
        model = Trainer.build_model(cfg).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                nn.init.constant_(parameter, 0.7)
        return model

    return make


def installed(name):
    lacking = [p for p in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(p)]
    if name == "onnx" and lacking:
        pytest.skip(f"pip install {' '.join(lacking)}")


@pytest.mark.parametrize("kind", [semantic, video, detector])
@pytest.mark.parametrize("name", FORMATS)
def test_a_program_agrees_with_the_model_at_other_sizes(build, tmp_path, name, kind):
    installed(name)
    part, file = exported_part(build(kind)), tmp_path / f"model{FORMATS[name].suffix}"
    export(part, name, file)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]  # a single file
    size, share = difference(part, name, file)
    assert size == (5 * part.multiple, 4 * part.multiple) and share < 1e-4
    run, image = FORMATS[name].load(file), example_image(part, 2, 6)
    with torch.no_grad():
        expected = part(image)
    assert len(expected) == len(part.outputs)
    for a, b in zip(run(image), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [semantic, resnet])
def test_torchscript_takes_any_size_and_batch(build, tmp_path, kind):
    """docs/EXPORT.md documents it for semantic models whose backbone pads like a ResNet."""
    model, file = build(kind), tmp_path / "model.pt"
    export(exported_part(model), "torchscript", file)
    program = FORMATS["torchscript"].load(file)
    for shape in [(3, 3, 97, 65), (1, 3, 65, 210), (2, 3, 64, 96)]:
        images = 255 * torch.rand(shape)
        with torch.no_grad():
            (logits,) = program(images)
            results = model([{"image": image} for image in images])
        expected = torch.stack([r["sem_seg"] for r in results])
        # The scores are large: the model computes in float64, and a program in float32.
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 32, 64), (2, 3, 64, 64)])
def test_torch_export_refuses_smaller_images_and_batches(build, tmp_path, shape):
    file = tmp_path / "model.pt2"
    export(exported_part(build(plain)), "torch.export", file)
    with pytest.raises(AssertionError, match="Guard failed"):
        FORMATS["torch.export"].load(file)(torch.zeros(shape))


@pytest.mark.parametrize(("kind", "shape"), [(semantic, (3,)), (video, (3, 3))])
def test_a_semantic_part_is_the_model(build, kind, shape):
    model = build(kind)
    image = 255 * torch.rand(*shape, 64, 96)
    with torch.no_grad():
        (logits,) = exported_part(model)(image if kind is video else image[None])
        expected = model([{"image": image}])[0]["sem_seg"]
    torch.testing.assert_close(logits[0], expected)


def test_a_backbone_part_is_what_the_heads_get(build):
    model = build(detector)
    part = exported_part(model)
    assert isinstance(part, BackbonePart) and part.multiple == 64  # the stride of p6
    image = 255 * torch.rand(3, 64, 128)
    with torch.no_grad():
        expected = model.backbone(model.preprocess_image([{"image": image}]).tensor)
        maps = dict(zip(part.outputs, part(image[None]), strict=True))
    assert list(maps) == ["p2", "p3", "p4", "p5", "p6"]
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("name", ["tf_mobilenetv3_small_minimal_100", "tf_efficientnet_lite0"])
def test_padding_by_size_becomes_constant(name):
    model = nn.Module()
    model.backbone = TimmBackbone(name, output_stride=8).eval()
    model.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
    model.register_buffer("pixel_std", torch.ones(3, 1, 1))
    part, image = exported_part(model), torch.randn(1, 3, 64, 96)
    kinds = [{type(m).__name__ for m in each.modules()} for each in (model, part)]
    assert ["Conv2dSame" in kind for kind in kinds] == [True, False]
    with torch.no_grad():
        for a, b in zip(part(image), model.backbone(image).values(), strict=True):
            assert torch.equal(a, b)


def test_a_program_that_differs_is_told(build, tmp_path):
    part, file = exported_part(build(semantic)), tmp_path / "model.pt"
    export(part, "torchscript", file)
    assert isinstance(part, SemanticPart)
    with torch.no_grad():
        part.head.predictor.bias.add_(100.0)
    assert difference(part, "torchscript", file)[1] > 0.5
    part.forward = lambda image: (image[:, :, 1:],)
    assert difference(part, "torchscript", file)[1] == float("inf")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FORMATS)
def test_a_model_on_a_gpu_is_compared(build, tmp_path, name):
    installed(name)
    part, file = exported_part(build(semantic).cuda()), tmp_path / f"model{FORMATS[name].suffix}"
    export(part, name, file)
    assert difference(part, name, file)[1] < 1e-3


def test_a_model_without_a_backbone_is_refused():
    with pytest.raises(UserError, match="a Conv2d cannot be exported: it has no backbone"):
        exported_part(nn.Conv2d(1, 1, 1))


def test_a_model_that_a_format_cannot_express_is_refused(build, tmp_path):
    part = exported_part(build(semantic))
    part.head.layers = lambda features: features["conv2"] * float(features["conv2"].mean())
    with pytest.raises(UserError, match=r"torch\.export cannot express .* torchscript, onnx"):
        export(part, "torch.export", tmp_path / "model.pt2")


def test_without_onnx_the_command_that_gets_it_is_named(build, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if "onnx" in name else find(name, *a)
    )
    part = exported_part(build(semantic))
    with pytest.raises(UserError, match="onnx and onnxscript, which are not installed: run pip"):
        export(part, "onnx", tmp_path / "model.onnx")
    with pytest.raises(
        UserError,
        match=r"which is not installed: run pip install '\.\[export\]' in a clone of ccsa",
    ):
        difference(part, "onnx", tmp_path / "model.onnx")


def test_a_package_whose_spec_raises_is_missing(monkeypatch):
    def find_spec(name, *args):
        raise ValueError(f"{name}.__spec__ is None")

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(MissingPackageError, match="onnx needs onnxruntime, which is not installed"):
        check_packages("onnx", "run")
    check_packages("torchscript", "write", "run")


@pytest.mark.parametrize("name", FORMATS)
def test_a_program_states_its_classes_and_how_images_are_read(build, tmp_path, name):
    installed(name)
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.INPUT.INTENSITY_RANGE, cfg.INPUT.FORMAT = [12, 4095.5], "RGB"
    metadata = program_metadata(cfg, ["Zelle", "noyau é"], ["background"])
    part, file = exported_part(build(plain)), tmp_path / f"model{FORMATS[name].suffix}"
    export(part, name, file, metadata)
    stored = FORMATS[name].metadata(file)
    assert stored == metadata
    assert stored["thing_classes"] == ["Zelle", "noyau é"]
    assert stored["stuff_classes"] == ["background"]
    assert stored["intensity_range"] == [12.0, 4095.5] and stored["channels"] == "RGB"
    assert "12" not in stored["image"] and "more than 8 bits" in stored["image"]


def test_images_of_8_bits_need_no_range():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    metadata = program_metadata(cfg)
    assert metadata["intensity_range"] is None and "8 bits" not in metadata["image"]
