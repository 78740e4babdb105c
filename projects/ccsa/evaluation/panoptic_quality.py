"""Panoptic quality, from maps of segment ids.

"Panoptic Segmentation" (arXiv:1801.00868), section 4, with void and crowd regions as panopticapi
(evaluation.py), consulted as reference, treats them:

* segments of one category match where their IoU is above 0.5; void pixels of the ground truth do
  not count in the union;
* crowd regions match nothing and are not missed; a prediction that matches nothing is forgiven if
  more than half of it lies on void and on the crowd region of its category, of several the last;
* the area of a true segment is that of the JSON; where it has none, its pixels;
* a class that neither side has does not count in the averages.

panopticapi is not on PyPI, and torchmetrics' PanopticQuality knows no crowd regions and no files,
so this is code of the project's own. Deviation: an average of no class is nan, a division by zero
there.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ccsa.data.formats.panoptic_png import VOID, Segment

IOU, TP, FP, FN = range(4)
Counts = dict[int, list[float]]  # category id: sum of IoUs, true positives, false ones, misses
Overlaps = dict[tuple[int, int], int]  # (true id, predicted id): pixels
GROUPS = {"All": (True, False), "Things": (True,), "Stuff": (False,)}


def count_image(
    truth: np.ndarray,
    true_segments: Iterable[Segment],
    predicted: np.ndarray,
    predicted_segments: Iterable[Segment],
) -> Counts:
    """What one image adds to the sums of each category.

    Args:
        truth: (H, W) ids of ``true_segments``, 0 where void.
        predicted: (H, W) ids of ``predicted_segments``, 0 where nothing is said.

    Raises:
        ValueError: the maps are of different sizes.
    """
    return count_shared(count_overlaps(truth, predicted), true_segments, predicted_segments)


def count_shared(
    shared: Overlaps, true_segments: Iterable[Segment], predicted_segments: Iterable[Segment]
) -> Counts:
    """As :func:`count_image`, of maps whose overlaps are known."""
    true, found = {s.id: s for s in true_segments}, {s.id: s for s in predicted_segments}
    true_area: dict[int, float] = dict.fromkeys(true, 0)
    found_area = dict.fromkeys(found, 0)
    for (true_id, found_id), pixels in shared.items():
        true_area[true_id] = true_area.get(true_id, 0) + pixels
        found_area[found_id] = found_area.get(found_id, 0) + pixels
    true_area |= {s.id: s.area for s in true.values() if s.area and s.area > 0}

    counts: Counts = {}
    matched_true, matched_found = set(), set()
    for (true_id, found_id), pixels in shared.items():
        one, other = true.get(true_id), found.get(found_id)
        if one is None or other is None or one.iscrowd or one.category_id != other.category_id:
            continue
        union = true_area[true_id] + found_area[found_id] - pixels - shared.get((VOID, found_id), 0)
        if pixels / union > 0.5:
            sums = counts.setdefault(one.category_id, [0.0, 0, 0, 0])
            sums[IOU] += pixels / union
            sums[TP] += 1
            matched_true.add(true_id)
            matched_found.add(found_id)

    crowds = {s.category_id: s.id for s in true.values() if s.iscrowd}
    for segment in true.values():
        if segment.id not in matched_true and not segment.iscrowd:
            counts.setdefault(segment.category_id, [0.0, 0, 0, 0])[FN] += 1
    for segment in found.values():
        if segment.id in matched_found:
            continue
        forgiven = shared.get((VOID, segment.id), 0)
        if segment.category_id in crowds:
            forgiven += shared.get((crowds[segment.category_id], segment.id), 0)
        if 2 * forgiven <= found_area[segment.id]:
            counts.setdefault(segment.category_id, [0.0, 0, 0, 0])[FP] += 1
    return counts


def count_overlaps(truth: np.ndarray, predicted: np.ndarray) -> Overlaps:
    """{(true id, predicted id): pixels} of all pairs that share pixels of two maps (H, W).

    Raises:
        ValueError: the maps are of different sizes.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"maps of {truth.shape} and {predicted.shape} cannot be compared")
    pairs = truth.astype(np.uint64) << np.uint64(32)
    pairs |= predicted.astype(np.uint32)  # a negative id must not reach the upper half
    found, pixels = np.unique(pairs, return_counts=True)
    true_ids, found_ids = (found >> np.uint64(32)).tolist(), (found & np.uint64(2**32 - 1)).tolist()
    return dict(zip(zip(true_ids, found_ids, strict=True), pixels.tolist(), strict=True))


class PanopticQuality:
    """Sums over images, and the qualities they give.

    Args:
        isthing: {category id: whether it is a thing}.
    """

    def __init__(self, isthing: Mapping[int, bool]):
        self.isthing = dict(isthing)
        self.sums: Counts = {category: [0.0, 0, 0, 0] for category in self.isthing}

    def add(self, counts: Counts) -> None:
        """Add what :func:`count_image` gave."""
        for category, values in counts.items():
            self.sums[category] = [a + b for a, b in zip(self.sums[category], values, strict=True)]

    def results(self) -> dict[str, dict[Any, Any]]:
        """In panopticapi's form: ``All``, ``Things`` and ``Stuff``, each with pq, sq and rq from 0
        to 1 and the number n of classes that count; ``per_class`` with pq, sq and rq by category
        id. nan is what does not count."""
        per_class = {category: _qualities(*sums) for category, sums in self.sums.items()}
        results: dict[str, dict[Any, Any]] = {}
        for group, kinds in GROUPS.items():
            members = [
                qualities
                for category, qualities in per_class.items()
                if self.isthing[category] in kinds and not math.isnan(qualities["pq"])
            ]
            n = len(members)
            results[group] = {
                key: sum(member[key] for member in members) / n if n else math.nan
                for key in ("pq", "sq", "rq")
            }
            results[group]["n"] = n
        results["per_class"] = per_class
        return results


def _qualities(iou: float, tp: float, fp: float, fn: float) -> dict[str, float]:
    weight = tp + fp / 2 + fn / 2
    if not weight:
        return dict.fromkeys(("pq", "sq", "rq"), math.nan)
    return {"pq": iou / weight, "sq": iou / tp if tp else 0.0, "rq": tp / weight}
