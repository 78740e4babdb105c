"""Which classes are confused with each other and with the background."""

from collections.abc import Mapping, Sequence

import numpy as np

from ccsa.analysis.detections.matching import ImageMatches

BACKGROUND = "background"


def confusion_matrix(
    matches: Sequence[ImageMatches],
    categories: Sequence[int],
    thresholds: Mapping[int, float] | float,
    iou: float = 0.5,
) -> np.ndarray:
    """Return the counts (K + 1, K + 1) of objects in rows and detections in columns.

    Detections of any class take the free object of the highest IoU, the highest score first. The
    last column counts objects that no detection has taken, the last row detections that have no
    object; detections inside crowd regions do not count.

    Args:
        matches: see :func:`ccsa.analysis.detections.match_images`.
        categories: the K category ids.
        thresholds: the lowest score that counts, of all classes or of each.
        iou: the lowest IoU of a detection and its object.
    """
    index = {number: k for k, number in enumerate(categories)}
    size = len(index)
    counts = np.zeros((size + 1, size + 1), np.int64)
    for m in matches:
        free = ~m.crowd
        for d in range(len(m.found)):
            kind = int(m.found_classes[d])
            lowest = thresholds if isinstance(thresholds, float) else thresholds[kind]
            if m.scores[d] < lowest:
                continue
            choices = np.where(free, m.ious[d], -1.0) if len(m.objects) else np.zeros(0)
            best = int(choices.argmax()) if len(choices) else -1
            if best >= 0 and choices[best] >= iou:
                free[best] = False
                counts[index[int(m.classes[best])], index[kind]] += 1
            elif not (m.ious[d][m.crowd] >= iou).any():
                counts[size, index[kind]] += 1
        for g in np.flatnonzero(free):
            counts[index[int(m.classes[g])], size] += 1
    return counts
