"""COCO's metrics of boxes, masks, mask boundaries and keypoints: the one place that computes them.

pycocotools defines the metrics and is always available. ``hotcoco`` computes the same numbers for
boxes and masks faster and is used if it is installed; ``faster-coco-eval`` adds the AP of mask
boundaries (Cheng et al., "Boundary IoU", CVPR 2021). Both belong to the extra ``fast-eval``.
Whichever program matches detections with objects, the metrics are means over its precision and
recall arrays that are computed here.
"""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ccsa.errors import UserError, missing_package

logger = logging.getLogger(__name__)

COCO_LIMIT = 100  # detections per image in COCO's definition of AP
KEYPOINT_LIMIT = 20  # the same for keypoints
REFERENCE, FAST, BOUNDARY = "pycocotools", "hotcoco", "faster-coco-eval"
EVALUATORS = {REFERENCE: "pycocotools", FAST: "hotcoco", BOUNDARY: "faster_coco_eval"}
INSTALL = "pip install '.[fast-eval]' in a clone of ccsa"
_TASKS = {
    "bbox": (REFERENCE, FAST, BOUNDARY),
    "segm": (REFERENCE, FAST, BOUNDARY),
    "boundary": (BOUNDARY,),
    "keypoints": (REFERENCE,),
}
_AREAS = {"": "all", "s": "small", "m": "medium", "l": "large"}  # by the ending of a metric
_MOST_ID = 2**53


@dataclass(frozen=True)
class CocoEvaluation:
    """The matches of detections and objects, accumulated as COCO defines it.

    T: IoU thresholds, R: recalls 0, 0.01, ..., 1, K: categories, A: area ranges, M: limits.

    Attributes:
        task: bbox, segm, boundary or keypoints.
        evaluator: the program that has matched detections with objects.
        precision: (T, R, K, A, M), -1 where it is not defined.
        recall: (T, K, A, M), -1 where it is not defined.
        scores: (T, R, K, A, M), the score at which each recall is reached.
        thresholds: the IoU thresholds (T,).
        categories: the category ids (K,).
        areas: the names of the area ranges.
        limits: the limits of detections per image.
    """

    task: str
    evaluator: str
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray
    categories: tuple[int, ...]
    areas: tuple[str, ...]
    limits: tuple[int, ...]

    def ap(self, *, iou: float | None = None, area: str = "all", limit: int | None = None) -> float:
        """Return the average precision from 0 to 1, or -1 for data without objects.

        Args:
            iou: one of ``thresholds``; the default is the mean over all.
            area: one of ``areas``.
            limit: one of ``limits``; the default is COCO's.
        """
        return _mean(self._at(self.precision, iou, area, limit))

    def ar(self, *, iou: float | None = None, area: str = "all", limit: int | None = None) -> float:
        """Return the average recall from 0 to 1, or -1 for data without objects; see :meth:`ap`."""
        return _mean(self._at(self.recall, iou, area, limit))

    def category_ap(self) -> dict[int, float]:
        """Return the AP of each category id in percent; nan for one without objects."""
        limit = self.limits.index(self._default_limit())
        values = self.precision[:, :, :, 0, limit]
        means = {c: _mean(values[:, :, k]) for k, c in enumerate(self.categories)}
        return {category: percent(value) for category, value in means.items()}

    def metrics(self) -> dict[str, float]:
        """Return COCO's metrics in percent; nan where COCO's own programs write -1.

        AP, AP50, AP75 and AP of small, medium and large objects, then the recall with 1, 10 and 100
        detections per image (AR1, AR10, AR100) and that of small, medium and large objects.
        Keypoints have no small objects, and AR and AR50 instead of the recalls at three limits.
        """
        values = {"AP": self.ap(), "AP50": self.ap(iou=0.5), "AP75": self.ap(iou=0.75)}
        sizes = {end: name for end, name in _AREAS.items() if end and name in self.areas}
        values |= {f"AP{end}": self.ap(area=name) for end, name in sizes.items()}
        if self.task == "keypoints":
            values |= {"AR": self.ar(), "AR50": self.ar(iou=0.5), "AR75": self.ar(iou=0.75)}
        else:
            values |= {f"AR{n}": self.ar(limit=n) for n in (1, 10, COCO_LIMIT)}
        values |= {f"AR{end}": self.ar(area=name) for end, name in sizes.items()}
        return {name: percent(value) for name, value in values.items()}

    def _default_limit(self) -> int:
        return KEYPOINT_LIMIT if self.task == "keypoints" else COCO_LIMIT

    def _at(
        self, values: np.ndarray, iou: float | None, area: str, limit: int | None
    ) -> np.ndarray:
        """Select a threshold, an area range and a limit, as pycocotools' summary does."""
        if iou is not None:
            values = values[np.where(np.isclose(iou, self.thresholds, atol=1e-9))[0]]
        limit = self._default_limit() if limit is None else limit
        return values[..., [self.areas.index(area)], [self.limits.index(limit)]]


def evaluate_coco(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    task: str,
    *,
    limit: int = COCO_LIMIT,
    image_ids: Sequence[int] | None = None,
    evaluator: str | None = None,
) -> CocoEvaluation:
    """Compare detections with the objects of a dataset. Neither argument is changed.

    Args:
        truth: the content of a COCO JSON file, in which annotations are complete: unique ``id``
            above 0, ``iscrowd``, ``area`` and, except for boxes, ``segmentation`` or ``keypoints``.
        results: detections in COCO's result format, at least one; masks as RLE.
        task: bbox, segm, boundary or keypoints.
        limit: the number of detections per image that are compared; above COCO's 100, AP at this
            limit is available as well.
        image_ids: the images to compare; the default is all.
        evaluator: one of ``EVALUATORS``; the default is :func:`available_evaluator`.

    Raises:
        UserError: the task is unknown, or the evaluator does not support it.
        MissingPackageError: the evaluator is not installed.

    Example:
        >>> truth = {
        ...     "images": [{"id": 1, "height": 20, "width": 20}],
        ...     "categories": [{"id": 1, "name": "cell"}],
        ...     "annotations": [
        ...         {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 10],
        ...          "area": 100, "iscrowd": 0},
        ...     ],
        ... }
        >>> found = [{"image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 9], "score": 0.8}]
        >>> round(evaluate_coco(truth, found, "bbox").ap(), 3)
        0.9
    """
    if task not in _TASKS:
        raise UserError(f"COCO has no task {task!r}; available: {', '.join(_TASKS)}")
    chosen = evaluator or available_evaluator(task, truth)
    if chosen not in _TASKS[task]:
        raise UserError(f"{chosen} does not evaluate {task}; use {' or '.join(_TASKS[task])}")
    if not installed(chosen):
        raise missing_package(f"the evaluation of {task}", chosen, INSTALL)
    if task in ("segm", "boundary"):  # a box would decide what is small, medium and large
        results = [{k: v for k, v in result.items() if k != "bbox"} for result in results]
    limits = sorted({1, 10, COCO_LIMIT, limit})
    if task == "keypoints":
        limits = [KEYPOINT_LIMIT]
    run = {REFERENCE: _pycocotools, FAST: _hotcoco, BOUNDARY: _faster_coco_eval}[chosen]
    with contextlib.redirect_stdout(io.StringIO()):
        done = run(truth, results, task, limits, image_ids)
        done.evaluate()
        done.accumulate()
    parameters, arrays = done.params, done.eval
    return CocoEvaluation(
        task=task,
        evaluator=chosen,
        precision=np.asarray(arrays["precision"]),
        recall=np.asarray(arrays["recall"]),
        scores=np.asarray(arrays["scores"]),
        thresholds=np.asarray(parameters.iouThrs),
        categories=tuple(int(number) for number in parameters.catIds),
        areas=tuple(parameters.areaRngLbl),
        limits=tuple(int(n) for n in parameters.maxDets),
    )


def installed(evaluator: str) -> bool:
    """Return whether one of ``EVALUATORS`` is installed."""
    return importlib.util.find_spec(EVALUATORS[evaluator]) is not None


def available_evaluator(task: str, truth: Mapping[str, Any]) -> str:
    """Return the fastest evaluator that supports a task and the ids of a dataset.

    Boundaries are evaluated by faster-coco-eval whether it is installed or not.
    """
    if task == "boundary":
        return BOUNDARY
    whole = all(
        type(entry["id"]) is int and 0 <= entry["id"] < _MOST_ID
        for part in ("images", "annotations", "categories")
        for entry in truth[part]
    )
    return FAST if FAST in _TASKS[task] and whole and installed(FAST) else REFERENCE


def index(truth: Mapping[str, Any], make: Callable[[], Any] = COCO) -> Any:
    """Return the content of a COCO JSON file as an object of pycocotools' API, silently."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = make()
        api.dataset = dict(truth)
        api.createIndex()
    return api


def _pycocotools(truth, results, task, limits, image_ids) -> Any:
    # pycocotools adds entries to objects and detections.
    api = index({**truth, "annotations": [dict(a) for a in truth["annotations"]]})
    done = COCOeval(api, api.loadRes([dict(result) for result in results]), task)
    done.params.maxDets = limits
    if image_ids is not None:
        done.params.imgIds = list(image_ids)
    return done


def _hotcoco(truth, results, task, limits, image_ids) -> Any:
    import hotcoco

    api = hotcoco.COCO(dict(truth))
    done = hotcoco.COCOeval(api, api.load_res(list(results)), task)
    done.params.max_dets = limits
    if image_ids is not None:
        done.params.img_ids = list(image_ids)
    return done


def _faster_coco_eval(truth, results, task, limits, image_ids) -> Any:
    from faster_coco_eval import COCO as FasterCOCO

    from ccsa.evaluation.boundary import BoundaryEvaluation

    copied = {**truth, "annotations": [dict(a) for a in truth["annotations"]]}
    api = index(copied, FasterCOCO)
    found = api.loadRes([dict(result) for result in results])
    done = BoundaryEvaluation(api, found, task, rle_iou_max_workers=1)
    done.params.maxDets = limits
    if image_ids is not None:
        done.params.imgIds = list(image_ids)
    return done


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if len(values) else -1.0


def percent(value: float) -> float:
    """Return a value from 0 to 1 in percent; nan for -1, COCO's sign of a missing value."""
    return 100 * value if value >= 0 else float("nan")
