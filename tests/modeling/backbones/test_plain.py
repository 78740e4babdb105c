"""The plain backbone: its shapes and its documented receptive field."""

from argparse import Namespace

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model

from ccsa.engine.setup import setup_cfg
from ccsa.modeling import PlainBackbone

RGB = ShapeSpec(channels=3)


@pytest.fixture
def cfg(root):
    file = root / "configs" / "far_cue" / "any_plain.yaml"
    return setup_cfg(Namespace(config_file=str(file), opts=["MODEL.DEVICE", "cpu"]))


def test_gives_its_last_convolution(cfg):
    backbone = build_backbone(cfg)
    assert backbone.output_shape() == {"conv3": ShapeSpec(channels=32, stride=4)}
    assert backbone(torch.randn(2, 3, 64, 48))["conv3"].shape == (2, 32, 16, 12)
    keys = set(backbone.state_dict())
    assert {"conv1.weight", "conv2.norm.weight", "conv3.weight"} <= keys
    assert not any(key.startswith("conv4") for key in keys)


def test_without_norm_it_has_biases():
    backbone = PlainBackbone(RGB, channels=[4], strides=[1], norm="")
    assert set(backbone.state_dict()) == {"conv1.weight", "conv1.bias"}
    x = torch.randn(1, 3, 5, 7)
    expected = torch.relu(torch.conv2d(x, backbone.conv1.weight, backbone.conv1.bias, padding=1))
    assert torch.equal(backbone(x)["conv1"], expected)


def test_the_network_without_a_block_sees_16_pixels_far(cfg):
    """Check the gradients of logits with respect to the image, at each position in a cell of 4
    pixels: they are the reason why R = 0 cannot solve far_cue."""
    model = build_model(cfg).eval()
    reach = 0
    for at in range(32, 36):
        image = torch.rand(3, 64, 64, requires_grad=True)
        with torch.enable_grad():
            model([{"image": image}])[0]["sem_seg"][:, at, at].square().sum().backward()
        reach = max(reach, int((image.grad.abs().sum(0).nonzero() - at).abs().max()))
    assert reach == 16


@pytest.mark.parametrize(
    ("channels", "strides", "message"),
    [([8, 8], [1], "one stride for each width"), ([], [], "one stride"), ([8], [0], "strides")],
)
def test_wrong_settings_are_refused(channels, strides, message):
    with pytest.raises(ValueError, match=message):
        PlainBackbone(RGB, channels=channels, strides=strides)
