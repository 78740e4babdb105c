"""Images with the most errors, and annotations that may be wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ccsa.analysis.detections.matching import ImageMatches

_APART = 0.1  # IoU up to which a detection and an object have nothing to do with each other
_SURE = 0.8  # score of a detection that is trusted more than an annotation
_MOST = 30


@dataclass(frozen=True)
class ImageErrors:
    """The errors of one image at the thresholds of the classes.

    Attributes:
        image: the id of the image.
        correct, wrong, missed: detections that match an object, that match none, and objects that
            no detection matches.
        f1: 2 * correct / (2 * correct + wrong + missed); 1 if there is nothing to count.
    """

    image: int | str
    correct: int
    wrong: int
    missed: int
    f1: float


@dataclass(frozen=True)
class Suspect:
    """An annotation that may be wrong.

    Attributes:
        image: the id of the image.
        kind: ``missing annotation``, ``wrong class`` or ``no object``.
        box: [x, y, width, height] in pixels.
        annotated, detected: category ids; None where there is none.
        score: of the detection, 0 without one.
    """

    image: int | str
    kind: str
    box: tuple[float, ...]
    annotated: int | None
    detected: int | None
    score: float


def image_errors(
    matches: Sequence[ImageMatches], thresholds: Mapping[int, float]
) -> list[ImageErrors]:
    """Return the errors of every image, the worst ones first.

    The order is that of F1, then of the number of errors.

    Args:
        matches: see :func:`ccsa.analysis.detections.match_images`.
        thresholds: {category id: the lowest score that counts}.
    """
    found = []
    for m in matches:
        kept = above(m, thresholds)
        correct = int((m.correct[0] & kept).sum())
        wrong = int((~m.correct[0] & ~m.ignored[0] & kept).sum())
        missed = int((~m.crowd).sum()) - correct
        total = 2 * correct + wrong + missed
        f1 = 2 * correct / total if total else 1.0
        found.append(ImageErrors(m.image["id"], correct, wrong, missed, f1))
    return sorted(found, key=lambda e: (e.f1, -e.wrong - e.missed))


def above(m: ImageMatches, thresholds: Mapping[int, float]) -> np.ndarray:
    """Return (D,), whether the score of a detection reaches the threshold of its class."""
    lowest = np.array([thresholds[int(kind)] for kind in m.found_classes])
    return m.scores >= lowest if len(lowest) else np.zeros(0, bool)


def label_suspects(matches: Sequence[ImageMatches], most: int = _MOST) -> list[Suspect]:
    """Return annotations that contradict confident detections, the most confident ones first.

    * missing annotation: a detection with a score of at least 0.8 lies where nothing is annotated;
    * wrong class: such a detection fits an object of another class (IoU of at least 0.75), and no
      detection of its own class above this score does;
    * no object: no detection of any class and score lies where an object is annotated.

    Args:
        matches: see :func:`ccsa.analysis.detections.match_images`.
        most: the number of annotations, at most; one third of them are of the last kind.
    """
    sure: list[Suspect] = []
    empty: list[Suspect] = []
    for m in matches:
        number = m.image["id"]
        for d in np.flatnonzero((m.scores >= _SURE) & (m.matches[0] < 0)).tolist():
            ious = m.ious[d]
            best = int(ious.argmax()) if len(ious) else -1
            kind = int(m.found_classes[d])
            box = tuple(float(v) for v in m.found[d]["bbox"])
            score = float(m.scores[d])
            if best < 0 or ious[best] <= _APART:
                sure.append(Suspect(number, "missing annotation", box, None, kind, score))
            elif ious[best] >= 0.75 and not m.crowd[best] and m.classes[best] != kind:
                (own,) = np.nonzero(m.matches[0] == best)
                if not (len(own) and m.scores[own[0]] >= score):
                    annotated = int(m.classes[best])
                    sure.append(Suspect(number, "wrong class", box, annotated, kind, score))
        if len(m.found):
            for g in np.flatnonzero(~m.crowd).tolist():
                if m.ious[:, g].max() <= _APART:
                    box = tuple(float(v) for v in m.objects[g]["bbox"])
                    empty.append(Suspect(number, "no object", box, int(m.classes[g]), None, 0.0))
    sure.sort(key=lambda s: -s.score)
    empty.sort(key=lambda s: -s.box[2] * s.box[3])  # large objects are rarely overlooked
    last = empty[: max(most // 3, most - len(sure))]
    return sure[: most - len(last)] + last
