"""Merging of the objects that were found in overlapping tiles.

An object is *cut* if it reaches an edge of its tile inside the image. In this order,

1. a cut object is dropped if a complete one of another tile covers at least half of it;
2. cut objects of different tiles are joined if, in the area that the tiles have in common, their
   masks agree: the intersection is at least half of the smaller one. The joined object has the
   union of the masks, the highest score, and the class of its largest part;
3. of two complete or joined objects of one class and different tiles with an IoU of at least one
   half, the one with the higher score is kept.

Without masks, boxes take their place, and only objects of one class are compared. Objects of one
tile are never merged; the model has done that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from detectron2.structures import Instances

from ccsa.inference.tile_masks import BoxMask, intersection

COVERED = 0.5  # the share of a cut object from which a complete one replaces it
AGREEMENT = 0.5  # the share of the smaller part from which two cut objects are one
DUPLICATE = 0.5  # the IoU of two complete objects from which they are one
_NEAR = 2.0  # pixels to an edge of the tile at which an object is cut, and
_NEAR_SHARE = 0.05  # the same as a share of the size of the object, whose box is not exact

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Found:
    """An object that was found in a tile.

    Attributes:
        box: (left, top, right, bottom) in pixels of the image.
        score, label: of the detection.
        mask: its mask, without pixels if the model has no masks.
        tiles: the tiles that it was found in, by number, with their boxes.
        cut: whether it reaches an edge of its tile that is not one of the image.
        has_mask: whether the model has masks.
    """

    box: Box
    score: float
    label: int
    mask: BoxMask
    tiles: dict[int, Box] = field(default_factory=dict)
    cut: bool = False
    has_mask: bool = True

    @property
    def area(self) -> float:
        if self.has_mask:
            return self.mask.area
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def found_in_tile(
    instances: Instances, number: int, tile: Any, size: tuple[int, int]
) -> Iterator[Found]:
    """Yield the objects that a model has found in a tile, in pixels of the image.

    Args:
        instances: the output of the model for the tile, on the CPU.
        number: the number of the tile.
        tile: its area (top, left, bottom, right) in the image.
        size: (height, width) of the image.
    """
    top, left, bottom, right = tile
    area = (left, top, right, bottom)
    has_mask = instances.has("pred_masks")
    scores, labels = instances.scores.tolist(), instances.pred_classes.tolist()
    for index, (x0, y0, x1, y1) in enumerate(instances.pred_boxes.tensor.tolist()):
        box = (x0 + left, y0 + top, x1 + left, y1 + top)
        mask = BoxMask(0, 0, 0, 0, np.zeros((0, 0), np.uint8), 0)
        if has_mask:
            mask = BoxMask.of(instances.pred_masks[index].numpy(), left, top)
        yield Found(
            *(box, scores[index], labels[index], mask, {number: area}),
            cut=_is_cut(box, area, size),
            has_mask=has_mask,
        )


def _is_cut(box: Box, tile: Sequence[float], size: tuple[int, int]) -> bool:
    near_x = max(_NEAR, _NEAR_SHARE * (box[2] - box[0]))
    near_y = max(_NEAR, _NEAR_SHARE * (box[3] - box[1]))
    return bool(
        (tile[0] > 0 and box[0] < tile[0] + near_x)
        or (tile[1] > 0 and box[1] < tile[1] + near_y)
        or (tile[2] < size[1] and box[2] > tile[2] - near_x)
        or (tile[3] < size[0] and box[3] > tile[3] - near_y)
    )


def merge(found: Sequence[Found]) -> list[Found]:
    """Return the objects of an image from those of its tiles; see the module."""
    complete = [item for item in found if not item.cut]
    remaining = _without_covered(found, complete)
    joined = _joined([item for item in remaining if item.cut])
    return _without_duplicates([*complete, *joined])


def _pairs(first: Sequence[Found], second: Sequence[Found]) -> Iterator[tuple[int, int]]:
    """Yield the indices of objects whose boxes intersect and that share no tile."""
    if not first or not second:
        return
    boxes = np.array([item.box for item in second])
    for index, item in enumerate(first):
        left, top, right, bottom = item.box
        near = (boxes[:, 0] < right) & (boxes[:, 2] > left)
        near &= (boxes[:, 1] < bottom) & (boxes[:, 3] > top)
        for other in np.flatnonzero(near).tolist():
            candidate = second[other]
            comparable = item.has_mask or item.label == candidate.label
            if comparable and not item.tiles.keys() & candidate.tiles.keys():
                yield index, other


def _common(a: Found, b: Found, within: Box | None = None) -> tuple[float, float, float]:
    """Return the area of the intersection of two objects and their own areas, all within a box."""
    if not a.has_mask:
        parts = [_clipped(item.box, within) for item in (a, b)]
        shared = intersection(*parts) if all(parts) else None  # type: ignore[arg-type]
        return _box_area(shared), _box_area(parts[0]), _box_area(parts[1])
    boxes = [_clipped(item.mask.box, within) for item in (a, b)]
    if not all(boxes):
        return 0.0, 0.0, 0.0
    areas = [
        float(item.mask.area if within is None else np.count_nonzero(item.mask.inside(box)))  # type: ignore[arg-type]
        for item, box in zip((a, b), boxes, strict=True)
    ]
    shared = intersection(boxes[0], boxes[1])  # type: ignore[arg-type]
    both = 0
    if shared is not None:
        both = int(np.count_nonzero(a.mask.inside(shared) & b.mask.inside(shared)))
    return float(both), areas[0], areas[1]


def _clipped(box: Sequence[float], within: Sequence[float] | None) -> Any:
    return box if within is None else intersection(box, within)


def _box_area(box: Sequence[float] | None) -> float:
    return 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1])


def _without_covered(found: Sequence[Found], complete: Sequence[Found]) -> list[Found]:
    """Return all objects but the cut ones that a complete object of another tile covers."""
    covered = set()
    cut = [index for index, item in enumerate(found) if item.cut]
    for position, other in _pairs([found[index] for index in cut], complete):
        item = found[cut[position]]
        both, area, _ = _common(item, complete[other])
        if both >= COVERED * area > 0:
            covered.add(cut[position])
    return [item for index, item in enumerate(found) if index not in covered]


def _joined(cut: Sequence[Found]) -> list[Found]:
    """Return cut objects, joined where they agree. A joined object has one part of each tile."""
    candidates = []
    for a, b in _pairs(cut, cut):
        if a >= b:
            continue
        (first,), (second,) = cut[a].tiles.values(), cut[b].tiles.values()
        overlap = intersection(first, second)
        if overlap is None:
            continue
        both, *areas = _common(cut[a], cut[b], overlap)
        if both >= AGREEMENT * min(areas) > 0:
            candidates.append((both / min(areas), a, b))
    groups = {index: [index] for index in range(len(cut))}
    group_of = list(range(len(cut)))
    for _, a, b in sorted(candidates, key=lambda candidate: (-candidate[0], *candidate[1:])):
        one, other = group_of[a], group_of[b]
        tiles = [{t for index in groups[g] for t in cut[index].tiles} for g in (one, other)]
        if one == other or tiles[0] & tiles[1]:
            continue
        groups[one] += groups.pop(other)
        for index in groups[one]:
            group_of[index] = one
    return [_union([cut[index] for index in group]) for group in groups.values()]


def _union(parts: Sequence[Found]) -> Found:
    if len(parts) == 1:
        return parts[0]
    mask = parts[0].mask
    for part in parts[1:]:
        mask = mask.union(part.mask)
    boxes = np.array([part.box for part in parts])
    box = (*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
    return replace(
        max(parts, key=lambda part: part.area),
        box=box,
        score=max(part.score for part in parts),
        mask=mask,
        tiles={number: tile for part in parts for number, tile in part.tiles.items()},
    )


def _without_duplicates(items: Sequence[Found]) -> list[Found]:
    """Return the objects without those that another one of a higher score repeats."""
    ordered = sorted(items, key=lambda item: (-item.score, item.box))
    dropped: set[int] = set()
    for a, b in _pairs(ordered, ordered):
        if a >= b or a in dropped or ordered[a].label != ordered[b].label:
            continue
        both, *areas = _common(ordered[a], ordered[b])
        if both >= DUPLICATE * (sum(areas) - both) > 0:
            dropped.add(b)
    return [item for index, item in enumerate(ordered) if index not in dropped]
