"""The metrics of semantic segmentation, from counts of pixels."""

from collections.abc import Mapping, Sequence

import numpy as np

BOUNDARY_WIDTH = 0.02  # relative to the diagonal of the image
Metrics = dict[str, float]


def semantic_metrics(
    confusion: np.ndarray, boundary: np.ndarray, names: Sequence[str]
) -> tuple[Metrics, Mapping[str, Metrics]]:
    """Return the metrics of all classes together, and those of each class, in percent.

    The names are those of Detectron2. A class that does not occur in the labels has the value nan,
    and the means are over the other classes.

    Args:
        confusion: pixels, (K + 1, K + 1), predictions in rows and labels in columns; the last
            column has the pixels that are ignored.
        boundary: (3, K), see :func:`ccsa.evaluation.semantic.boundary_counts`.
        names: of the K classes.

    Returns:
        ``{metric: value}`` and ``{metric: {class: value}}``.

    Example:
        >>> confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
        >>> boundary = np.array([[1, 2], [2, 2], [2, 4]])
        >>> overall, classes = semantic_metrics(confusion, boundary, ["a", "b"])
        >>> overall["mIoU"], classes["BoundaryIoU"]["b"]
        (77.5, 50.0)
    """
    counts = confusion[:-1, :-1].astype(float)
    hits, labelled, predicted = counts.diagonal(), counts.sum(0), counts.sum(1)
    occurs = labelled > 0
    iou = _ratio(hits, labelled + predicted - hits, occurs)
    accuracy = _ratio(hits, labelled, occurs)
    common, found, true = boundary.astype(float)
    edge_iou = _ratio(common, found + true - common, found + true > 0)
    weights = labelled / max(labelled.sum(), 1)
    overall = {
        "mIoU": _mean(iou),
        "fwIoU": float(np.sum((iou * weights)[occurs])),
        "BoundaryIoU": _mean(edge_iou[occurs]),
        "mACC": _mean(accuracy),
        "pACC": float(hits.sum() / labelled.sum()) if labelled.any() else float("nan"),
    }
    by_class = {
        "IoU": iou,
        "BoundaryIoU": edge_iou,
        "min(IoU, B-Iou)": np.fmin(iou, edge_iou),
        "ACC": accuracy,
    }
    return (
        {name: 100 * value for name, value in overall.items()},
        {
            key: {name: 100 * float(v) for name, v in zip(names, values, strict=True)}
            for key, values in by_class.items()
        },
    )


def _ratio(part: np.ndarray, whole: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return part / whole, and nan where it is not valid."""
    result = np.full(part.shape, np.nan)
    return np.divide(part, whole, out=result, where=valid & (whole > 0))


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
