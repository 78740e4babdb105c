"""Squeeze-and-attention at the channel counts and activations that a config may ask for."""

import pytest
import torch
from torch import nn

from ccsa.blocks import SqueezeAttention, build_block


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 6, 9, 19, 21, 32, 33, 48, 64, 150])
def test_any_number_of_channels_on_one_pixel(channels):
    block = build_block("SqueezeAttention", channels, reduction=1)
    block.gamma.data.fill_(0.5)
    x = torch.randn(1, channels, 1, 1, generator=torch.Generator().manual_seed(0))
    y = block(x)
    assert y.shape == x.shape and torch.isfinite(y).all()
    norms = [m for m in block.modules() if isinstance(m, nn.GroupNorm)]
    assert bool(norms) == (channels > 1)
    for norm in norms:  # groups of one value would be normalised to 0
        assert norm.num_channels // norm.num_groups >= 2
        assert norm.num_groups <= 32


@pytest.mark.parametrize("classes", [5, 19, 21, 33])
def test_maps_of_classes(classes):
    block = SqueezeAttention(16, out_channels=classes, residual=False)
    assert block(torch.randn(2, 16, 7, 5)).shape == (2, classes, 7, 5)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("none", lambda x: x),
        ("relu", torch.relu),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("silu", lambda x: x * torch.sigmoid(x)),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_activations(name, function):
    block = SqueezeAttention(
        6, pool=1, kernel_size=1, norm="none", activation=name, residual=False
    ).double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def conv(layer, y):
        weight, bias = layer.weight.detach()[:, :, 0, 0], layer.bias.detach()
        return torch.einsum("oc,bchw->bohw", weight, y) + bias[:, None, None]

    attention = conv(block.attention[3], function(conv(block.attention[0], x)))
    main = function(conv(block.main[3], function(conv(block.main[0], x))))
    torch.testing.assert_close(block(x), attention * main + attention, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("block", "keywords", "words"),
    [
        ("SqueezeAttention", {"activation": "gelu"}, "activation must be one of none, relu"),
        ("SqueezeAttention", {"norm": ["GN"]}, r"norm must be one of GN, BN, .*not \['GN'\]"),
        ("SqueezeAttention", {"residual": "false"}, "residual must be true or false, not 'false'"),
        ("SqueezeExcitation", {"residual": 0}, "residual must be true or false, not 0"),
        ("NonLocal", {"out_conv": "no"}, "out_conv must be true or false, not 'no'"),
    ],
    ids=str,
)
def test_values_that_are_no_choice(block, keywords, words):
    with pytest.raises(ValueError, match=words):
        build_block(block, 8, **keywords)
