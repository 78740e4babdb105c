"""The resize by the shorter side takes images of any shape."""

import numpy as np
import pytest
from detectron2.data import transforms as T

from ccsa.data.transforms.resize import ResizeShortestEdge, for_any_shape


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (3, 400)])
def test_no_side_becomes_shorter_than_a_pixel(shape):
    image = np.full((*shape, 3), 7, np.uint8)
    resized = ResizeShortestEdge([64, 64], 64).get_transform(image).apply_image(image)
    assert min(resized.shape[:2]) >= 1 and max(resized.shape[:2]) <= 64
    assert (resized == 7).all()


@pytest.mark.parametrize("shape", [(48, 64), (100, 333), (640, 480)])
def test_other_images_are_resized_as_by_detectron2(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    theirs = T.ResizeShortestEdge([50, 70], 90, "choice")
    ours = for_any_shape([theirs])[0]
    assert type(ours) is ResizeShortestEdge and ours.max_size == 90 and not ours.is_range
    for seed in range(3):
        np.random.seed(seed)
        expected = theirs.get_transform(image).apply_image(image)
        np.random.seed(seed)
        assert np.array_equal(ours.get_transform(image).apply_image(image), expected)


def test_zero_keeps_the_size():
    image = np.zeros((5, 900, 3), np.uint8)
    assert isinstance(ResizeShortestEdge([0, 0], 64).get_transform(image), T.NoOpTransform)


def test_other_augmentations_are_kept():
    flip = T.RandomFlip()
    assert for_any_shape([flip]) == [flip]
