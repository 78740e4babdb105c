"""How well objects are found by their size, neighbors, position, image and distance to others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ccsa.analysis.detections.matching import ImageMatches

# Upper limits and names of the bins; a value belongs to the first bin whose limit it is below.
Bins = tuple[tuple[float, str], ...]
_SIZES: Bins = (
    (32**2, "small (below 32² pixels)"),
    (96**2, "medium (32² to 96²)"),
    (np.inf, "large (from 96²)"),
)
_NEIGHBORS: Bins = ((1, "none"), (2, "1"), (3, "2"), (5, "3 or 4"), (np.inf, "5 or more"))
_DISTANCES: Bins = (
    (0.1, "below 10 % of the diagonal"),
    (0.25, "10 to 25 %"),
    (0.5, "25 to 50 %"),
    (np.inf, "50 % or more"),
    (np.nan, "no other object of the class"),
)
_IMAGES: Bins = (
    (0.1e6, "below 0.1 megapixels"),
    (0.5e6, "0.1 to 0.5 megapixels"),
    (2e6, "0.5 to 2 megapixels"),
    (np.inf, "2 megapixels or more"),
)
_POSITIONS: Bins = tuple(
    (3 * row + column + 1, f"{vertical} {horizontal}".strip())
    for row, vertical in enumerate(("top", "middle", "bottom"))
    for column, horizontal in enumerate(("left", "center", "right"))
)


def slices(matches: Sequence[ImageMatches]) -> dict[str, list[dict[str, Any]]]:
    """Return how well the objects of each bin of each property are found.

    Crowd regions do not count. Properties are those of the annotations; a neighbor is an object
    whose box overlaps the box of this one, grown by half its size on every side.

    Returns:
        ``{property: bins}`` with only the bins that have objects. A bin has ``name``, ``objects``,
        ``recall50`` (the share found at an IoU of 0.5), ``recall`` (the mean share over the IoU
        thresholds 0.5 to 0.95, COCO's AR without its mean over classes) and ``iou`` (the mean of
        the objects that are found, None without any).
    """
    rows = [row for m in matches for row in _objects(m)]
    properties: dict[str, tuple[str, Bins]] = {
        "size": ("area", _SIZES),
        "neighbors": ("neighbors", _NEIGHBORS),
        "distance to the nearest object of the same class": ("distance", _DISTANCES),
        "position in the image": ("position", _POSITIONS),
        "size of the image": ("pixels", _IMAGES),
    }
    return {title: _binned(rows, key, bins) for title, (key, bins) in properties.items()}


def _objects(m: ImageMatches) -> list[dict[str, Any]]:
    """Return the properties of the objects of an image, and how they were found."""
    if not len(m.objects):
        return []
    height, width = float(m.image["height"]), float(m.image["width"])
    boxes = np.array([a["bbox"] for a in m.objects], float)
    centers = boxes[:, :2] + boxes[:, 2:] / 2
    grown_low, grown_high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + 1.5 * boxes[:, 2:]
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    overlap = (grown_low[:, None] < high) & (grown_high[:, None] > low)
    neighbors = overlap.all(2) & ~np.eye(len(boxes), dtype=bool) & ~m.crowd
    distances = np.linalg.norm(centers[:, None] - centers, axis=2) / np.hypot(height, width)
    others = (m.classes[:, None] == m.classes) & ~np.eye(len(boxes), dtype=bool) & ~m.crowd
    rows = []
    for g in np.flatnonzero(~m.crowd).tolist():
        column, row = (
            min(2, max(0, int(3 * v / n))) for v, n in zip(centers[g], (width, height), strict=True)
        )
        (found,) = np.nonzero(m.matches[0] == g)
        rows.append(
            {
                "area": float(m.objects[g]["area"]),
                "neighbors": int(neighbors[g].sum()),
                "distance": float(distances[g][others[g]].min()) if others[g].any() else np.nan,
                "position": 3 * row + column,
                "pixels": height * width,
                "hits": m.hits[:, g],
                "iou": float(m.ious[found[0], g]) if len(found) else np.nan,
            }
        )
    return rows


def _binned(rows: Sequence[dict[str, Any]], key: str, bins: Bins) -> list[dict[str, Any]]:
    values = np.array([row[key] for row in rows], float)
    remaining = np.ones(len(rows), bool)
    found = []
    for limit, name in bins:
        inside = remaining & (np.isnan(values) if np.isnan(limit) else values < limit)
        remaining &= ~inside
        chosen = [row for row, take in zip(rows, inside, strict=True) if take]
        if not chosen:
            continue
        hits = np.stack([row["hits"] for row in chosen])
        ious = [row["iou"] for row in chosen if not np.isnan(row["iou"])]
        found.append(
            {
                "name": name,
                "objects": len(chosen),
                "recall50": float(hits[:, 0].mean()),
                "recall": float(hits.mean()),
                "iou": float(np.mean(ious)) if ious else None,
            }
        )
    return found
