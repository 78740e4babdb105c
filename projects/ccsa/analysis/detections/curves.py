"""Precision, recall and F1 over the score threshold, precision over recall, the threshold to use,
and calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ccsa.analysis.detections.matching import ImageMatches

GRID = np.linspace(0, 1, 101)  # score thresholds of the curves
RECALLS = np.linspace(0, 1, 101)  # at which COCO samples the precision
BINS = 10


class Scored:
    """The scores of detections at an IoU of 0.5; those in crowd regions are left out.

    Args:
        scores, correct: (D,).
        objects: the number of objects.
    """

    def __init__(self, scores: np.ndarray, correct: np.ndarray, objects: int):
        order = np.argsort(-scores, kind="mergesort")
        self.scores, self.correct = scores[order], correct[order].astype(bool)
        self.objects = objects

    @classmethod
    def of(cls, matches: Sequence[ImageMatches]) -> "Scored":
        """Return all detections."""
        return cls(*_flat(matches)[:2], sum(int((~m.crowd).sum()) for m in matches))

    @classmethod
    def by_class(cls, matches: Sequence[ImageMatches]) -> "dict[int, Scored]":
        """Return the detections of each category id that occurs."""
        scores, correct, kinds = _flat(matches)
        objects = np.concatenate([m.classes[~m.crowd] for m in matches] or [np.zeros(0, int)])
        return {
            int(kind): cls(scores[kinds == kind], correct[kinds == kind], (objects == kind).sum())
            for kind in np.union1d(kinds, objects)
        }

    def at(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return precision, recall and F1 of the detections whose score is at least a threshold.

        Without such detections, the precision is nan; without objects, all three are.
        """
        # Scores descend, so the number of those that are at least s is a position.
        kept = np.searchsorted(-self.scores, -np.asarray(thresholds), side="right")
        hits = np.concatenate([[0], np.cumsum(self.correct)])[kept]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = hits / kept
            recall = hits / np.full(len(kept), self.objects)
            f1 = 2 * hits / (kept + np.full(len(kept), self.objects))
        undefined = np.full(len(kept), np.nan)
        return (precision, recall, f1) if self.objects else (undefined, undefined, undefined)

    def over_recall(self) -> np.ndarray:
        """Return the precision at each recall of :data:`RECALLS`, as COCO interpolates it.

        It is the highest precision at that recall or a higher one, and 0 where no threshold reaches
        the recall; their mean is the AP at an IoU of 0.5. Without objects, all are nan.
        """
        if not self.objects:
            return np.full(len(RECALLS), np.nan)
        hits = np.cumsum(self.correct)
        precision = hits / np.arange(1, len(hits) + 1)
        highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        return highest[np.searchsorted(hits / self.objects, RECALLS, side="left")]


def threshold_curves(matches: Sequence[ImageMatches], names: dict[int, str]) -> dict[str, Any]:
    """Return precision, recall and F1 over the threshold, of all classes together and of each.

    The threshold of a class is the score at which its F1 is highest; of equal ones, the highest. A
    class without a correct detection has None.

    Args:
        matches: see :func:`ccsa.analysis.detections.match_images`.
        names: {category id: name}.

    Returns:
        ``{"thresholds": [...], "recalls": [...], "all": curve, "classes": {name: curve}}``, and
        each curve has ``precision``, ``recall`` and ``f1`` at the thresholds, ``over_recall``, the
        precision at the recalls, and ``best``, None or a dictionary with ``threshold``,
        ``precision``, ``recall`` and ``f1``.
    """
    parts, empty = Scored.by_class(matches), Scored(np.zeros(0), np.zeros(0, bool), 0)
    return {
        "thresholds": GRID.tolist(),
        "recalls": RECALLS.tolist(),
        "all": _curve(Scored.of(matches)),
        "classes": {name: _curve(parts.get(number, empty)) for number, name in names.items()},
    }


def _flat(matches: Sequence[ImageMatches]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, whether they are correct, and category ids of the detections that count."""
    valid = [~m.ignored[0] for m in matches]
    return (
        np.concatenate([m.scores[v] for m, v in zip(matches, valid, strict=True)]),
        np.concatenate([m.correct[0][v] for m, v in zip(matches, valid, strict=True)]),
        np.concatenate([m.found_classes[v] for m, v in zip(matches, valid, strict=True)]),
    )


def _curve(scored: Scored) -> dict[str, Any]:
    keys = ("precision", "recall", "f1")
    curve: dict[str, Any] = dict(zip(keys, (v.tolist() for v in scored.at(GRID)), strict=True))
    curve["over_recall"] = scored.over_recall().tolist()
    curve["best"] = None
    if scored.objects and scored.correct.any():
        values = scored.at(scored.scores)
        best = int(np.argmax(values[2]))
        curve["best"] = {"threshold": float(scored.scores[best])}
        curve["best"] |= {k: float(v[best]) for k, v in zip(keys, values, strict=True)}
    return curve


def calibration(matches: Sequence[ImageMatches]) -> dict[str, Any]:
    """Return how often detections of a score are correct, and the expected calibration error.

    The error is the mean distance between score and precision over ten bins of scores, weighted by
    their detections (Guo et al., ICML 2017).

    Returns:
        ``ece`` and ``bins``, each with ``low``, ``high``, ``count``, ``score`` and ``precision``,
        the means of the bin, None if it is empty.
    """
    scored = Scored.of(matches)
    places = np.minimum((scored.scores * BINS).astype(int), BINS - 1)
    bins, total = [], 0.0
    for b in range(BINS):
        inside = places == b
        count = int(inside.sum())
        score = float(scored.scores[inside].mean()) if count else None
        precision = float(scored.correct[inside].mean()) if count else None
        if score is not None and precision is not None:
            total += count * abs(score - precision)
        low, high = b / BINS, (b + 1) / BINS
        bins.append(
            {"low": low, "high": high, "count": count, "score": score, "precision": precision}
        )
    return {"ece": total / len(scored.scores) if len(scored.scores) else None, "bins": bins}
