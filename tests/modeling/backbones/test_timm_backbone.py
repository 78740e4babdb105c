"""timm backbones: feature maps, strides, frozen stages, weights, pixel constants."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone, build_model
from safetensors.torch import save_file
from support import former_configs

from ccsa.checkpoint import Checkpointer
from ccsa.config import add_ccsa_config
from ccsa.data.transforms.semantic import PadToSize, semantic_augmentations
from ccsa.engine.overlays import apply_overlays
from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError
from ccsa.insertion import context_blocks, insert_blocks
from ccsa.modeling.backbones.timm_backbone import TimmBackbone
from ccsa.modeling.backbones.timm_models import normalization_constants

FAMILIES = ("test_efficientnet", "test_convnext", "test_resnet")
RES = ["res2", "res3", "res4", "res5"]


@pytest.fixture
def config(tmp_path):
    """Return a function that sets up a configuration with options KEY VALUE ...."""

    def make(*options, name="test_efficientnet", fpn=False, weights=""):
        file = tmp_path / "config.yaml"
        file.write_text(
            f"MODEL: {{BACKBONE: {{NAME: build_timm_{'fpn_' * fpn}backbone}}, WEIGHTS: '{weights}',"
            f" DEVICE: cpu, TIMM: {{NAME: {name}}}, FPN: {{IN_FEATURES: {RES}, OUT_CHANNELS: 8}}}}"
        )
        return setup_cfg(argparse.Namespace(config_file=str(file), opts=list(options)))

    return make


def random_norms(model):
    """Replace the initial statistics and factors of norms by random ones."""
    for name, value in model.state_dict().items():
        if value.dim() == 1:
            value.copy_(torch.rand_like(value) + (0.5 if "var" in name else 0.1))
    return model


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_timms_own(name, stride):
    options = {"output_stride": stride} if stride != 32 else {}
    theirs = random_norms(timm.create_model(name, features_only=True, **options)).eval()
    ours = TimmBackbone(name, output_stride=stride).eval()
    state = theirs.state_dict()
    if "efficientnet" in name:
        state = {key.replace("blocks.", "blocks_", 1): value for key, value in state.items()}
    ours.net.load_state_dict(state)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        maps, wanted = ours(image), theirs(image)[-4:]
    assert list(maps) == RES
    for x, y, shape in zip(maps.values(), wanted, ours.output_shape().values(), strict=True):
        assert torch.equal(x, y)
        assert x.shape[1:] == (shape.channels, 96 // shape.stride, 64 // shape.stride)
    strides = [shape.stride for shape in ours.output_shape().values()]
    assert strides == [4, 8, min(16, stride), stride]


@pytest.mark.parametrize("stride", [8, 32])
def test_mobilenet_has_a_class_of_its_own_for_each(stride):
    shapes = TimmBackbone("mobilenetv3_small_050", output_stride=stride).output_shape()
    assert [shape.stride for shape in shapes.values()] == [4, 8, min(16, stride), stride]


def test_a_transformers_maps_have_channels_first():
    name = "swin_tiny_patch4_window7_224"
    small = {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 1), "strict_img_size": False}
    backbone = TimmBackbone(name, out_features=["res4", "res5"], arguments=small)
    maps = backbone(torch.zeros(1, 3, 64, 32))
    assert [tuple(x.shape[1:]) for x in maps.values()] == [(12, 16, 8), (24, 8, 4)]
    with pytest.raises(ValueError, match="strict_img_size"):
        TimmBackbone(name, out_features=["res5"], arguments={**small, "strict_img_size": True})


@pytest.mark.parametrize(("name", "divisor"), [("test_resnet", 0), ("test_convnext", 32)])
def test_images_are_padded_where_the_network_would_cut_them(name, divisor):
    backbone = TimmBackbone(name).eval()
    assert backbone.size_divisibility == divisor
    with torch.no_grad():
        size = backbone(torch.zeros(1, 3, 65, 65))["res5"].shape[-1]
    assert size == (2 if divisor else 3)


def test_what_comes_after_the_last_level_is_not_built():
    names = [n for n, _ in TimmBackbone("test_efficientnet", out_features=["res3"]).named_modules()]
    assert any("blocks_2" in n for n in names) and not any("blocks_3" in n for n in names)


# The first child that is trained if no stage, the stem, res2, ... are frozen, by family.
FIRST = {
    "test_efficientnet": ["conv_stem", "blocks_1", "blocks_2", "blocks_3", "blocks_4", None],
    "test_convnext": ["stem_0", "stages_0", "stages_1", "stages_2", "stages_3", None],
    "test_resnet": ["conv1", "layer1", "layer2", "layer3", "layer4", None],
}


@pytest.mark.parametrize("freeze_at", range(6))
@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_stages_keep_their_values_and_weights(name, freeze_at):
    backbone = TimmBackbone(name, freeze_at=freeze_at)
    first = next((n for n, p in backbone.net.named_parameters() if p.requires_grad), None)
    assert (first and first.partition(".")[0]) == FIRST[name][freeze_at]
    plain = TimmBackbone(name).eval()
    random_norms(plain)
    backbone.net.load_state_dict(plain.net.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, frozen = plain(image), backbone.train()(image)  # batch statistics are not used
    for number in range(2, 6):
        same = torch.allclose(frozen[f"res{number}"], expected[f"res{number}"], atol=1e-4)
        assert same or number > freeze_at
        assert not same or number <= freeze_at or name == "test_convnext"  # it has no batch norm


@pytest.mark.parametrize(
    ("name", "last"), [("efficientnet_b0", "blocks_1"), ("test_convnext", "stages_0.blocks")]
)
def test_frozen_stages_drop_nothing(name, last):
    """Nor after train(). Trained stages still drop paths, and a block in a frozen stage trains."""
    arguments = {"drop_path_rate": 0.9}
    backbone = TimmBackbone(name, out_features=RES[:2], freeze_at=2, arguments=arguments)
    insert_blocks(backbone, [{"at": f"net.{last}.-1", "block": "CrissCross"}])
    image = torch.randn(64, 3, 32, 32)
    for net in (backbone, backbone.train(), backbone.eval().train()):
        with torch.no_grad():
            once, again = net(image), net(image)
        assert torch.equal(once["res2"], again["res2"])
        assert not torch.equal(once["res3"], again["res3"])
    assert all(block.training for _, block in context_blocks(backbone))


def test_norms_are_changed_throughout():
    kinds = {type(m).__name__ for m in TimmBackbone("test_resnet", norm="SyncBN").modules()}
    assert "SyncBatchNorm" in kinds and "BatchNorm2d" not in kinds
    frozen = TimmBackbone("test_resnet", norm="FrozenBN")
    assert not [m for m in frozen.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(p.requires_grad for p in frozen.parameters())


CLASSIFIER = dict(
    zip(FAMILIES, (["classifier.bias"], ["head.fc.bias"], ["fc.weight", "fc.bias"]), strict=True)
)
LAST = dict(zip(FAMILIES, ("blocks_4.-1", "stages_3.blocks.-1", "layer4.-1"), strict=True))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_timms_weights_is_loaded(config, tmp_path, name, suffix):
    model = random_norms(timm.create_model(name)).eval()
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(model.state_dict(), file)
    cfg = config("MODEL.BACKBONE.FREEZE_AT", "2", "INPUT.FORMAT", "RGB", name=name,
                 weights=f"timm://{file}")  # fmt: skip
    backbone = build_backbone(cfg).eval()
    insert_blocks(backbone, [{"at": f"net.{LAST[name]}", "block": "CrissCross"}])
    checkpointer = Checkpointer(backbone, training=True)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    loaded, missing, unexpected, _ = checkpointer.report
    assert (
        loaded == len([v for v in backbone.net.state_dict().values() if v.is_floating_point()]) - 7
    )
    assert len(missing) == 7 and all(".context." in key for key in missing)
    assert all(word in unexpected for word in CLASSIFIER[name])
    with pytest.raises(UserError, match=r"7 missing \(net\..*context\.\*\)"):
        Checkpointer(backbone).load(cfg.MODEL.WEIGHTS)  # an untrained block would add noise
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = model.forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(backbone(image)["res5"], wanted)


def resnet_with(**changes):
    state = random_norms(timm.create_model("test_resnet")).state_dict()
    return {key: changes.get(key.replace(".", "_"), value) for key, value in state.items()}


def resnet_without(*endings):
    return {key: value for key, value in resnet_with().items() if not key.endswith(endings)}


OTHER = {"no.weight": torch.zeros(1)}
LACKS = "lacks .* weights of timm's"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *((name, OTHER, f"{LACKS} {name}") for name in FAMILIES),
        ("test_resnet", resnet_without("running_var"), rf"{LACKS} test_resnet.*bn1\.running_var"),
        ("test_resnet", resnet_without("layer2.0.bn1.weight"), r"lacks 1 .*layer2\.0\.bn1\.weight"),
        ("test_resnet", resnet_with(layer1_0_bn1_bias=torch.ones(5)), "size mismatch .*bn1.bias"),
        ("test_resnet", {"model": [1]}, "model is a list"),
        ("test_resnet", {}, "contains no weights"),
        ("test_resnet", {"path": Path()}, "they reference pathlib"),
        ("test_resnet", [1], "a list"),
        ("test_resnet", b"text", "truncated, damaged"),
        ("test_resnet", None, "do not exist"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, name, content, message):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    backbone = TimmBackbone(name)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        Checkpointer(backbone, training=True).load(f"timm://{file}")
    assert "timm://FILE" in str(caught.value) and str(file) in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_timm_does_not_read_the_file(tmp_path, monkeypatch):
    """Some versions of timm run code in a file."""
    monkeypatch.setattr("timm.models._builder.load_state_dict", None)
    file = tmp_path / "checkpoint.pth"
    averaged = {f"module.{key}": value for key, value in resnet_without("tracked").items()}
    torch.save({"state_dict": resnet_with(), "state_dict_ema": averaged}, file)
    backbone = TimmBackbone("test_resnet")
    Checkpointer(backbone).load(f"timm://{file}")  # counters are not needed
    assert torch.equal(backbone.net.bn1.weight, averaged["module.bn1.weight"])


def test_the_hubs_weights_are_loaded(monkeypatch):
    theirs, create = random_norms(timm.create_model("test_resnet")), timm.create_model

    def fetched(name, pretrained=False, **keywords):
        if pretrained and not keywords:
            return theirs
        return create(name, pretrained=pretrained, **keywords)

    monkeypatch.setattr(timm, "create_model", fetched)
    backbone = TimmBackbone("test_resnet")
    Checkpointer(backbone).load("timm://hub")
    assert torch.equal(backbone.net.layer4[0].bn1.running_var, theirs.layer4[0].bn1.running_var)


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    backbone, create = TimmBackbone("test_resnet"), timm.create_model

    def unreachable(*args, pretrained=False, **keywords):
        if pretrained:
            raise OSError("no route")
        return create(*args, **keywords)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match=r"test_resnet cannot be loaded from its hub \(no route\)"):
        Checkpointer(backbone).load("timm://hub")


def test_weights_of_timm_need_a_backbone_of_timm():
    with pytest.raises(UserError, match="build_timm_backbone"):
        Checkpointer(torch.nn.Conv2d(1, 1, 1)).load("timm://hub")


def test_pixels_are_scaled_as_the_model_was_trained(config):
    imagenet = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    assert normalization_constants("resnet50d", "RGB") == imagenet
    assert normalization_constants("resnet50d", "BGR") == tuple(values[::-1] for values in imagenet)

    def scales(*options, **keywords):
        cfg = config(*options, **keywords)
        return list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)

    assert scales("INPUT.FORMAT", "RGB") == imagenet
    # Detectron2's default format is BGR.
    assert scales() == tuple(values[::-1] for values in imagenet)
    assert scales(name="test_convnext") == ([127.5] * 3, [127.5] * 3)
    given = ["MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]", "MODEL.PIXEL_STD", "[4.0, 5.0, 6.0]"]
    assert scales(*given) == ([1, 2, 3], [4, 5, 6])
    given[3] = "[]"
    assert scales(*given, name="test_convnext") == ([1, 2, 3], [127.5] * 3)


IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def plain_idiom(root, name, **model):
    """Return the configuration of a tiny network, made as Detectron2 does without the tools."""
    cfg = get_cfg()
    add_ccsa_config(cfg)
    file, overlays = former_configs.command(name.removesuffix(".yaml"))
    cfg.merge_from_file(file)
    cfg = apply_overlays(cfg, overlays, file)
    cfg.MODEL.DEVICE, cfg.MODEL.TIMM.NAME = "cpu", "test_efficientnet"
    cfg.MODEL.TIMM.NORM, cfg.MODEL.SEM_SEG_HEAD.NORM = "", "BN"
    cfg.MODEL.update(model)
    return cfg


@pytest.mark.parametrize(
    "file",
    ["mask_rcnn_convnext_tiny.yaml", "pascal_context/sanet_efficientnet_b0_os8_480_80ep.yaml"],
)
def test_pixels_are_scaled_so_without_the_tools_too(root, file):
    cfg = plain_idiom(root, file)
    cfg.freeze()
    model = build_model(cfg)
    backbone = next(m for m in model.modules() if isinstance(m, TimmBackbone))
    assert next(backbone.parameters()).shape[1] == 3
    assert [x.flatten().tolist() for x in (model.pixel_mean, model.pixel_std)] == [
        pytest.approx(values) for values in IMAGENET
    ]
    if "sanet" in file:
        pads = [a for a in semantic_augmentations(cfg) if isinstance(a, PadToSize)]
        assert list(pads[0].color) == pytest.approx(IMAGENET[0])


def test_pixels_that_nothing_says_how_to_scale_are_refused(root):
    cfg = plain_idiom(root, "mask_rcnn_convnext_tiny.yaml", META_ARCHITECTURE="GeneralizedRCNN")
    with pytest.raises(ValueError, match=r"not those of timm's .*: set .* ContextModel"):
        build_model(cfg)
    cfg = plain_idiom(root, "mask_rcnn.yaml", PIXEL_MEAN=[])
    with pytest.raises(UserError, match=r"PIXEL_MEAN \[\] .* a value for each channel"):
        build_model(cfg)


def test_weights_for_rgb_images_refuse_bgr(config):
    with pytest.raises(UserError, match=r"INPUT\.FORMAT is BGR: set it to RGB"):
        config(weights="timm://hub")


def test_random_weights_are_not_frozen(config):
    options = ["MODEL.TIMM.NORM", "FrozenBN", "MODEL.BACKBONE.FREEZE_AT", "2"]
    cfg = config(*options)
    assert (cfg.MODEL.TIMM.NORM, cfg.MODEL.BACKBONE.FREEZE_AT) == ("", 0)
    cfg = config(*options, "INPUT.FORMAT", "RGB", weights="timm://hub")
    assert (cfg.MODEL.TIMM.NORM, cfg.MODEL.BACKBONE.FREEZE_AT) == ("FrozenBN", 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_fpn_stands_on_it(config, name):
    backbone = build_backbone(config(name=name, fpn=True)).eval()
    assert backbone.size_divisibility == 32
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 96, 64))
    sizes = {key: tuple(x.shape[1:]) for key, x in maps.items()}
    assert sizes == {f"p{i}": (8, -(-96 // 2**i), -(-64 // 2**i)) for i in range(2, 7)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "test_resnt"}, "did you mean .*test_resnet"),
        ({"name": "resnet50d.none"}, "resnet50d.ra2_in1k"),
        ({"output_stride": 4}, "8, 16, 32"),
        ({"out_features": ["res5", "res4"]}, "in order"),
        ({"out_features": ["p2"]}, "res1, .*res5"),
        ({"norm": "GN"}, "SyncBN"),
        ({"name": "vgg11", "output_stride": 8}, "OUTPUT_STRIDE"),
        ({"name": "test_convnext", "out_features": ["res1"]}, "built with res1 and"),
        ({"arguments": {"no_such": 1}}, "no_such"),
        ({"name": "test_vit", "freeze_at": 2}, "FREEZE_AT"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**{"name": "test_resnet", **wrong})


def test_an_fpn_on_a_dilated_network_is_refused(config):
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.OUTPUT_STRIDE must be 32"):
        build_backbone(config("MODEL.TIMM.OUTPUT_STRIDE", "8", fpn=True))


def test_without_timm_the_command_that_gets_it_is_named(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        UserError, match=r"not installed: run pip install '\.\[timm\]' in a clone of ccsa"
    ):
        config()
    code = "import sys; sys.modules['timm'] = None; import ccsa"
    subprocess.run([sys.executable, "-c", code], check=True)
