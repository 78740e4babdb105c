"""``--data`` with validation images of another size than the training images."""

import argparse
import shutil

import numpy as np
import pytest
from PIL import Image
from support import own_scenes

from ccsa.engine import setup_cfg

pytestmark = pytest.mark.usefixtures("separate_datasets")


def configure(root, data):
    args = argparse.Namespace(
        config_file=str(root / "configs/own/mask_rcnn.yaml"),
        opts=["MODEL.DEVICE", "cpu"],
        data=str(data),
    )
    return setup_cfg(args), args


def repeat(file):
    """Replace an image or its mask by 2 x 2 copies; every object of the four has its own number."""
    values = np.array(Image.open(file))
    parts = np.kron(np.arange(4).reshape(2, 2), np.ones(values.shape[:2])).astype(values.dtype)
    shown = np.tile(values, (2, 2) + (1,) * (values.ndim - 2))
    if file.parent.name != "images":
        shown[shown > 0] += (parts * values.max())[shown > 0]
    Image.fromarray(shown).save(file)


def test_larger_validation_images_have_the_scale_of_the_training_images(root, tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    own_scenes.DIALECTS["instance_labels"][0](small, own_scenes.make_scenes(8))
    shutil.copytree(small, large)
    for file in [file for file in (large / "val").rglob("*") if file.is_file()]:
        repeat(file)
    before, _ = configure(root, small)
    after, args = configure(root, large)
    assert after.INPUT.MIN_SIZE_TEST == 2 * before.INPUT.MIN_SIZE_TEST
    assert after.INPUT.MIN_SIZE_TRAIN == before.INPUT.MIN_SIZE_TRAIN
    assert "at the scale of the training images" in " ".join(args.data_settings.split())
