"""Features and labels for small heads, whose outputs the tests compute explicitly."""

import pytest
import torch
from detectron2.layers import ShapeSpec

CHANNELS = {"res2": 8, "res3": 10, "res4": 12, "res5": 14}
STRIDES = {"res2": 4, "res3": 8, "res4": 8, "res5": 8}


@pytest.fixture
def shapes():
    return {name: ShapeSpec(channels=CHANNELS[name], stride=STRIDES[name]) for name in CHANNELS}


@pytest.fixture
def features():
    """Return features of a 33 x 41 image: 9 x 11 at stride 4, 5 x 6 at stride 8."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(
            2, CHANNELS[name], *((9, 11) if name == "res2" else (5, 6)), generator=generator
        )
        for name in CHANNELS
    }


@pytest.fixture
def labels():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 5, (2, 33, 41), generator=generator)
    labels[:, :4] = 255
    return labels
