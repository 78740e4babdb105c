"""Panoptic quality (PQ) of images that are given as segment ids.

PQ is defined in "Panoptic Segmentation" (arXiv:1801.00868), section 4. Void and crowd regions are
treated as in panopticapi (evaluation.py), which was consulted as reference:

* Segments of the same category match if their IoU is above 0.5. Void pixels of the ground truth do
  not count in the union.
* Crowd regions match nothing and are not counted as missed. A predicted segment without a match is
  not a false positive if more than half of it is on void pixels and on the crowd region of its
  category (the last one, if there are several).
* The area of a true segment is taken from the JSON, or counted in pixels if the JSON has none.
* A class without true and predicted segments does not count in the averages.

panopticapi is not on PyPI, and the PanopticQuality of torchmetrics supports neither crowd regions
nor files.

Deviation: an average over no class is nan, where panopticapi divides by zero.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ccsa.data.formats.panoptic_png import VOID, Segment
from ccsa.errors import UserError

IOU, TP, FP, FN = range(4)
# {category id: [sum of IoUs, true positives, false positives, false negatives]}
Counts = dict[int, list[float]]
Overlaps = dict[tuple[int, int], int]  # {(true id, predicted id): number of shared pixels}
GROUPS = {"All": (True, False), "Things": (True,), "Stuff": (False,)}  # values of isthing


def count_image(
    truth: np.ndarray,
    true_segments: Iterable[Segment],
    predicted: np.ndarray,
    predicted_segments: Iterable[Segment],
) -> Counts:
    """Return what one image adds to the sums of each category.

    Args:
        truth: ids of ``true_segments`` of shape (H, W), 0 for void.
        predicted: ids of ``predicted_segments`` of shape (H, W), 0 for pixels without prediction.

    Raises:
        UserError: the arrays have different sizes.

    Example:
        >>> truth, predicted = np.array([[7, 7, 7, 8]]), np.array([[1, 1, 2, 2]])
        >>> count_image(truth, [Segment(7, 1), Segment(8, 2)], predicted, [Segment(1, 1)])
        {1: [0.6666666666666666, 1, 0, 0], 2: [0.0, 0, 0, 1]}
    """
    return count_matches(count_overlaps(truth, predicted), true_segments, predicted_segments)


def count_matches(
    overlaps: Overlaps, true_segments: Iterable[Segment], predicted_segments: Iterable[Segment]
) -> Counts:
    """Return the same as :func:`count_image`, from the overlaps of segments."""
    true, predicted = {s.id: s for s in true_segments}, {s.id: s for s in predicted_segments}
    true_area: dict[int, float] = dict.fromkeys(true, 0)
    predicted_area = dict.fromkeys(predicted, 0)
    for (true_id, predicted_id), pixels in overlaps.items():
        true_area[true_id] = true_area.get(true_id, 0) + pixels
        predicted_area[predicted_id] = predicted_area.get(predicted_id, 0) + pixels
    true_area |= {s.id: s.area for s in true.values() if s.area and s.area > 0}

    counts: Counts = {}
    matched_true, matched_predicted = set(), set()
    for (true_id, predicted_id), pixels in overlaps.items():
        one, other = true.get(true_id), predicted.get(predicted_id)
        if one is None or other is None or one.iscrowd or one.category_id != other.category_id:
            continue
        void = overlaps.get((VOID, predicted_id), 0)
        union = true_area[true_id] + predicted_area[predicted_id] - pixels - void
        if pixels / union > 0.5:
            sums = counts.setdefault(one.category_id, [0.0, 0, 0, 0])
            sums[IOU] += pixels / union
            sums[TP] += 1
            matched_true.add(true_id)
            matched_predicted.add(predicted_id)

    crowds = {s.category_id: s.id for s in true.values() if s.iscrowd}
    for segment in true.values():
        if segment.id not in matched_true and not segment.iscrowd:
            counts.setdefault(segment.category_id, [0.0, 0, 0, 0])[FN] += 1
    for segment in predicted.values():
        if segment.id in matched_predicted:
            continue
        ignored = overlaps.get((VOID, segment.id), 0)
        if segment.category_id in crowds:
            ignored += overlaps.get((crowds[segment.category_id], segment.id), 0)
        if 2 * ignored <= predicted_area[segment.id]:
            counts.setdefault(segment.category_id, [0.0, 0, 0, 0])[FP] += 1
    return counts


def count_overlaps(truth: np.ndarray, predicted: np.ndarray) -> Overlaps:
    """Return the number of pixels of each pair of segment ids that share pixels.

    Args:
        truth, predicted: segment ids of shape (H, W).

    Raises:
        UserError: the arrays have different sizes.

    Example:
        >>> count_overlaps(np.array([[7, 7, 8]]), np.array([[1, 1, 2]]))
        {(7, 1): 2, (8, 2): 1}
    """
    if truth.shape != predicted.shape:
        raise UserError(
            f"segment ids of shapes {truth.shape} and {predicted.shape} cannot be compared"
        )
    pairs = truth.astype(np.uint64) << np.uint64(32)
    pairs |= predicted.astype(np.uint32)  # uint32 keeps negative ids out of the upper half
    found, pixels = np.unique(pairs, return_counts=True)
    true_ids = (found >> np.uint64(32)).tolist()
    predicted_ids = (found & np.uint64(2**32 - 1)).tolist()
    return dict(zip(zip(true_ids, predicted_ids, strict=True), pixels.tolist(), strict=True))


class PanopticQuality:
    """Accumulate counts over images, and compute panoptic quality from their sums.

    Args:
        isthing: {category id: whether the category is a thing}.

    Example:
        >>> quality = PanopticQuality({1: True, 2: False})
        >>> quality.add({1: [0.8, 1, 0, 0], 2: [0.0, 0, 1, 0]})
        >>> quality.results()["All"]
        {'pq': 0.4, 'sq': 0.4, 'rq': 0.5, 'n': 2}
    """

    def __init__(self, isthing: Mapping[int, bool]):
        self.isthing = dict(isthing)
        self.sums: Counts = {category: [0.0, 0, 0, 0] for category in self.isthing}

    def add(self, counts: Counts) -> None:
        """Add the counts of one image, see :func:`count_image`."""
        for category, values in counts.items():
            self.sums[category] = [a + b for a, b in zip(self.sums[category], values, strict=True)]

    def results(self) -> dict[str, dict[Any, Any]]:
        """Return the qualities in panopticapi's format.

        Returns:
            ``All``, ``Things`` and ``Stuff``, each with the averages pq, sq and rq (0 to 1) and the
            number n of classes that count; and ``per_class`` with pq, sq and rq by category id. A
            value is nan if no class counts.
        """
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
