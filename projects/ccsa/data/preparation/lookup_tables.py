"""Lookup tables from the values of published label images to the labels of training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ccsa.data.formats.label_images import IGNORE
from ccsa.errors import UserError

INVALID = -1  # in a lookup table: a value that the dataset does not define


def lookup_table(mapping: Mapping[int, int], size: int = 256, other: int = INVALID) -> np.ndarray:
    """Return a (size,) table with the labels of ``mapping``, and ``other`` for all other values.

    Example:
        >>> lookup_table({0: 255, 1: 0}, size=3).tolist()
        [255, 0, -1]
    """
    table = np.full(size, other, np.int16)
    for value, label in mapping.items():
        table[value] = label
    return table


def identity_table(classes: int) -> np.ndarray:
    """Return the table of labels that need no change: 0 to ``classes`` - 1, and 255."""
    return lookup_table({**{i: i for i in range(classes)}, IGNORE: IGNORE})


def relabel(values: np.ndarray, table: np.ndarray, source: Path) -> np.ndarray:
    """Return integer ``values`` (H, W) as uint8 labels.

    Args:
        values: the content of a published label image.
        table: the label of each value.
        source: the file of ``values``, for the message of an error.

    Raises:
        UserError: the table has no label for a value.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= len(table):
        bad = low if low < 0 else high
    else:
        labels = table[values]
        if (labels != INVALID).all():
            return labels.astype(np.uint8)
        bad = int(values[labels == INVALID][0])
    raise UserError(
        f"{source} contains the label value {bad}, which this dataset does not define; "
        "replace it with an intact copy"
    )
