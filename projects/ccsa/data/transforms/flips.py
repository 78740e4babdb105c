"""Horizontal flips for labels that distinguish left from right: a flip exchanges them.

:func:`flip_permutation` is the one definition of the exchange; training (labels) and test-time
augmentation (scores) use it.
"""

from collections.abc import Iterable

import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform

from ccsa.errors import UserError

Pairs = Iterable[tuple[int, int]]
LABELS = 256  # the number of values of an 8-bit label image


class SwapFlipTransform(HFlipTransform):
    """Detectron2's horizontal flip, which in a label image also exchanges the labels of ``pairs``.

    The transform is its own inverse.

    Raises:
        UserError: see :func:`flip_permutation`.
    """

    def __init__(self, width: int, pairs: Pairs):
        super().__init__(width)
        self.exchanged = {
            label: other
            for label, other in enumerate(flip_permutation(LABELS, pairs))
            if label != other
        }

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return the (H, W) labels, flipped and exchanged, as a new array of the same type."""
        flipped = super().apply_segmentation(segmentation)
        result = flipped.copy()
        for label, other in self.exchanged.items():
            result[flipped == label] = other
        return result


class RandomFlipWithSwap(Augmentation):
    """Flip horizontally with probability ``prob`` and exchange the labels of ``pairs``.

    Args:
        prob: probability of a flip.
        pairs: the labels to exchange, ``flip_pairs`` of a dataset's metadata. Without pairs this is
            an ordinary flip.

    Raises:
        UserError: see :func:`flip_permutation`.
    """

    def __init__(self, prob: float = 0.5, pairs: Pairs = ()):
        super().__init__()
        self.prob = prob
        self.pairs = check_pairs(pairs)

    def get_transform(self, image: np.ndarray) -> Transform:
        """Return a flip of ``image``, (H, W) or (H, W, C), or a transform that does nothing."""
        if self._rand_range() < self.prob:
            return SwapFlipTransform(image.shape[1], self.pairs)
        return NoOpTransform()


def flip_permutation(classes: int, pairs: Pairs) -> list[int]:
    """Return, for each class, the class that takes its role in a horizontally flipped image.

    The permutation is its own inverse: ``scores[:, permutation].flip(-1)`` undoes the flip of an
    image for scores (N, classes, H, W).

    Raises:
        UserError: a label occurs twice in ``pairs``, or is not one of the classes.

    Example:
        >>> flip_permutation(5, [(1, 3)])
        [0, 3, 2, 1, 4]
    """
    order = list(range(classes))
    for left, right in check_pairs(pairs, classes):
        order[left], order[right] = right, left
    return order


def check_pairs(
    pairs: Iterable[Iterable[int]], classes: int = LABELS
) -> tuple[tuple[int, int], ...]:
    """Return ``pairs`` as a tuple of pairs of integers.

    Args:
        pairs: pairs of labels that a horizontal flip exchanges.
        classes: the number of labels; by default every label of an 8-bit image is valid.

    Raises:
        UserError: an element is not a pair, a label occurs twice, or a label is not one of the
            classes 0 to ``classes`` - 1.

    Example:
        >>> check_pairs([[1, 3]])
        ((1, 3),)
    """
    listed = [tuple(pair) for pair in pairs]
    if any(len(pair) != 2 for pair in listed):
        raise UserError(f"flip_pairs must be pairs of different classes, not {listed}")
    checked = tuple((int(left), int(right)) for left, right in listed)
    labels = [label for pair in checked for label in pair]
    if len(set(labels)) != len(labels):
        raise UserError(
            "flip_pairs must be pairs of different classes, and a label may occur in one pair "
            f"only, got {checked}"
        )
    if labels and (min(labels) < 0 or max(labels) >= classes):
        raise UserError(f"flip_pairs: labels must be classes 0..{classes - 1}, got {checked}")
    return checked
