"""Which detections match which objects of an image, as COCO defines it.

COCO's AP is a mean over thresholds and classes, so it says little about single images. The matches
are kept here for each image, so that everything a report shows follows from one comparison.

D: detections, G: objects (crowd regions included), T: IoU thresholds.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

THRESHOLDS = np.linspace(0.5, 0.95, 10)
LIMIT = 100  # detections per image and class
_TINY = 1e-10  # by which pycocotools lowers a threshold of 1


@dataclass(frozen=True)
class ImageMatches:
    """The detections and objects of one image, and how they match.

    Attributes:
        image: the entry of the image in the JSON file.
        objects: the G annotations.
        found: the D detections, the highest score first.
        classes, found_classes: the category ids, (G,) and (D,).
        crowd: (G,), whether an annotation is a crowd region.
        scores: (D,).
        ious: (D, G), between objects and detections of any classes; for a crowd region the part of
            the detection inside it.
        matches: (T, D), the index of the object of the same class, -1 for none.
        hits: (T, G), whether an object is matched.
    """

    image: Mapping[str, Any]
    objects: Sequence[Mapping[str, Any]]
    found: Sequence[Mapping[str, Any]]
    classes: np.ndarray
    found_classes: np.ndarray
    crowd: np.ndarray
    scores: np.ndarray
    ious: np.ndarray
    matches: np.ndarray
    hits: np.ndarray

    @property
    def ignored(self) -> np.ndarray:
        """Return (T, D), whether a detection is inside a crowd region and does not count."""
        if not len(self.objects):
            return np.zeros(self.matches.shape, bool)
        return (self.matches >= 0) & self.crowd[self.matches]

    @property
    def correct(self) -> np.ndarray:
        """Return (T, D), whether a detection matches an object that is not a crowd region."""
        return (self.matches >= 0) & ~self.ignored


def match_images(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    task: str,
    *,
    limit: int = LIMIT,
) -> list[ImageMatches]:
    """Compare the detections of every image with its objects.

    Args:
        truth: the content of a COCO JSON file with complete annotations.
        results: detections in COCO's result format.
        task: ``bbox`` or ``segm``.
        limit: the detections of each image and class that count.

    Returns:
        One entry for each image, in the order of ascending ids, as in pycocotools.
    """
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in truth["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    for result in results:
        found[result["image_id"]].append(result)
    images = sorted(truth["images"], key=lambda image: image["id"])
    return [
        _match(image, objects[image["id"]], found[image["id"]], task, limit) for image in images
    ]


def masks_of(
    entries: Sequence[Mapping[str, Any]], image: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the masks of annotations or detections of one image as compressed RLE."""
    height, width = int(image["height"]), int(image["width"])
    masks = []
    for entry in entries:
        mask = entry["segmentation"]
        if isinstance(mask, list):
            masks.append(coco_mask.merge(coco_mask.frPyObjects(mask, height, width)))
        elif isinstance(mask["counts"], list):
            masks.append(coco_mask.frPyObjects(mask, height, width))
        else:
            masks.append(mask)
    return masks


def _match(
    image: Mapping[str, Any], objects: list, found: list, task: str, limit: int
) -> ImageMatches:
    scores = np.array([result["score"] for result in found])
    order = np.argsort(-scores, kind="mergesort")
    found = [found[i] for i in order]
    kinds = np.array([result["category_id"] for result in found], int)
    kept = np.zeros(len(found), bool)
    for kind in np.unique(kinds):
        kept[np.flatnonzero(kinds == kind)[:limit]] = True
    found = [result for result, keep in zip(found, kept, strict=True) if keep]
    classes = np.array([a["category_id"] for a in objects], int)
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in objects], bool)
    ious = np.zeros((len(found), len(objects)))
    if ious.size:
        flags = crowd.astype(np.uint8).tolist()
        if task == "segm":
            ious = coco_mask.iou(masks_of(found, image), masks_of(objects, image), flags)
        else:
            boxes = [np.array([e["bbox"] for e in part], float) for part in (found, objects)]
            ious = coco_mask.iou(*boxes, flags)
    matches = np.full((len(THRESHOLDS), len(found)), -1)
    hits = np.zeros((len(THRESHOLDS), len(objects)), bool)
    kinds = kinds[kept]
    for t, threshold in enumerate(THRESHOLDS):
        for d, g in _greedy(ious, kinds, classes, crowd, min(threshold, 1 - _TINY)):
            matches[t, d] = g
            hits[t, g] = True
    return ImageMatches(
        image, objects, found, classes, kinds, crowd, scores[order][kept], ious, matches, hits
    )


def _greedy(
    ious: np.ndarray, kinds: np.ndarray, classes: np.ndarray, crowd: np.ndarray, threshold: float
) -> Iterator[tuple[int, int]]:
    """Yield (detection, object) as pycocotools matches them.

    The detection with the highest score is matched first, each with the unmatched object of the
    highest IoU. A detection without such an object is matched with a crowd region.
    """
    possible = (ious >= threshold) & (kinds[:, None] == classes)
    taken = np.zeros(len(classes), bool)
    for d in np.flatnonzero(possible.any(1)):
        for pool in (possible[d] & ~crowd & ~taken, possible[d] & crowd):
            choices = np.flatnonzero(pool)
            if len(choices):
                # Of equal IoUs, pycocotools takes the last one.
                best = choices[::-1][np.argmax(ious[d, choices][::-1])]
                taken[best] = True
                yield int(d), int(best)
                break
