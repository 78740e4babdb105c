"""A flip exchanges left and right labels, in training and when scores are averaged."""

import numpy as np
import pytest
import torch
from detectron2.data.transforms import AugInput, AugmentationList
from torch import nn

from ccsa.data.semantic.lip import FLIP_PAIRS
from ccsa.data.transforms.flips import RandomFlipWithSwap, SwapFlipTransform, flip_permutation
from ccsa.errors import UserError
from ccsa.inference import SemanticTTA

LABELS = np.array([[0, 14, 15, 255], [16, 17, 18, 19], [13, 14, 14, 15]], np.uint8)
MIRRORED = np.array([[255, 14, 15, 0], [18, 19, 16, 17], [14, 15, 15, 13]], np.uint8)


def test_labels_are_mirrored_and_exchanged():
    flip = SwapFlipTransform(4, FLIP_PAIRS)
    before = LABELS.copy()
    result = flip.apply_segmentation(LABELS)
    assert np.array_equal(result, MIRRORED)
    assert result.dtype == np.uint8
    assert np.array_equal(before, LABELS)
    assert np.array_equal(flip.inverse().apply_segmentation(result), LABELS)


def test_images_and_coordinates_are_only_mirrored():
    flip = SwapFlipTransform(4, FLIP_PAIRS)
    assert np.array_equal(flip.apply_image(LABELS), LABELS[:, ::-1])
    assert flip.apply_coords(np.array([[1.0, 2.0]])).tolist() == [[3.0, 2.0]]


def test_augmentation_flips_image_and_labels_together():
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    data = AugInput(image, sem_seg=LABELS)
    AugmentationList([RandomFlipWithSwap(1.0, FLIP_PAIRS)])(data)
    assert np.array_equal(data.image, image[:, ::-1])
    assert np.array_equal(data.sem_seg, MIRRORED)


def test_probability_is_obeyed():
    np.random.seed(0)
    flips = [
        isinstance(RandomFlipWithSwap(0.3, FLIP_PAIRS).get_transform(LABELS), SwapFlipTransform)
        for _ in range(1000)
    ]
    assert 250 < sum(flips) < 350
    data = AugInput(LABELS.copy(), sem_seg=LABELS)
    RandomFlipWithSwap(0.0, FLIP_PAIRS)(data)
    assert np.array_equal(data.sem_seg, LABELS)


def test_without_pairs_it_is_a_plain_flip():
    data = AugInput(LABELS.copy(), sem_seg=LABELS)
    RandomFlipWithSwap(1.0)(data)
    assert np.array_equal(data.sem_seg, LABELS[:, ::-1])


def test_scores_of_a_mirrored_image_come_back_right():
    labels = torch.tensor(np.where(LABELS == 255, 0, LABELS), dtype=torch.long)
    mirrored = SwapFlipTransform(4, FLIP_PAIRS).apply_segmentation(labels.numpy())
    scores = torch.nn.functional.one_hot(torch.tensor(mirrored), 20).permute(2, 0, 1)[None]
    back = scores[:, flip_permutation(20, FLIP_PAIRS)].flip(-1)
    assert torch.equal(back.argmax(1)[0], labels)


@pytest.mark.parametrize("pairs", [[(1, 2), (2, 3)], [(1, 1)], [(-1, 2)], [(19, 20)]])
def test_wrong_pairs_are_refused(pairs):
    with pytest.raises(ValueError, match="got"):
        flip_permutation(20, pairs)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(1,)], "pairs of different classes"),
        ([(1, 2, 3)], "pairs of different classes"),
        ([(1, 2), (2, 3)], "in one pair only"),
        ([(1, 256)], r"classes 0\.\.255"),
    ],
)
def test_training_and_test_time_augmentation_share_one_check(pairs, message):
    for use in (
        lambda: RandomFlipWithSwap(pairs=pairs),
        lambda: SemanticTTA(nn.Identity(), flip_pairs=pairs),
    ):
        with pytest.raises(UserError, match=message):
            use()
