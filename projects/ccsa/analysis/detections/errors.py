"""What each kind of error costs in AP50, as TIDE defines it.

TIDE: A General Toolbox for Identifying Object Detection Errors (Bolya et al., ECCV 2020). A
detection that matches no object at an IoU of 0.5 has one of five kinds of error, and an object that
no detection matches or could match after a correction is missed. The cost of a kind is the AP50
that correcting all errors of this kind, and no others, would add.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccsa.analysis.detections.matching import ImageMatches
from ccsa.analysis.image_metrics import class_ap

KINDS = {
    "Cls": "the class is wrong, the location is right",
    "Loc": "the class is right, the location is not (IoU from 0.1 to 0.5)",
    "Both": "both class and location are wrong",
    "Dupe": "another detection with a higher score has matched the object already",
    "Bkg": "nothing is there (IoU below 0.1 with every object)",
    "Miss": "no detection belongs to the object",
}
LOW, HIGH = 0.1, 0.5  # IoU of background and of a match


@dataclass(frozen=True)
class ErrorCosts:
    """The errors of a detector.

    Attributes:
        ap: AP50 in percent.
        costs: by kind, the AP50 in percent that correcting its errors would add.
        counts: by kind, the number of errors.
    """

    ap: float
    costs: dict[str, float]
    counts: dict[str, int]


@dataclass
class _Flat:
    """All detections of a dataset; ``kinds`` is the error of each, empty for none."""

    scores: np.ndarray
    classes: np.ndarray
    correct: np.ndarray
    ignored: np.ndarray
    kinds: np.ndarray
    targets: np.ndarray  # the object that a correction would match, -1 for none
    object_classes: np.ndarray
    missed: np.ndarray


def error_costs(matches: Sequence[ImageMatches]) -> ErrorCosts:
    """Return what each kind of error costs.

    Args:
        matches: see :func:`ccsa.analysis.detections.match_images`.
    """
    flat = _flatten(matches)
    base = _ap50(flat.scores, flat.classes, flat.correct, flat.ignored, flat.object_classes)
    costs = {kind: 100 * (_corrected(flat, kind) - base) for kind in KINDS}
    counts = {kind: int((flat.kinds == kind).sum()) for kind in KINDS}
    counts["Miss"] = int(flat.missed.sum())
    return ErrorCosts(100 * base, costs, counts)


def error_kinds(m: ImageMatches) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind of error of each detection of an image, empty for a correct or ignored one,
    and the index of the object that a correction would match, -1 for none; both (D,)."""
    kinds = np.full(len(m.found), "", dtype="U4")
    targets = np.full(len(m.found), -1)
    used = m.hits[0]
    for d in np.flatnonzero(~m.correct[0] & ~m.ignored[0]):
        ious = np.where(m.crowd, 0.0, m.ious[d])
        same = m.classes == m.found_classes[d]
        if not len(ious):
            kinds[d] = "Bkg"
            continue
        mine, others = np.where(same, ious, -1.0), np.where(same, -1.0, ious)
        best, other = int(mine.argmax()), int(others.argmax())
        if LOW <= mine[best] < HIGH:
            kinds[d], targets[d] = "Loc", best
        elif others[other] >= HIGH:
            kinds[d], targets[d] = "Cls", other
        elif mine[best] >= HIGH:
            kinds[d] = "Dupe"
        else:
            kinds[d] = "Bkg" if ious.max() <= LOW else "Both"
        if targets[d] >= 0 and used[targets[d]]:
            targets[d] = -1
    return kinds, targets


def _flatten(matches: Sequence[ImageMatches]) -> _Flat:
    kinds, targets, missed = [], [], []
    start = 0
    for m in matches:
        kind, target = error_kinds(m)
        reached = np.zeros(len(m.objects), bool)
        reached[target[target >= 0]] = True
        missed.append(~m.hits[0] & ~m.crowd & ~reached)
        kinds.append(kind)
        targets.append(np.where(target >= 0, target + start, -1))
        start += len(m.objects)
    crowd = np.concatenate([m.crowd for m in matches])
    classes = np.concatenate([m.classes for m in matches])
    return _Flat(
        scores=np.concatenate([m.scores for m in matches]),
        classes=np.concatenate([m.found_classes for m in matches]),
        correct=np.concatenate([m.correct[0] for m in matches]),
        ignored=np.concatenate([m.ignored[0] for m in matches]),
        kinds=np.concatenate(kinds),
        targets=np.concatenate(targets),
        object_classes=np.where(crowd, -1, classes),
        missed=np.concatenate(missed),
    )


def _corrected(flat: _Flat, kind: str) -> float:
    """Return AP50 from 0 to 1 after all errors of a kind are corrected."""
    classes, correct, ignored = flat.classes.copy(), flat.correct.copy(), flat.ignored.copy()
    objects = flat.object_classes
    if kind == "Miss":
        objects = np.where(flat.missed, -1, objects)
    mine = np.flatnonzero(flat.kinds == kind)
    ignored[mine] = True  # removed, unless it is the best one for its object
    fixed: set[int] = set()
    for d in mine[np.argsort(-flat.scores[mine], kind="mergesort")]:
        target = int(flat.targets[d])
        if target >= 0 and target not in fixed:
            fixed.add(target)
            classes[d], correct[d], ignored[d] = objects[target], True, False
    return _ap50(flat.scores, classes, correct, ignored, objects, flat.object_classes)


def _ap50(
    scores: np.ndarray,
    classes: np.ndarray,
    correct: np.ndarray,
    ignored: np.ndarray,
    objects: np.ndarray,
    counted: np.ndarray | None = None,
) -> float:
    """Return AP50 from 0 to 1, the mean over the classes of ``counted`` that have objects."""
    values = []
    for kind in sorted(set((objects if counted is None else counted).tolist()) - {-1}):
        mine = np.flatnonzero(classes == kind)
        mine = mine[np.argsort(-scores[mine], kind="mergesort")]
        count = np.array([(objects == kind).sum()])
        places = np.zeros(len(mine), int)
        states = correct[None, mine], ignored[None, mine]
        values.append(class_ap(np.ones((1, 1)), count, places, *states)[0])
    return float(np.nanmean(values)) if not np.all(np.isnan(values)) else 0.0
