"""Mirroring where labels tell left from right: the mirror exchanges them."""

from collections.abc import Iterable

import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform

Pairs = Iterable[tuple[int, int]]


class SwapFlipTransform(HFlipTransform):
    """Detectron2's horizontal flip, which in a segmentation also exchanges the labels of ``pairs``.

    It is its own inverse.
    """

    def __init__(self, width: int, pairs: Pairs):
        super().__init__(width)
        self.pairs = tuple(pairs)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(H, W) labels, mirrored and exchanged, in a new array of the same type."""
        mirrored = super().apply_segmentation(segmentation)
        result = mirrored.copy()
        for left, right in self.pairs:
            result[mirrored == left] = right
            result[mirrored == right] = left
        return result


class RandomFlipWithSwap(Augmentation):
    """Flip horizontally with probability ``prob``; ``pairs`` are the labels that a mirror
    exchanges, ``flip_pairs`` of a dataset's metadata. Without pairs it is a plain flip."""

    def __init__(self, prob: float = 0.5, pairs: Pairs = ()):
        super().__init__()
        self.prob = prob
        self.pairs = check_pairs(pairs)

    def get_transform(self, image: np.ndarray) -> Transform:
        """A flip of ``image``, (H, W) or (H, W, C), or nothing."""
        if self._rand_range() < self.prob:
            return SwapFlipTransform(image.shape[1], self.pairs)
        return NoOpTransform()


def flip_permutation(classes: int, pairs: Pairs) -> list[int]:
    """Where each class of a mirrored image's scores is found: ``scores[:, permutation].flip(-1)``
    undoes the mirror for scores (N, classes, H, W)."""
    order = list(range(classes))
    for left, right in check_pairs(pairs, classes):
        order[left], order[right] = right, left
    return order


def check_pairs(pairs: Pairs, classes: int | None = None) -> tuple[tuple[int, int], ...]:
    """``pairs`` as a tuple.

    Raises:
        ValueError: a label in two pairs, or one that is not a class.
    """
    pairs = tuple((int(left), int(right)) for left, right in pairs)
    labels = [label for pair in pairs for label in pair]
    if len(set(labels)) != len(labels):
        raise ValueError(f"a label may be in one pair only, got {pairs}")
    if labels and (min(labels) < 0 or (classes is not None and max(labels) >= classes)):
        raise ValueError(
            f"labels to exchange must be classes 0..{(classes or 256) - 1}, got {pairs}"
        )
    return pairs
