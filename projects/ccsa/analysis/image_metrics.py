"""Metrics of a dataset as functions of the weights of its images.

An image with the weight 2 counts as if it were twice in the dataset, one with the weight 0 as if it
were not. The bootstrap, subsets and paired comparisons all need nothing else.

M: images, R: weightings that are evaluated together.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ccsa.analysis.detections.matching import THRESHOLDS, ImageMatches

_RECALLS = np.linspace(0, 1, 101)
_ROWS = 200  # weightings that are evaluated at once


class ImageMetric(Protocol):
    """A metric in percent whose images have weights."""

    @property
    def images(self) -> Sequence[int | str]:
        """The ids of the M images."""

    def values(self, weights: np.ndarray) -> np.ndarray:
        """Return the metric (R,) for weights (R, M); nan if it is not defined."""


class AveragePrecision:
    """COCO's AP: the mean over thresholds, classes that occur, and 101 recalls.

    Args:
        matches: see :func:`ccsa.analysis.detections.match_images`.
        thresholds: the indices of the IoU thresholds to average over; [0] gives AP50.
        classes: the category ids that count; the default is all that occur.
    """

    def __init__(
        self,
        matches: Sequence[ImageMatches],
        thresholds: Sequence[int] = range(len(THRESHOLDS)),
        classes: Sequence[int] | None = None,
    ):
        self.images = [m.image["id"] for m in matches]
        objects = np.concatenate([m.classes[~m.crowd] for m in matches] or [np.zeros(0, int)])
        owners = np.repeat(np.arange(len(matches)), [(~m.crowd).sum() for m in matches])
        found = np.concatenate([m.found_classes for m in matches] or [np.zeros(0, int)])
        places = np.repeat(np.arange(len(matches)), [len(m.found) for m in matches])
        scores = np.concatenate([m.scores for m in matches] or [np.zeros(0)])
        states = [
            np.concatenate([getattr(m, name)[list(thresholds)] for m in matches] or [[]], axis=1)
            for name in ("correct", "ignored")
        ]
        self.classes = sorted(set(objects.tolist())) if classes is None else list(classes)
        self._parts = []
        for kind in self.classes:
            mine = np.flatnonzero(found == kind)
            mine = mine[np.argsort(-scores[mine], kind="mergesort")]
            count = np.bincount(owners[objects == kind], minlength=len(matches))
            correct, ignored = (state[:, mine] for state in states)
            self._parts.append((count, places[mine], correct, ignored))

    def values(self, weights: np.ndarray) -> np.ndarray:
        weights = np.atleast_2d(weights)
        parts = np.split(weights, range(_ROWS, len(weights), _ROWS))
        return np.concatenate([_mean_of_defined(self.class_values(part)) for part in parts])

    def class_values(self, weights: np.ndarray) -> np.ndarray:
        """Return the AP of each class, (R, classes)."""
        weights = np.atleast_2d(weights).astype(float)
        columns = [class_ap(weights, *part) for part in self._parts]
        return 100 * np.stack(columns, 1) if columns else np.zeros((len(weights), 0))


def class_ap(
    weights: np.ndarray,
    count: np.ndarray,
    places: np.ndarray,
    correct: np.ndarray,
    ignored: np.ndarray,
) -> np.ndarray:
    """Return the AP (R,) of one class from 0 to 1, the mean over thresholds; nan if it has no
    objects."""
    rows = len(weights)
    objects = weights @ count
    if not len(places):
        return np.where(objects > 0, 0.0, np.nan)
    found = weights[:, places]
    total = np.zeros(rows)
    for hit, left_out in zip(correct, ignored, strict=True):
        true = np.cumsum(found * hit, 1)
        false = np.cumsum(found * ~(hit | left_out), 1)
        recall = true / np.maximum(objects, 1e-300)[:, None]
        precision = true / (true + false + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        places_of = np.stack([np.searchsorted(row, _RECALLS, side="left") for row in recall])
        padded = np.concatenate([precision, np.zeros((rows, 1))], 1)
        total += np.take_along_axis(padded, places_of, 1).mean(1)
    return np.where(objects > 0, total / len(correct), np.nan)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean (R,) over the classes (R, K) whose value is not nan; nan if there is none."""
    valid = ~np.isnan(values)
    total = np.where(valid, values, 0).sum(1)
    return np.divide(total, valid.sum(1), out=np.full(len(values), np.nan), where=valid.any(1))


class PixelMetric:
    """A metric of a semantic segmentation, see
    :func:`ccsa.evaluation.semantic_metrics.semantic_metrics`.

    Args:
        name: one of ``NAMES``.
        images: the ids of the M images.
        pixels: (M, 3, K), pixels that are correct, labelled and predicted, of each class.
        boundary: (M, 3, K), the same of boundaries: on both, predicted and labelled.
        classes: the indices of the classes that count; the default is all.
    """

    NAMES = ("mIoU", "IoU", "fwIoU", "BoundaryIoU", "mACC", "ACC", "pACC")

    def __init__(
        self,
        name: str,
        images: Sequence[int | str],
        pixels: np.ndarray,
        boundary: np.ndarray | None = None,
        classes: Sequence[int] | None = None,
    ):
        self.name, self.images = name, list(images)
        self.pixels, self.boundary = pixels, boundary
        self.all = classes is None
        self.classes = range(pixels.shape[2]) if classes is None else classes

    def values(self, weights: np.ndarray) -> np.ndarray:
        if self.name not in ("fwIoU", "pACC"):
            return _mean_of_defined(self.class_values(weights))
        correct, labelled, predicted = _sums(weights, self.pixels)
        total = labelled.sum(1)
        out = np.full(len(total), np.nan)
        if self.name == "pACC":
            return 100 * np.divide(correct.sum(1), total, out=out, where=total > 0)
        iou = _quotient(correct, labelled + predicted - correct, labelled > 0)
        part = np.where(labelled > 0, iou * labelled, 0).sum(1)
        return 100 * np.divide(part, total, out=out, where=total > 0)

    def class_values(self, weights: np.ndarray) -> np.ndarray:
        """Return the value of each class, (R, K); nan for one that is not labelled."""
        correct, labelled, predicted = _sums(weights, self.pixels)
        occurs = labelled > 0
        if self.name in ("mACC", "ACC"):
            found = _quotient(correct, labelled, occurs)
        elif self.name == "BoundaryIoU":
            assert self.boundary is not None
            common, edge, true = _sums(weights, self.boundary)
            union = edge + true - common
            # The mean is over the classes that are labelled.
            found = _quotient(common, union, (union > 0) & (occurs if self.all else True))
        else:
            found = _quotient(correct, labelled + predicted - correct, occurs)
        return 100 * found[:, list(self.classes)]


def _sums(weights: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the three weighted sums (R, K) of counts (M, 3, K)."""
    sums = np.tensordot(np.atleast_2d(weights).astype(float), counts.astype(float), 1)
    return sums[:, 0], sums[:, 1], sums[:, 2]


def _quotient(part: np.ndarray, whole: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=valid)


class MeanQuality:
    """Panoptic quality.

    Args:
        counts: of each image ``{class: (sum of IoUs, TP, FP, FN)}``.
    """

    def __init__(self, counts: Mapping[int | str, Mapping[int, Sequence[float]]]):
        self.images = list(counts)
        kinds = sorted({kind for image in counts.values() for kind in image})
        self.sums = np.zeros((len(counts), len(kinds), 4))
        for row, image in enumerate(counts.values()):
            for kind, values in image.items():
                self.sums[row, kinds.index(kind)] = values

    def values(self, weights: np.ndarray) -> np.ndarray:
        weights = np.atleast_2d(weights).astype(float)
        iou, true, false, missed = np.moveaxis(np.tensordot(weights, self.sums, 1), 2, 0)
        size = true + false / 2 + missed / 2
        quality = np.divide(iou, size, out=np.zeros_like(iou), where=size > 0)
        count = (size > 0).sum(1)
        out = np.full(len(quality), np.nan)
        return 100 * np.divide(quality.sum(1), count, out=out, where=count > 0)
