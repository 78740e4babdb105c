"""The resize of an exported program is the one of Pillow, and thus of Detectron2."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from PIL import Image

from ccsa.export.canvas import Preparation

GREEN = (0, 255, 0)


def resized(pixels, shortest, largest):
    """Return an image as a program resizes it, in float32 (h, w, 3)."""
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = shortest, largest
    model = SimpleNamespace(
        backbone=SimpleNamespace(padding_constraints={}, size_divisibility=32),
        pixel_mean=torch.zeros(3, 1, 1),
        pixel_std=torch.ones(3, 1, 1),
    )
    canvas = Preparation(cfg, model).resized(torch.from_numpy(pixels))
    h, w = (int(n) for n in canvas.used)
    return canvas.pixels[0, :, :h, :w].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("size", "shortest", "largest"),
    [
        ((160, 160), 160, 200),  # the same size
        ((120, 150), 160, 200),  # larger
        ((333, 211), 160, 213),  # smaller
        ((150, 300), 160, 213),
        ((1201, 1603), 160, 213),  # much smaller
        ((1, 1), 64, 64),
        ((1, 5000), 64, 100),
    ],
)
def test_an_image_is_resized_as_by_pillow(size, shortest, largest):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = resized(pixels, shortest, largest)
    h, w = found.shape[:2]
    expected = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, expected)


def test_a_pattern_of_single_pixels_becomes_gray():
    """Interpolation between the nearest two pixels would keep stripes."""
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[::2] = GREEN
    found = resized(pixels, 50, 50)
    inside = found[1:-1, :, 1]
    assert inside.min() >= 127 and inside.max() <= 128
