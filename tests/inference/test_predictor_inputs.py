"""The inputs of a predictor: images of more than 8 bits are mapped by the range of the run."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.inference.predictor import ModelPredictor

DEEP = np.random.default_rng(0).integers(1000, 3000, (48, 64, 3)).astype(np.uint16)


def make_predictor(intensities="auto"):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 0, "INPUT.FORMAT", "RGB"])
    cfg.INPUT.INTENSITY_RANGE = intensities
    return ModelPredictor(cfg, nn.Identity())


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_images_are_mapped(dtype):
    predictor = make_predictor([1000, 3000])
    found = predictor.prepare(DEEP.astype(dtype))["image"].permute(1, 2, 0).numpy()
    expected = np.round((DEEP - 1000.0) * 255 / 2000)
    assert np.abs(found - expected).max() <= 1 and found.std() > 50


def test_deep_images_without_a_range_are_rejected():
    with pytest.raises(UserError, match=r"type uint16 instead of uint8.*INTENSITY_RANGE"):
        make_predictor().prepare(DEEP)


def test_images_of_8_bits_stay():
    image = (DEEP % 256).astype(np.uint8)
    predictor = make_predictor([1000, 3000])
    assert np.array_equal(predictor.prepare(image)["image"].permute(1, 2, 0).numpy(), image)
