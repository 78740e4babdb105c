"""Blocks after modules that return tokens (B, N, C) or channels-last feature maps (B, H, W, C)."""

import copy
import pickle

import pytest
import torch
from torch import nn

from ccsa.blocks import CONTEXT_BLOCK_REGISTRY
from ccsa.errors import UserError
from ccsa.insertion import PlacementError, context_blocks, insert_blocks

C = 8


class Tokens(nn.Module):
    """Returns tokens (B, P + N, C), with layers on the last axis only."""

    def __init__(self, channels=C):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, C))

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Patches(nn.Module):
    """A patch embedding: a convolution whose output leaves in another layout."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.proj = nn.Conv2d(3, C, 2, stride=2)

    def forward(self, x):
        x = self.proj(x).movedim(1, -1)
        return x if self.layout == "nhwc" else x.flatten(1, 2)


def build(module, **entry):
    model = nn.Sequential(module).double().eval()
    insert_blocks(model, [{"at": "0", "block": "CrissCross", "recurrence": 1, **entry}])
    return model


def tensor(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def set_gamma(model, value=0.7):
    for _, block in context_blocks(model):
        nn.init.constant_(block.gamma, value)


@pytest.mark.parametrize("grid", [(3, 3), (1, 1), (2, 5), (1, 7), (5, 1)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_pass_through_the_block_as_a_feature_map(grid, prefix):
    square = {} if grid[0] == grid[1] else {"grid": list(grid)}
    plain = Tokens()
    model = build(copy.deepcopy(plain), layout="tokens", prefix=prefix, **square)
    x = tensor(2, prefix + grid[0] * grid[1], C)
    expected = plain.double()(x)
    assert torch.equal(model(x), expected)  # gamma is 0
    set_gamma(model)
    block = model[0].context
    inner = expected[:, prefix:].reshape(2, *grid, C).permute(0, 3, 1, 2)
    inner = block(inner).permute(0, 2, 3, 1).reshape(2, -1, C)
    out = model(x)
    assert out.is_contiguous()
    assert torch.equal(out[:, :prefix], expected[:, :prefix])
    assert torch.allclose(out[:, prefix:], inner)
    if grid[0] * grid[1] > 1:
        assert not torch.allclose(out, expected)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 6)])
def test_channels_last_maps_pass_through_the_block(size):
    plain = Tokens()
    model = build(copy.deepcopy(plain), layout="nhwc")
    x = tensor(2, *size, C)
    expected = plain.double()(x)
    assert torch.equal(model(x), expected)
    set_gamma(model)
    out = model(x)
    assert out.is_contiguous() and out.shape == x.shape
    inner = model[0].context(expected.permute(0, 3, 1, 2).contiguous())
    assert torch.allclose(out, inner.permute(0, 2, 3, 1))


def test_three_dimensional_blocks_take_channels_last_clips_and_token_grids():
    x = tensor(1, 2, 3, 4, C)
    last = build(Tokens(), layout="nhwc", dims=3)
    tokens = build(Tokens(), layout="tokens", grid=[2, 3, 4], dims=3)
    tokens.load_state_dict(last.state_dict())
    set_gamma(last)
    set_gamma(tokens)
    assert torch.allclose(last(x).flatten(1, 3), tokens(x.flatten(1, 3)))


def test_keys_copies_pickles_and_gradients_are_those_of_any_block():
    model = build(Tokens(), layout="tokens", prefix=1)
    keys = [key for key in model.state_dict() if "context" in key]
    assert keys and all(key.startswith("0.context.") for key in keys)
    x = tensor(2, 10, C)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        set_gamma(other)
        assert torch.equal(model(x), model[0].mlp(model[0].norm(x)) + x)
        out = other(x)
        assert not torch.allclose(out, model(x))
        out.sum().backward()
        assert other[0].context.gamma.grad.abs() > 0


@pytest.mark.parametrize("entry", [{"layout": "tokens", "prefix": 1}, {"layout": "tokens"}])
def test_tracing_and_export_keep_the_layout(entry):
    count = 9 + entry.get("prefix", 0)
    model = build(Tokens(), **entry)
    set_gamma(model)
    x = tensor(1, count, C)
    traced = torch.jit.trace(model, x)
    assert torch.allclose(traced(2 * x), model(2 * x))
    program = torch.export.export(model, (x,))
    assert torch.allclose(program.module()(2 * x), model(2 * x))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"layout": "token"}, ["layout", "tokens", "nhwc"]),
        ({"layout": None}, ["layout"]),
        ({"layout": ["nhwc"]}, ["layout"]),
        ({"layout": "tokens", "grid": 9}, ["grid", "[height, width]"]),
        ({"layout": "tokens", "grid": [3, 0]}, ["grid"]),
        ({"layout": "tokens", "grid": [3, True]}, ["grid"]),
        ({"layout": "tokens", "prefix": -1}, ["prefix"]),
        ({"layout": "tokens", "prefix": True}, ["prefix"]),
        ({"layout": "tokens", "prefix": "1"}, ["prefix"]),
        ({"layout": "nhwc", "grid": [3, 3]}, ["grid", "layout: tokens"]),
        ({"prefix": 1}, ["prefix", "layout: tokens"]),
        ({}, ["layout: tokens", "layout: nhwc", "channels: N"]),
    ],
)
def test_wrong_entries_are_rejected_before_anything_is_inserted(entry, words):
    model = nn.Sequential(Tokens())
    with pytest.raises(UserError) as error:
        insert_blocks(model, [{"at": "0", "block": "CrissCross", **entry}])
    assert all(word in str(error.value) for word in words), error.value
    assert not list(context_blocks(model))


def test_blocks_at_one_location_share_a_layout():
    entry = {"at": "0", "block": "CrissCross", "layout": "tokens"}
    with pytest.raises(UserError, match="different layouts"):
        insert_blocks(nn.Sequential(Tokens()), [entry, {**entry, "prefix": 1}])
    model = nn.Sequential(Tokens())
    insert_blocks(model, [entry, {**entry, "block": "SqueezeExcitation"}])
    x = torch.randn(1, 9, C)
    assert torch.equal(model(x), x + model[0].mlp(model[0].norm(x)))


@pytest.mark.parametrize(
    ("module", "shape", "entry", "words"),
    [
        # Tokens and channels-last maps without a layout: the number of positions is never advised.
        (Patches("tokens"), (2, 3, 8, 12), {}, ["layout: tokens", "grid"]),
        (Patches("tokens"), (2, 3, 8, 8), {}, ["layout: tokens"]),
        (Patches("nhwc"), (2, 3, 8, 12), {}, ["layout: nhwc"]),
        (Patches("nhwc"), (2, 3, 8, 8), {"channels": 5}, ["layout: nhwc", f"channels: {C}"]),
        (Tokens(), (2, 17, C), {"channels": C}, ["layout: tokens", "prefix: 1", "1 + 4 * 4"]),
        (Tokens(), (2, 7, 7, C), {"channels": C}, ["layout: nhwc"]),
        # The number of positions was given as channels, or equals the number of channels.
        (Tokens(), (2, 16, C), {"channels": 16}, ["layout: tokens"]),
        (Tokens(), (2, 7, 7, C), {"channels": 7}, ["layout: nhwc"]),
        (Tokens(), (2, C, C), {"channels": C}, ["layout: tokens", "layout: nchw"]),
        (Tokens(), (2, C, C, C), {"channels": C}, ["layout: nhwc", "layout: nchw"]),
        (Patches("tokens"), (2, 3, 8, 8), {"channels": 16}, ["layout: tokens"]),
        # A module that shows nothing.
        (nn.Identity(), (2, 7, 5, 9), {"channels": 4}, ["axis 1", "last axis", "layout: nhwc"]),
        (nn.Identity(), (2, 50, 9), {"channels": 4}, ["last axis", "layout: tokens", "prefix: 1"]),
        # A stated layout that does not fit.
        (Tokens(), (2, 10, C), {"layout": "tokens"}, ["10 tokens", "prefix: 1", "grid"]),
        (Tokens(), (2, 12, C), {"layout": "tokens", "grid": [3, 5]}, ["12 tokens", "15"]),
        (Tokens(), (2, 9, C), {"layout": "tokens", "prefix": 9}, ["9 tokens", "prefix"]),
        (Tokens(), (2, 9, C), {"layout": "tokens", "prefix": 20}, ["9 tokens", "prefix"]),
        (Tokens(), (2, 9, C), {"layout": "nhwc"}, ["(B, H, W, C)", "layout: tokens"]),
        (Tokens(), (2, 3, 3, C), {"layout": "tokens"}, ["(B, N, C)", "layout: nhwc"]),
        (Tokens(), (2, 9, C), {"layout": "tokens", "channels": 4}, [f"channels: {C}"]),
        # A layout on an ordinary module.
        (nn.Conv2d(3, C, 1), (2, 3, 4, 5), {"layout": "nhwc"}, ["remove 'layout: nhwc'"]),
        (nn.Conv2d(3, C, 1), (2, 3, 4, 5), {"layout": "tokens"}, ["remove 'layout: tokens'"]),
        (nn.Conv2d(3, C, 1), (2, 3, 4, 5), {"channels": 5}, [f"channels: {C}"]),
    ],
)
def test_an_output_in_another_layout_is_recognized(module, shape, entry, words):
    model = build(copy.deepcopy(module), **entry)
    x = tensor(*shape)
    with pytest.raises(PlacementError) as error:
        model(x)
    message = str(error.value)
    assert all(word in message for word in words), message
    right = C if isinstance(module, nn.Conv2d | Tokens | Patches) else None
    advised = [int(part.split("'")[0]) for part in message.split("'channels: ")[1:]]
    assert all(number == right for number in advised), message


@pytest.mark.parametrize("shape", [(2, 3, C, C), (2, 3, 5, C), (2, 3, C, 5)])
def test_ordinary_feature_maps_raise_no_false_alarm(shape):
    model = build(nn.Conv2d(3, C, 1))
    model(tensor(*shape))
    model = build(nn.Sequential(nn.Conv2d(3, 4 * C, 1), nn.PixelShuffle(2)), channels=C).double()
    model(tensor(*shape))
    model(tensor(2, 3, 16, 16))
    build(nn.ReLU(), channels=C).double()(tensor(2, C, C, C))
    build(Tokens(), channels=C, layout="nchw")(tensor(2, C, C, C))


def test_a_block_may_have_a_keyword_called_grid():
    class Gridded(nn.Module):
        def __init__(self, channels, grid=1):
            super().__init__()
            self.grid = grid

        def forward(self, x):
            return x

    CONTEXT_BLOCK_REGISTRY.register(Gridded)
    try:
        model = nn.Sequential(nn.Conv2d(3, C, 1))
        insert_blocks(model, [{"at": "0", "block": "Gridded", "grid": 3}])
        assert model[0].context.grid == 3
    finally:
        del CONTEXT_BLOCK_REGISTRY._classes["Gridded"]


def test_prefix_tokens_need_a_block_that_keeps_the_number_of_channels():
    entry = {"block": "SqueezeAttention", "out_channels": 4, "residual": False, "norm": "none"}
    model = nn.Sequential(Tokens())
    insert_blocks(model, [{"at": "0", "layout": "tokens", "prefix": 1, **entry}])
    with pytest.raises(PlacementError, match="prefix tokens"):
        model(torch.randn(1, 17, C))


def test_vision_transformers_of_torchvision():
    from torchvision.models import SwinTransformer, VisionTransformer

    torch.manual_seed(0)
    vit = VisionTransformer(32, 8, 2, 2, 16, 32).eval()
    nn.init.normal_(vit.heads.head.weight)
    swin = SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=4).eval()
    cases = [
        (vit, "encoder.layers.-2", {"layout": "tokens", "prefix": 1}, 16, (1, 3, 32, 32)),
        (swin, "features.1", {"layout": "nhwc"}, 8, (1, 3, 24, 40)),
        (swin, "features.2", {"layout": "nhwc", "channels": 16}, 16, (1, 3, 24, 40)),
    ]
    for model, at, entry, channels, shape in cases:
        x = torch.randn(shape)
        with torch.no_grad():
            expected = model(x)
            placements = insert_blocks(model, [{"at": at, "block": "CrissCross", **entry}])
            assert placements[0].channels == channels
            assert torch.equal(model(x), expected)
            set_gamma(model)
            assert not torch.allclose(model(x), expected)
            set_gamma(model, 0.0)


def test_vision_transformers_of_timm():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=(32, 64), embed_dim=24, depth=2, num_heads=2, reg_tokens=2
    ).eval()
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(2, 2), num_heads=(1, 2)
    ).eval()
    cases = [
        (vit, "blocks.-2", {"layout": "tokens", "grid": [2, 4], "prefix": 3}, 24, (1, 3, 32, 64)),
        (vit, "patch_embed", {"layout": "tokens", "grid": [2, 4]}, 24, (1, 3, 32, 64)),
        (swin, "layers.0.blocks.-2", {"layout": "nhwc"}, 12, (1, 3, 56, 56)),
        (swin, "layers.1", {"layout": "nhwc"}, 24, (1, 3, 56, 56)),
    ]
    for model, at, entry, channels, shape in cases:
        x = torch.randn(shape)
        with torch.no_grad():
            expected = model(x)
            placements = insert_blocks(model, [{"at": at, "block": "CrissCross", **entry}])
            assert placements[0].channels == channels
            assert torch.equal(model(x), expected)
            set_gamma(model)
            assert not torch.allclose(model(x), expected)
            set_gamma(model, 0.0)


def test_a_configuration_inserts_blocks_into_a_transformer_of_timm(tmp_path):
    pytest.importorskip("timm")
    import argparse

    from detectron2.modeling import build_model

    from ccsa.engine.setup import setup_cfg

    file = tmp_path / "swin.yaml"
    file.write_text("""
MODEL:
  META_ARCHITECTURE: ContextModel
  DEVICE: cpu
  WEIGHTS: ""
  BACKBONE: {NAME: build_timm_fpn_backbone}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 8}
  TIMM:
    NAME: swin_tiny_patch4_window7_224
    OUT_FEATURES: [res2, res3, res4, res5]
    ARGUMENTS:
      - {embed_dim: 12, depths: [1, 1, 1, 1], num_heads: [1, 1, 1, 1], strict_img_size: false}
  RPN: {IN_FEATURES: [p4]}
  ANCHOR_GENERATOR: {SIZES: [[32]]}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p4]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 8}
  CONTEXT:
    BLOCKS:
      - {at: backbone.bottom_up.net.layers_1.blocks.-1, block: CrissCross, layout: nhwc}
""")
    model = build_model(setup_cfg(argparse.Namespace(config_file=str(file), opts=[]))).eval()
    paths = [path for path, _ in context_blocks(model)]
    assert paths == ["backbone.bottom_up.net.layers_1.blocks.0.context"]
    image = [{"image": torch.rand(3, 60, 90) * 255, "height": 60, "width": 90}]
    with torch.no_grad():
        before = model.backbone(
            torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        )
        set_gamma(model)
        after = model.backbone(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
        model(image)
    assert not torch.allclose(before["p5"], after["p5"])
