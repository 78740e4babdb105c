"""The registry of blocks, and its messages for wrong entries of a configuration."""

import warnings

import pytest
import torch
from torch import nn

from ccsa.blocks import (
    CONTEXT_BLOCK_REGISTRY,
    CrissCross,
    NonLocal,
    SqueezeAttention,
    SqueezeExcitation,
    build_block,
)
from ccsa.blocks.registry import Registry
from ccsa.errors import UserError

BLOCKS = [CrissCross, SqueezeAttention, SqueezeExcitation, NonLocal]


def test_the_names_of_the_contract_are_there():
    assert set(CONTEXT_BLOCK_REGISTRY) >= {cls.__name__ for cls in BLOCKS}
    for cls in BLOCKS:
        assert cls.__name__ in CONTEXT_BLOCK_REGISTRY
        assert CONTEXT_BLOCK_REGISTRY.get(cls.__name__) is cls
        assert type(build_block(cls.__name__, 8)) is cls
    assert "Nothing" not in CONTEXT_BLOCK_REGISTRY


def test_keywords_reach_the_block():
    block = build_block("CrissCross", 16, recurrence=3, reduction=4, dims=3)
    assert block.recurrence == 3
    assert isinstance(block.query_conv, nn.Conv3d) and block.query_conv.out_channels == 4
    for name in ("SqueezeAttention", "SqueezeExcitation", "NonLocal"):
        assert build_block(name, 8, residual=False).gamma is None
        assert "gamma" not in build_block(name, 8, residual=False).state_dict()


def test_a_class_of_ones_own_can_be_registered_in_two_ways():
    registry = Registry("toy block")

    @registry.register()
    class First(nn.Module):
        pass

    class Second(nn.Module):
        pass

    registry.register(Second)
    assert list(registry) == ["First", "Second"]
    assert registry.get("First") is First and registry.get("Second") is Second
    with pytest.raises(ValueError, match="toy block 'First' is already registered"):
        registry.register(First)


def test_a_registered_class_is_built_with_channels_and_keywords(monkeypatch):
    class Scale(nn.Module):
        def __init__(self, channels, by=1.0):
            super().__init__()
            self.by = torch.full((channels,), by)

    monkeypatch.setitem(CONTEXT_BLOCK_REGISTRY._classes, "Scale", Scale)
    assert torch.equal(build_block("Scale", 3, by=2.0).by, torch.full((3,), 2.0))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CrisCross", ["'CrisCross'", "did you mean CrissCross"]),
        ("nonlocal", ["'nonlocal'", "did you mean NonLocal? Available: "]),
        ("Zebra", ["'Zebra'", *(cls.__name__ for cls in BLOCKS)]),
        ("", ["''", "CrissCross"]),
    ],
)
def test_an_unknown_block_is_named_with_the_known_ones(name, words):
    with pytest.raises(ValueError) as error:
        build_block(name, 8)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("cls", BLOCKS)
def test_an_unknown_keyword_is_named_with_its_near_misses(cls):
    near = "recurrence" if cls is CrissCross else "residual"
    for keyword in (near[:-1], "channel", "squash"):
        with pytest.raises(ValueError) as error:
            build_block(cls.__name__, 8, **{keyword: 1})
        text = str(error.value)
        assert f"{cls.__name__} has no keyword '{keyword}'" in text and near in text
        assert (f"did you mean {near}" in text) == (keyword == near[:-1])


BAD = [
    ("CrissCross", {"recurrence": -1}, ["recurrence", "0", "-1"]),
    ("CrissCross", {"recurrence": 1.5}, ["recurrence", "1.5"]),
    ("CrissCross", {"recurrence": "2"}, ["recurrence", "'2'"]),
    ("CrissCross", {"recurrence": True}, ["recurrence", "True"]),
    ("CrissCross", {"recurrence": None}, ["recurrence", "None"]),
    ("CrissCross", {"reduction": 0}, ["reduction", "1", "0"]),
    ("CrissCross", {"dims": 1}, ["dims", "2, 3", "not 1"]),
    ("CrissCross", {"dims": "2"}, ["dims", "2, 3", "'2'"]),
    ("NonLocal", {"dims": 4}, ["dims", "2, 3", "not 4"]),
    ("NonLocal", {"reduction": 0}, ["reduction", "0"]),
    ("NonLocal", {"value_reduction": 0}, ["value_reduction", "0"]),
    ("NonLocal", {"out_conv": False}, ["out_conv", "value_reduction"]),
    ("SqueezeExcitation", {"reduction": -2}, ["reduction", "-2"]),
    ("SqueezeAttention", {"out_channels": 0}, ["out_channels", "0"]),
    ("SqueezeAttention", {"out_channels": 4}, ["out_channels", "4", "residual=False"]),
    ("SqueezeAttention", {"pool": 0}, ["pool", "0"]),
    ("SqueezeAttention", {"pool": 2.0}, ["pool", "2.0"]),
    ("SqueezeAttention", {"reduction": 0}, ["reduction", "0"]),
    ("SqueezeAttention", {"kernel_size": 0}, ["kernel_size", "0"]),
    ("SqueezeAttention", {"kernel_size": 4}, ["kernel_size", "odd", "4"]),
    ("SqueezeAttention", {"norm": "LN"}, ["norm", "GN", "BN", "SyncBN", "none", "'LN'"]),
    ("SqueezeAttention", {"norm": ["GN"]}, ["norm", "GN, BN", "['GN']"]),
    ("SqueezeAttention", {"activation": "gelu"}, ["activation", "silu", "'gelu'"]),
    ("SqueezeAttention", {"residual": "false"}, ["residual", "'false'"]),
    ("SqueezeExcitation", {"residual": 0}, ["residual", "0"]),
    ("NonLocal", {"residual": None}, ["residual", "None"]),
    ("NonLocal", {"out_conv": "no"}, ["out_conv", "'no'"]),
    (
        *("SqueezeAttention", {"attention_activation": "tanh"}),
        ["attention_activation", "sigmoid", "'tanh'"],
    ),
    ("SqueezeAttention", {"upsample": "bicubic"}, ["upsample", "bilinear", "nearest", "'bicubic'"]),
]


@pytest.mark.parametrize(("name", "keywords", "words"), BAD, ids=lambda v: str(v)[:40])
def test_a_bad_value_is_named(name, keywords, words):
    with pytest.raises(ValueError) as error:
        build_block(name, 8, **keywords)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("cls", BLOCKS)
def test_bad_values_are_refused_by_the_class_itself(cls):
    for channels in (0, -8, 8.0, "8", True):
        with pytest.raises(ValueError, match="channels"):
            cls(channels)
    for name, keywords, words in BAD:
        if name == cls.__name__:
            with pytest.raises(ValueError, match=words[0]):
                cls(8, **keywords)


@pytest.mark.parametrize("name", [[], None, 3, {}])
def test_the_name_of_a_block_is_a_string(name):
    with pytest.raises(UserError, match=r"name of a context block is a string, not .*; use Criss"):
        build_block(name, 16)


@pytest.mark.parametrize(
    "name", ["CrissCross", "NonLocal", "SqueezeAttention", "SqueezeExcitation"]
)
def test_another_number_of_channels_is_named(name):
    block = build_block(name, 64)
    message = f"^{name} was built for 64 channels, but x has 32$"
    with pytest.raises(UserError, match=message):
        block(torch.zeros(1, 32, 5, 7))
    with pytest.raises(UserError, match=message), torch.no_grad():
        block.eval()(torch.zeros(1, 32, 5, 7))
    x = torch.randn(1, 64, 5, 7)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "", torch.jit.TracerWarning, module=r"ccsa\.blocks\.base")
        traced = torch.jit.trace(block, x, check_trace=False)
    torch.testing.assert_close(traced(x), block(x))
    torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), block(x))
