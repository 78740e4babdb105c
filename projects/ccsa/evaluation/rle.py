"""Masks as COCO's compressed run lengths (RLE), without the memory of all masks at once."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as coco_mask
from torch import Tensor

_MOST_GROUPS = 8  # of 5 bits, of the length of a run


class MaskBox(NamedTuple):
    """A mask inside its box.

    Attributes:
        left, top: the corner of the box in the image, in pixels.
        pixels: (height, width) of the box, uint8, 0 or 1.
    """

    left: int
    top: int
    pixels: np.ndarray


def masks_to_rle(masks: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Return masks as RLE, of which one at a time is in memory.

    Args:
        masks: (H, W) each, on any device; e.g. a tensor (N, H, W) or :class:`PastedMasks`. Masks
            with a method ``to_rle``, as :class:`TileMasks`, encode themselves.

    Returns:
        ``{"size": [H, W], "counts": text}`` of each mask.

    Example:
        >>> import torch
        >>> masks_to_rle(torch.eye(2)[None])
        [{'size': [2, 2], 'counts': '0120'}]
    """
    if hasattr(masks, "to_rle"):
        return masks.to_rle()
    found = []
    for mask in masks:
        pixels = np.asfortranarray(mask.detach().cpu().numpy().astype(np.uint8))
        rle = coco_mask.encode(pixels)
        found.append({"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode()})
    return found


def decode_box(rle: Mapping[str, Any]) -> MaskBox:
    """Return the mask of an RLE inside its box; only the columns of the box are decoded.

    Args:
        rle: in the compressed form, with text or bytes.

    Example:
        >>> decode_box({"size": [3, 4], "counts": "415"})
        MaskBox(left=1, top=1, pixels=array([[1]], dtype=uint8))
    """
    height = rle["size"][0]
    counts = rle["counts"]
    counts = counts.encode("ascii") if isinstance(counts, str) else counts
    left, top, w, h = (int(n) for n in coco_mask.toBbox({**rle, "counts": counts}))
    first, last = left * height, (left + w) * height
    ends = np.minimum(np.maximum(np.cumsum(run_lengths(counts)), first), last)
    lengths = ends.copy()
    lengths[1:] -= ends[:-1]
    lengths[0] -= first
    values = np.zeros(len(lengths), np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, lengths).reshape(w, height)
    return MaskBox(left, top, columns[:, top : top + h].T.copy())


def run_lengths(counts: bytes) -> np.ndarray:
    """Return the lengths of the runs of zeros and ones, in turns, of valid compressed counts.

    :func:`ccsa.data.formats.masks.decode_counts` also accepts invalid ones, but is slower.

    Example:
        >>> run_lengths(b"04L4").tolist()
        [0, 4, -4, 8]
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32)  # the last group of 5 bits of each number
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    sizes = ends - starts + 1
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, sizes))
    lengths = np.add.reduceat((codes & 31) << shifts, starts)
    lengths -= np.where(codes[ends] & 16, 1 << (5 * sizes), 0)
    lengths[1::2] = np.cumsum(lengths[1::2])  # differences to the length two before
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def is_mask(rle: Any, size: tuple[int, int]) -> bool:
    """Return whether a value is the compressed RLE of a mask (H, W), which may be empty.

    Example:
        >>> is_mask({"size": [3, 4], "counts": "415"}, (3, 4))
        True
        >>> is_mask({"size": [3, 4], "counts": "4"}, (3, 4))
        False
    """
    if not isinstance(rle, dict) or rle.get("size") != list(size):
        return False
    counts = rle.get("counts")
    if not isinstance(counts, str) or not counts or not counts.isascii():
        return False
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32)
    if codes.min() < 0 or codes.max() > 63 or codes[-1] > 31:
        return False
    if np.diff(ends, prepend=-1).max() > _MOST_GROUPS:
        return False
    lengths = run_lengths(counts.encode("ascii"))
    return bool(lengths.min() >= 0) and int(lengths.sum()) == size[0] * size[1]
