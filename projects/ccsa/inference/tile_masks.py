"""Masks that are stored inside their boxes, one bit for each pixel.

The masks of 100 objects in an image of 8,000 x 6,000 pixels would need 4.8 GB as a boolean tensor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torch import Tensor

from ccsa.evaluation.rle import run_lengths


@dataclass(frozen=True, eq=False)
class BoxMask:
    """A mask inside a box.

    Attributes:
        left, top: the corner of the box in the image, in pixels.
        height, width: the size of the box.
        bits: the pixels (height, ceil(width / 8)), uint8, packed along rows.
        area: the number of pixels of the mask.
    """

    left: int
    top: int
    height: int
    width: int
    bits: np.ndarray
    area: int

    @classmethod
    def of(cls, pixels: np.ndarray, left: int = 0, top: int = 0) -> "BoxMask":
        """Return the mask of pixels (height, width), bool, whose corner is at (left, top); borders
        without pixels are cut off.

        Example:
            >>> mask = BoxMask.of(np.array([[0, 0, 1], [0, 0, 1]], bool), left=10)
            >>> mask.left, mask.height, mask.width, mask.area
            (12, 2, 1, 2)
        """
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        if not len(rows):
            return cls(left, top, 0, 0, np.zeros((0, 0), np.uint8), 0)
        inside = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height, width = inside.shape
        return cls(
            *(left + int(columns[0]), top + int(rows[0]), height, width),
            bits=np.packbits(inside, axis=1),
            area=int(np.count_nonzero(inside)),
        )

    @property
    def pixels(self) -> np.ndarray:
        """The pixels (height, width), bool."""
        if not self.area:
            return np.zeros((self.height, self.width), bool)
        return np.unpackbits(self.bits, axis=1, count=self.width).astype(bool)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The box as (left, top, right, bottom)."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def inside(self, box: Sequence[int]) -> np.ndarray:
        """Return the pixels of the mask in a box (left, top, right, bottom) that lies within the
        box of the mask."""
        left, top, right, bottom = box
        rows = self.bits[top - self.top : bottom - self.top]
        pixels = np.unpackbits(rows, axis=1, count=self.width).astype(bool)
        return pixels[:, left - self.left : right - self.left]

    def union(self, other: "BoxMask") -> "BoxMask":
        """Return the mask of all pixels of two masks."""
        if not self.area or not other.area:
            return self if self.area else other
        left, top = min(self.left, other.left), min(self.top, other.top)
        right, bottom = max(self.box[2], other.box[2]), max(self.box[3], other.box[3])
        pixels = np.zeros((bottom - top, right - left), bool)
        for mask in (self, other):
            rows = slice(mask.top - top, mask.top - top + mask.height)
            columns = slice(mask.left - left, mask.left - left + mask.width)
            pixels[rows, columns] |= mask.pixels
        return BoxMask.of(pixels, left, top)


def intersection(box: Sequence[float], other: Sequence[float]) -> tuple[Any, Any, Any, Any] | None:
    """Return the box that two boxes (left, top, right, bottom) have in common, or None.

    Example:
        >>> intersection((0, 0, 4, 4), (2, 1, 9, 9)), intersection((0, 0, 1, 1), (1, 0, 2, 1))
        ((2, 1, 4, 4), None)
    """
    left, top = max(box[0], other[0]), max(box[1], other[1])
    right, bottom = min(box[2], other[2]), min(box[3], other[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


class TileMasks:
    """The masks of an image, stored inside their boxes.

    It is used like a boolean tensor of shape (N, H, W): it has a length, yields masks (H, W), and
    is indexed by a number, a slice, or a tensor of indices or booleans.

    Args:
        masks: one for each object.
        size: (H, W) of the image.

    Example:
        >>> masks = TileMasks([BoxMask.of(np.ones((1, 2), bool), left=1)], (2, 4))
        >>> masks[0].int()
        tensor([[0, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """

    def __init__(self, masks: Sequence[BoxMask], size: tuple[int, int]):
        self.masks, self.size = list(masks), size

    device = torch.device("cpu")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return len(self.masks), *self.size

    def __len__(self) -> int:
        return len(self.masks)

    def __iter__(self) -> Iterator[Tensor]:
        return (self._full(mask) for mask in self.masks)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, Tensor | np.ndarray):
            item = item.tolist()
        if isinstance(item, int | np.integer) and not isinstance(item, bool):
            return self._full(self.masks[item])
        if isinstance(item, slice):
            return TileMasks(self.masks[item], self.size)
        if item and isinstance(item[0], bool):
            item = [index for index, chosen in enumerate(item) if chosen]
        return TileMasks([self.masks[index] for index in item], self.size)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Return all masks (N, H, W), for programs that need them at once."""
        full = np.zeros(self.shape, dtype or bool)
        for out, mask in zip(full, self, strict=True):
            out[:] = mask.numpy()
        return full

    def to(self, *args: Any, **kwargs: Any) -> "TileMasks":
        """Return the masks themselves, which stay on the CPU."""
        return self

    def _full(self, mask: BoxMask) -> Tensor:
        full = torch.zeros(self.size, dtype=torch.bool)
        left, top, right, bottom = mask.box
        full[top:bottom, left:right] = torch.from_numpy(mask.pixels)
        return full

    def to_rle(self) -> list[dict[str, Any]]:
        """Return the masks as COCO's RLE; only the columns of a box are encoded.

        Example:
            >>> TileMasks([BoxMask.of(np.ones((1, 1), bool), left=1, top=1)], (3, 4)).to_rle()
            [{'size': [3, 4], 'counts': '415'}]
        """
        return [self._rle(mask) for mask in self.masks]

    def _rle(self, mask: BoxMask) -> dict[str, Any]:
        height, width = self.size
        columns = np.zeros((height, mask.width), np.uint8, order="F")
        columns[mask.top : mask.top + mask.height] = mask.pixels
        counts = [0]
        if mask.area:
            counts = run_lengths(coco_mask.encode(columns)["counts"]).tolist()
        counts[0] += mask.left * height
        after = height * width - sum(counts)
        if len(counts) % 2:  # the last run is one of zeros
            counts[-1] += after
        elif after:
            counts.append(after)
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        return {"size": [height, width], "counts": rle["counts"].decode()}
