"""Where the tiles of a large image are. Training and inference share this grid."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Area(NamedTuple):
    """A rectangle of an image in pixels; ``bottom`` and ``right`` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def selector(self) -> tuple[Any, slice, slice]:
        """What selects the rectangle from a tensor (..., H, W)."""
        return ..., slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, vertical: float, horizontal: float) -> "Area":
        """Return the rectangle in an image that is resized by these factors."""
        return Area(
            *(round(self.top * vertical), round(self.left * horizontal)),
            *(round(self.bottom * vertical), round(self.right * horizontal)),
        )


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Return the start of each window along one axis; the last window ends at ``size``.

    Example:
        >>> window_starts(size=10, crop=4, stride=4)
        [0, 4, 6]
    """
    last = max(size - crop, 0)
    return [*range(0, last, stride), last]


def tile_areas(
    size: tuple[int, int], tile: Sequence[int], overlap: Sequence[int]
) -> Iterator[Area]:
    """Yield the tiles of an image, row by row; the last of a row or column ends at the border.

    Args:
        size: (height, width) of the image.
        tile: (height, width) of a tile. An image that is smaller along an axis is not padded: the
            tile gets its size.
        overlap: the smallest overlap of neighbors, vertical and horizontal.

    Example:
        >>> [tuple(area) for area in tile_areas((4, 7), (8, 4), (2, 1))]
        [(0, 0, 4, 4), (0, 3, 4, 7)]
    """
    rows, columns = (
        window_starts(n, t, t - o) for n, t, o in zip(size, tile, overlap, strict=True)
    )
    for top in rows:
        for left in columns:
            yield Area(top, left, min(top + tile[0], size[0]), min(left + tile[1], size[1]))
