"""Detectron2's resize by the shorter side, for images of any shape."""

from collections.abc import Iterable

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's augmentation, except that no side becomes shorter than one pixel.

    An image of 1 x 5,000 pixels whose longer side may have 64 pixels is resized to 1 x 64, where
    Detectron2's augmentation raises an error, because 5,000 to 64 makes the other side zero.
    """

    @classmethod
    def like(cls, other: T.ResizeShortestEdge) -> "ResizeShortestEdge":
        """Return this augmentation with the settings of Detectron2's."""
        style = "range" if other.is_range else "choice"
        return cls(other.short_edge_length, other.max_size, style, other.interp)

    def get_transform(self, image: np.ndarray) -> Transform:
        """Return the resize of an image (H, W, C)."""
        transform = super().get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            transform.new_h, transform.new_w = max(transform.new_h, 1), max(transform.new_w, 1)
        return transform


def for_any_shape(augmentations: Iterable[T.Augmentation]) -> list[T.Augmentation]:
    """Return augmentations, with :class:`ResizeShortestEdge` in place of Detectron2's."""
    return [
        ResizeShortestEdge.like(a) if type(a) is T.ResizeShortestEdge else a for a in augmentations
    ]
