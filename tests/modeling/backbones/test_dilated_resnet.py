"""The dilated ResNet: layouts, and keys and values compared with Detectron2's ResNet."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_resnet_backbone

from ccsa.config import add_ccsa_config
from ccsa.modeling.backbones.dilated_resnet import CeilStem, dilated_resnet, stage_dilations

SMALL = {"stem_channels": 16, "res2_channels": 16, "bottleneck_channels": 4, "norm": "BN"}


def dilations_of(backbone):
    return {
        name: [block.conv2.dilation[0] for block in getattr(backbone, name)]
        for name in ("res2", "res3", "res4", "res5")
    }


def test_official_layout_dilates_every_block():
    found = dilations_of(dilated_resnet(50, **SMALL))
    assert found == {"res2": [1] * 3, "res3": [1] * 4, "res4": [2] * 6, "res5": [4] * 3}


def test_contracted_layout_keeps_the_previous_dilation_first():
    found = dilations_of(dilated_resnet(50, contract_dilation=True, **SMALL))
    assert found["res4"] == [1, 2, 2, 2, 2, 2]
    assert found["res5"] == [2, 4, 4]


def test_stride_16_and_multi_grid():
    assert stage_dilations(101, 16, True)[2:] == [[1] * 23, [1, 2, 2]]
    assert stage_dilations(50, 16, multi_grid=[1, 2, 4])[3] == [2, 4, 8]
    assert stage_dilations(18, 32) == [[1, 1]] * 4


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize(("output_stride", "sizes"), [(8, (9, 9)), (16, (5, 5)), (32, (5, 3))])
def test_strides(depth, output_stride, sizes):
    small = {"stem_channels": 16, "norm": "BN", "res2_channels": 64}
    backbone = dilated_resnet(depth, output_stride=output_stride, **small).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 65, 65))
    assert (features["res4"].shape[-1], features["res5"].shape[-1]) == sizes
    assert backbone.output_shape()["res5"].stride == output_stride


def test_dilation_is_a_strided_network_at_every_position():
    """If the first block of a stage keeps the previous dilation, the network with output stride 8
    has at every 4th position the values of the network with stride 32."""
    torch.manual_seed(0)
    plain = dilated_resnet(18, output_stride=32, stem="basic", stem_channels=64, norm="BN",
                           res2_channels=64, out_features=["res5"]).eval()  # fmt: skip
    dilated = dilated_resnet(18, output_stride=8, stem="basic", stem_channels=64, norm="BN",
                             res2_channels=64, out_features=["res5"]).eval()  # fmt: skip
    dilated.load_state_dict(plain.state_dict())
    for stage, before in (("res4", 1), ("res5", 2)):
        first = getattr(dilated, stage)[0].conv1
        first.padding = first.dilation = (before, before)
    with torch.no_grad():
        x = torch.randn(1, 3, 257, 257, dtype=torch.float64)
        torch.testing.assert_close(
            dilated.double()(x)["res5"][:, :, ::4, ::4], plain.double()(x)["res5"]
        )


@pytest.mark.parametrize("depth", [18, 50])
def test_keys_and_values_are_detectron2s(depth):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    keys = cfg.MODEL.RESNETS
    keys.DEPTH, keys.NORM, keys.OUT_FEATURES, keys.OUTPUT_STRIDE = depth, "BN", ["res5"], 32
    keys.RES2_OUT_CHANNELS = 64 if depth == 18 else 256
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    cfg.MODEL.BACKBONE.NAME = "build_dilated_resnet_backbone"
    ours = build_backbone(cfg).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    trained = [name for name, p in ours.named_parameters() if p.requires_grad]
    assert trained == [name for name, p in theirs.named_parameters() if p.requires_grad]
    assert not any(name.startswith(("stem", "res2")) for name in trained)
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 48)
        assert torch.equal(ours(x)["res5"], theirs(x)["res5"])


@pytest.mark.parametrize(("channels", "widths"), [(128, [64, 64, 128]), (64, [32, 32, 64])])
def test_deep_stem_widths(channels, widths):
    stem = dilated_resnet(18, stem_channels=channels, res2_channels=64).stem
    assert [conv.out_channels for conv in (stem.conv1, stem.conv2, stem.conv3)] == widths


def test_ceil_stem_differs_in_even_sizes_only():
    ceil, floor = (
        dilated_resnet(18, stem_channels=16, res2_channels=64, norm="BN", stem_ceil_mode=mode)
        .eval()
        .stem
        for mode in (True, False)
    )
    assert isinstance(ceil, CeilStem)
    floor.load_state_dict(ceil.state_dict())
    with torch.no_grad():
        odd, even = torch.randn(1, 3, 33, 33), torch.randn(1, 3, 32, 32)
        assert torch.equal(ceil(odd), floor(odd))
        assert ceil(even).shape[-2:] == (9, 9)
        assert torch.equal(ceil(even)[..., :8, :8], floor(even))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 49}, "18, 34, 50, 101"),
        ({"output_stride": 4}, "8, 16, 32"),
        ({"stem": "big"}, "basic, deeplab"),
        ({"stem": "basic", "stem_ceil_mode": True}, "deeplab"),
        ({"norm": "BatchNorm"}, "SyncBN"),
        ({"multi_grid": [1, 2]}, "3 factors"),
        ({"out_features": ["res6"]}, "res5"),
        ({"depth": 18, "groups": 2}, "groups 1"),
    ],
)
def test_wrong_settings_name_the_valid_ones(wrong, message):
    with pytest.raises(ValueError, match=message):
        dilated_resnet(**wrong)


def test_keys_without_effect_are_refused():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_dilated_resnet_backbone"
    cfg.MODEL.RESNETS.RES5_DILATION = 2
    with pytest.raises(ValueError, match="OUTPUT_STRIDE"):
        build_backbone(cfg)
