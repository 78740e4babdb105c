"""What the detections of a run say: costs of errors, confusion, thresholds, slices, suspects."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ccsa.analysis.detections.confusion import BACKGROUND, confusion_matrix
from ccsa.analysis.detections.curves import calibration
from ccsa.analysis.detections.errors import KINDS, error_costs
from ccsa.analysis.detections.slices import slices
from ccsa.analysis.detections.suspects import label_suspects
from ccsa.report.run_files import RunFiles

_COMPLETE = 200  # classes of a confusion matrix that is stored completely
_CONFUSIONS = 12


def detection_analysis(files: RunFiles) -> dict[str, Any] | None:
    """Return the analysis of detections at an IoU of 0.5, None for a run without detections.

    Returns:
        ``task``, ``errors`` (see :func:`error_costs`), ``confusion`` (see :func:`confusion`),
        ``curves`` (see :func:`threshold_curves`; of single classes only the best threshold),
        ``calibration``, ``slices`` and ``suspects``. Confusion counts detections whose score is at
        least the threshold at which the F1 of their class is highest.
    """
    if files.task is None:
        return None
    costs = error_costs(files.matches)
    counts = confusion_matrix(files.matches, list(files.categories), files.thresholds)
    return {
        "task": files.task,
        "errors": {
            "ap50": costs.ap,
            "kinds": [
                {"kind": k, "text": text, "cost": costs.costs[k], "count": costs.counts[k]}
                for k, text in KINDS.items()
            ],
        },
        "confusion": confusion([*files.categories.values(), BACKGROUND], counts, "objects"),
        "curves": _curves(files),
        "calibration": calibration(files.matches),
        "slices": slices(files.matches),
        "suspects": _suspects(files),
    }


def _suspects(files: RunFiles) -> list[dict[str, Any]]:
    names = {image["id"]: image["file_name"] for image in files.detections.truth["images"]}
    return [
        {
            "image": str(names[s.image]),
            "kind": s.kind,
            "box": list(s.box),
            "annotated": None if s.annotated is None else files.categories[s.annotated],
            "detected": None if s.detected is None else files.categories[s.detected],
            "score": s.score,
        }
        for s in label_suspects(files.matches)
    ]


def semantic_analysis(files: RunFiles) -> dict[str, Any] | None:
    """Return the confusion of pixels, labels in rows, None for a run without a semantic task."""
    if "sem_seg" not in files.run.results:
        return None
    counts = files.semantic
    return {"confusion": confusion(counts.classes, counts.confusion.T, "pixels")}


def confusion(classes: Sequence[str], counts: np.ndarray, unit: str) -> dict[str, Any]:
    """Return a confusion matrix with the truth in rows.

    Returns:
        ``classes``, ``unit``, ``counts`` (None above 200 classes, which would be too large for a
        page), and ``largest``: ``truth``, ``found``, ``count`` and ``share`` (of its row in
        percent) of the most frequent confusions.
    """
    totals = counts.sum(1)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    return {
        "classes": list(classes),
        "unit": unit,
        "counts": counts.tolist() if len(classes) <= _COMPLETE else None,
        "largest": [
            {
                "truth": classes[i],
                "found": classes[j],
                "count": int(counts[i, j]),
                "share": float(100 * counts[i, j] / totals[i]),
            }
            for i, j in pairs
            if wrong[i, j]
        ],
    }


def _curves(files: RunFiles) -> dict[str, Any]:
    """Return the curves of all classes together, and the best thresholds of each."""
    curves = files.curves
    classes = {name: {"best": curve["best"]} for name, curve in curves["classes"].items()}
    return curves | {"classes": classes}
