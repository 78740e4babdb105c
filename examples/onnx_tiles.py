"""Run an exported program on overlapping tiles of a large image, and merge what it finds.

run_onnx.py uses this module, which needs only NumPy and Pillow. It merges detections as ccsa does
with TEST.TILES. An object is *cut* if it reaches an edge of its tile inside the image. In this
order,

1. a cut object is dropped if a complete one of another tile covers at least half of it;
2. cut objects of different tiles are joined if, in the area that the tiles have in common, their
   masks agree: the intersection is at least half of the smaller one. The joined object has the
   union of the masks, the highest score, and the class of its largest part;
3. of two complete or joined objects of one class and different tiles with an IoU of at least one
   half, the one with the higher score is kept.

Without masks, boxes take their place, and only objects of one class are compared. The class of a
pixel is that of the tile whose edge inside the image is farthest from it.

Boxes and areas are (left, top, right, bottom) in pixels; right and bottom are exclusive.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

COVERED, AGREEMENT, DUPLICATE = 0.5, 0.5, 0.5  # of the three rules
NEAR, NEAR_SHARE = 2.0, 0.05  # the distance to an edge at which an object is cut: pixels, share


@dataclass(eq=False)
class Mask:
    """The pixels of a mask (height, width), bool, inside the smallest box, and its corner."""

    left: int
    top: int
    pixels: np.ndarray

    @classmethod
    def of(cls, pixels, left, top):
        """Return the mask of pixels whose corner is at (left, top), without empty borders."""
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        if not len(rows):
            return cls(left, top, np.zeros((0, 0), bool))
        inside = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        return cls(left + int(columns[0]), top + int(rows[0]), inside)

    @property
    def box(self):
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height

    def inside(self, box):
        """Return the pixels of the mask in a box within its own."""
        left, top, right, bottom = box
        return self.pixels[top - self.top : bottom - self.top, left - self.left : right - self.left]


@dataclass(eq=False)
class Object:
    """A detection; ``tiles`` are the areas of its tiles by number, ``mask`` may be None."""

    box: tuple
    score: float
    label: int
    mask: Mask | None
    tiles: dict
    cut: bool


def run_on_tiles(run, image, shape, size, overlap, most=-1):
    """Return the outputs of a program for an image, from its tiles.

    Args:
        run: the program, from an image (height, width, 3) to its outputs by name.
        image: uint8 (height, width, 3).
        shape: (height, width) to which the image is resized before it is cut into tiles.
        size: (height, width) of a tile; an image that is smaller along an axis is not padded.
        overlap: the smallest overlap of neighbors, vertical and horizontal.
        most: the largest number of detections; negative for no limit.

    Returns:
        "semantic" (height, width), or "boxes" (N, 4), "scores" (N,), "classes" (N,), and if the
        program has masks, "masks", a list of N :class:`Mask`.
    """
    resized = image
    if tuple(shape) != image.shape[:2]:
        new = Image.fromarray(image).resize(tuple(shape)[::-1], Image.Resampling.BILINEAR)
        resized = np.asarray(new)
    scale = image.shape[1] / shape[1], image.shape[0] / shape[0]
    objects, has_masks = [], False
    semantic, farthest = np.zeros(shape, np.int64), np.full(shape, -1.0)
    found = {}
    for number, area in enumerate(tile_areas(shape, size, overlap)):
        left, top, right, bottom = area
        found = run(np.ascontiguousarray(resized[top:bottom, left:right]))
        if "semantic" in found:
            part, distance = (x[top:bottom, left:right] for x in (semantic, farthest))
            own = edge_distance(area, shape)
            nearer = own > distance
            part[nearer], distance[nearer] = found["semantic"][nearer], own[nearer]
        else:
            has_masks = "masks" in found
            objects += objects_of(found, number, area, scale, image.shape[:2])
    if "semantic" in found:
        return {"semantic": nearest(semantic, image.shape[:2])}
    objects = merge(objects)[: most if most >= 0 else None]
    result = {
        "boxes": np.array([x.box for x in objects], np.float32).reshape(-1, 4),
        "scores": np.array([x.score for x in objects], np.float32),
        "classes": np.array([x.label for x in objects], np.int64),
    }
    return result | ({"masks": [x.mask for x in objects]} if has_masks else {})


def tile_areas(shape, size, overlap):
    """Return the areas of the tiles of an image; the last of a row or column ends at its border."""
    starts = []
    for length, tile, shared in zip(shape, size, overlap, strict=True):
        last = max(length - tile, 0)
        starts.append([*range(0, last, tile - shared), last])
    return [
        (left, top, min(left + size[1], shape[1]), min(top + size[0], shape[0]))
        for top in starts[0]
        for left in starts[1]
    ]


def edge_distance(area, shape):
    """Return the distance (height, width) of each pixel of a tile to its edges in the image."""
    left, top, right, bottom = area
    distances = []
    for start, stop, length in ((top, bottom, shape[0]), (left, right, shape[1])):
        at = np.arange(stop - start)
        before = at + 1.0 if start > 0 else np.full(len(at), np.inf)
        after = at[::-1] + 1.0 if stop < length else np.full(len(at), np.inf)
        distances.append(np.minimum(before, after))
    return np.minimum(distances[0][:, None], distances[1])


def nearest(pixels, shape):
    """Return pixels (height, width) at another size, from the nearest pixels."""
    if pixels.shape == tuple(shape):
        return pixels
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(int)
        for new, old in zip(shape, pixels.shape, strict=True)
    )
    return pixels[rows[:, None], columns]


def objects_of(found, number, area, scale, shape):
    """Return the objects of a tile in pixels of the image.

    Args:
        found: the outputs of the program.
        number, area: of the tile, in the resized image.
        scale: the factors (x, y) from the resized image to the image.
        shape: (height, width) of the image.
    """
    tile = left, top, right, bottom = tuple(
        round(a * s) for a, s in zip(area, scale * 2, strict=True)
    )
    factors = [(right - left) / (area[2] - area[0]), (bottom - top) / (area[3] - area[1])] * 2
    objects = []
    for i, corners in enumerate(found["boxes"].tolist()):
        box = tuple(x * f + o for x, f, o in zip(corners, factors, (left, top) * 2, strict=True))
        mask = None
        if "masks" in found:
            mask = Mask.of(nearest(found["masks"][i], (bottom - top, right - left)), left, top)
        score, label = float(found["scores"][i]), int(found["classes"][i])
        objects.append(Object(box, score, label, mask, {number: tile}, is_cut(box, tile, shape)))
    return objects


def is_cut(box, tile, shape):
    """Return whether a box reaches an edge of its tile that is not one of the image."""
    near_x = max(NEAR, NEAR_SHARE * (box[2] - box[0]))
    near_y = max(NEAR, NEAR_SHARE * (box[3] - box[1]))
    return (
        (tile[0] > 0 and box[0] < tile[0] + near_x)
        or (tile[1] > 0 and box[1] < tile[1] + near_y)
        or (tile[2] < shape[1] and box[2] > tile[2] - near_x)
        or (tile[3] < shape[0] and box[3] > tile[3] - near_y)
    )


def merge(objects):
    """Return the objects of an image from those of its tiles, the highest score first."""
    complete = [x for x in objects if not x.cut]
    covered = set()
    cut = [x for x in objects if x.cut]
    for a, b in pairs(cut, complete):
        both, area, _ = common(cut[a], complete[b])
        if both >= COVERED * area > 0:
            covered.add(a)
    joined = join([x for a, x in enumerate(cut) if a not in covered])
    ordered = sorted([*complete, *joined], key=lambda x: (-x.score, x.box))
    dropped = set()
    for a, b in pairs(ordered, ordered):
        if a < b and a not in dropped and ordered[a].label == ordered[b].label:
            both, *areas = common(ordered[a], ordered[b])
            if both >= DUPLICATE * (sum(areas) - both) > 0:
                dropped.add(b)
    return [x for a, x in enumerate(ordered) if a not in dropped]


def pairs(first, second):
    """Yield the indices of objects whose boxes intersect, that share no tile and may be one."""
    boxes = np.array([x.box for x in second]).reshape(-1, 4)
    for a, x in enumerate(first):
        near = (boxes[:, :2] < x.box[2:]).all(1) & (boxes[:, 2:] > x.box[:2]).all(1)
        for b in np.flatnonzero(near).tolist():
            comparable = x.mask is not None or x.label == second[b].label
            if comparable and not x.tiles.keys() & second[b].tiles.keys():
                yield a, b


def intersection(box, other):
    """Return the box that two boxes have in common, or None; a None is without limits."""
    if box is None or other is None:
        return box or other
    left, top = max(box[0], other[0]), max(box[1], other[1])
    right, bottom = min(box[2], other[2]), min(box[3], other[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def common(a, b, within=None):
    """Return the area of the intersection of two objects and their own areas, all within a box."""
    parts = [intersection(x.box if x.mask is None else x.mask.box, within) for x in (a, b)]
    if not all(parts):
        return 0.0, 0.0, 0.0
    shared = intersection(*parts)
    areas = [area_of(x, part) for x, part in zip((a, b), parts, strict=True)]
    if shared is None:
        return 0.0, *areas
    if a.mask is None:
        return area_of(a, shared), *areas
    both = np.count_nonzero(a.mask.inside(shared) & b.mask.inside(shared))
    return float(both), *areas


def area_of(x, box):
    """Return the area of an object in a box within its own."""
    if x.mask is None:
        return (box[2] - box[0]) * (box[3] - box[1])
    return float(np.count_nonzero(x.mask.inside(box)))


def join(cut):
    """Return cut objects, joined where they agree. A joined object has one part of each tile."""
    candidates = []
    for a, b in pairs(cut, cut):
        overlap = intersection(*cut[a].tiles.values(), *cut[b].tiles.values())
        if a < b and overlap is not None:
            both, *areas = common(cut[a], cut[b], overlap)
            if both >= AGREEMENT * min(areas) > 0:
                candidates.append((-both / min(areas), a, b))
    groups = {a: [a] for a in range(len(cut))}
    group_of = list(range(len(cut)))
    for _, a, b in sorted(candidates):
        one, other = group_of[a], group_of[b]
        tiles = [{t for i in groups[group] for t in cut[i].tiles} for group in (one, other)]
        if one != other and not tiles[0] & tiles[1]:
            groups[one] += groups.pop(other)
            for i in groups[one]:
                group_of[i] = one
    return [union([cut[i] for i in group]) for group in groups.values()]


def union(parts):
    """Return the object of which these are the parts."""
    if len(parts) == 1:
        return parts[0]
    areas = [area_of(x, x.box if x.mask is None else x.mask.box) for x in parts]
    boxes = np.array([x.box for x in parts])
    return replace(
        parts[areas.index(max(areas))],
        box=(*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()),
        score=max(x.score for x in parts),
        mask=None if parts[0].mask is None else union_of_masks([x.mask for x in parts]),
        tiles={number: tile for x in parts for number, tile in x.tiles.items()},
    )


def union_of_masks(masks):
    """Return the mask of all pixels of masks that are not all empty."""
    masks = [mask for mask in masks if mask.pixels.size]
    boxes = np.array([mask.box for mask in masks])
    (left, top), (right, bottom) = boxes[:, :2].min(0).tolist(), boxes[:, 2:].max(0).tolist()
    pixels = np.zeros((bottom - top, right - left), bool)
    for mask in masks:
        x0, y0, x1, y1 = mask.box
        pixels[y0 - top : y1 - top, x0 - left : x1 - left] |= mask.pixels
    return Mask(left, top, pixels)
