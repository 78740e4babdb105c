"""The metrics of a run as functions of the weights of its images, from the files of the run."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.analysis.detections import ImageMatches, match_images
from ccsa.analysis.image_metrics import (
    AveragePrecision,
    ImageMetric,
    MeanQuality,
    PixelMetric,
)
from ccsa.analysis.runs import Run
from ccsa.errors import UserError, shown
from ccsa.evaluation.image_counts import read_panoptic_counts, read_semantic_counts
from ccsa.evaluation.instances import (
    DETECTIONS,
    GROUND_TRUTH,
    complete_annotations,
    ignoring_boxes,
)
from ccsa.evaluation.rle import is_mask
from ccsa.utils.files import regular_file

_FIX = "evaluate the run again with tools/train_net.py --eval-only"
_TOLERANCE = 1e-6  # percent; results.json is written with all digits
_AP = {"AP": range(10), "AP50": [0], "AP75": [5]}  # indices of IoU thresholds


class Detections(NamedTuple):
    """The detections of a run, and the objects of its dataset.

    Attributes:
        truth: the content of a COCO JSON file with complete annotations.
        results: in COCO's result format.
    """

    truth: dict[str, Any]
    results: list[dict[str, Any]]


def inference_folder(run: Run) -> Path:
    """Return the folder with the files of the evaluation on the first test dataset.

    Raises:
        UserError: the configuration of the run has no test dataset.
    """
    if not run.cfg.DATASETS.TEST:
        raise UserError(f"the configuration of run {run.folder} has no DATASETS.TEST; {_FIX}")
    return run.folder / "inference" / run.cfg.DATASETS.TEST[0]


def image_metric(run: Run, task: str, metric: str) -> ImageMetric:
    """Return a metric of a run as a function of the weights of its images.

    Args:
        run: a finished run.
        task, metric: names as in ``run.results``: AP, AP50, AP75 of ``bbox`` and ``segm``; mIoU,
            BoundaryIoU, mACC and pACC of ``sem_seg``; PQ, PQ_th and PQ_st of ``panoptic_seg``; and
            those of a class, such as ``AP-person``.

    Raises:
        UserError: the metric is not a sum over images, files of the evaluation are missing or
            damaged, or they belong to another evaluation than ``results.json``.

    Example:
        >>> image_metric(run, "segm", "AP").values(np.ones((1, 500)))  # doctest: +SKIP
        array([38.6])
    """
    name, _, kind = metric.partition("-")
    if task in ("bbox", "segm") and name in _AP:
        found = _average_precision(run, task, name, kind)
    elif task == "sem_seg" and name in PixelMetric.NAMES:
        found = _pixel_metric(run, name, kind)
    elif task == "panoptic_seg" and name in ("PQ", "PQ_th", "PQ_st"):
        found = _panoptic_quality(run, name, kind)
    else:
        raise UserError(f"no interval of {task}/{metric} is known; choose AP, mIoU or PQ")
    value = float(found.values(np.ones((1, len(found.images))))[0])
    expected = run.results[task][metric]
    if not math.isclose(value, expected, abs_tol=_TOLERANCE) and not (
        math.isnan(value) and math.isnan(expected)
    ):
        raise UserError(
            f"the files in {inference_folder(run)} give {task}/{metric} {value:.4f}, but "
            f"results.json has {expected:.4f}, so they belong to different evaluations; {_FIX}"
        )
    return found


def _average_precision(run: Run, task: str, name: str, kind: str) -> ImageMetric:
    matches, classes = read_matches(run, task), None
    if kind:
        truth = read_detections(run).truth
        names = _class_names(run, truth)
        if kind not in names:
            raise UserError(f"the dataset of run {run.folder} has no class {shown(kind)}")
        classes = [sorted(c["id"] for c in truth["categories"])[names.index(kind)]]
    return AveragePrecision(matches, _AP[name], classes)


def _class_names(run: Run, truth: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes in the order of their category ids, as in results.json."""
    known = MetadataCatalog.get(run.cfg.DATASETS.TEST[0]).get("thing_classes")
    ordered = sorted(truth["categories"], key=lambda category: category["id"])
    return list(known) if known else [category["name"] for category in ordered]


def _pixel_metric(run: Run, name: str, kind: str) -> ImageMetric:
    counts = read_semantic_counts(inference_folder(run))
    chosen = None
    if kind:
        if kind not in counts.classes:
            raise UserError(f"the dataset of run {run.folder} has no class {shown(kind)}")
        chosen = [counts.classes.index(kind)]
    return PixelMetric(name, counts.images, counts.pixels, counts.boundary, chosen)


def _panoptic_quality(run: Run, name: str, kind: str) -> ImageMetric:
    counts = read_panoptic_counts(inference_folder(run))
    things = set(counts.things)
    chosen = {"PQ": set(counts.classes), "PQ_th": things, "PQ_st": set(counts.classes) - things}
    kept = {n for n in chosen[name] if not kind or counts.classes[n] == kind}
    images: dict[int | str, Mapping[int, Sequence[float]]] = {
        image: {number: sums for number, sums in found.items() if number in kept}
        for image, found in counts.images.items()
    }
    return MeanQuality(images)


def read_matches(run: Run, task: str) -> list[ImageMatches]:
    """Return which detections of a run match which objects.

    Args:
        run: a finished run.
        task: ``bbox`` or ``segm``.

    Raises:
        UserError: see :func:`read_detections`.
    """
    return _matches(*_places(run), task)


def read_detections(run: Run) -> Detections:
    """Return the detections of a run and the objects of its dataset.

    Raises:
        UserError: the run has no detections, or a file is damaged.
    """
    return _detections(*_places(run))


def _places(run: Run) -> tuple[Path, Path, int]:
    """Return the files of ground truth and detections, and when the latter changed."""
    folder, dataset = inference_folder(run), run.cfg.DATASETS.TEST[0]
    stored, found = folder / GROUND_TRUTH, folder / DETECTIONS
    metadata = MetadataCatalog.get(dataset)
    if metadata.get("built_in", False):
        DatasetCatalog.get(dataset)  # writes the dataset on first use
    truth = stored if stored.is_file() else Path(metadata.get("json_file") or stored)
    return truth, found, found.stat().st_mtime_ns if found.is_file() else 0


@functools.lru_cache(maxsize=1)  # several metrics and the sections of a report use them
def _matches(truth: Path, found: Path, changed: int, task: str) -> list[ImageMatches]:
    detections = _detections(truth, found, changed)
    objects = ignoring_boxes(detections.truth) if task == "segm" else detections.truth
    return match_images(objects, detections.results, task)


@functools.lru_cache(maxsize=1)
def _detections(file: Path, found: Path, changed: int) -> Detections:
    truth, results = read_json(file), read_json(found)
    try:
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        complete_annotations(truth["annotations"])
        categories = {category["id"] for category in truth["categories"]}
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise UserError(f"{file} is not the ground truth of a dataset; {_FIX}") from error
    for number, result in enumerate(results if isinstance(results, list) else [None]):
        if not _is_detection(result, sizes, categories):
            raise UserError(f"{found} is damaged: entry {number}; {_FIX}")
    return Detections(truth, results)


def read_json(file: Path) -> Any:
    """Return the content of a JSON file of a run.

    Raises:
        UserError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(regular_file(file).read_bytes())
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        raise UserError(f"cannot read {file} ({reason}); {_FIX}") from error


def _is_detection(result: Any, sizes: Mapping[Any, tuple[int, int]], categories: set) -> bool:
    """Return whether an entry is a detection in COCO's result format that can be compared."""
    try:
        numbers = [result["score"], *result["bbox"]]
        size = sizes[result["image_id"]]
        return (
            len(numbers) == 5
            and ("segmentation" not in result or is_mask(result["segmentation"], size))
            and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
            and result["category_id"] in categories
        )
    except (KeyError, TypeError, OverflowError):
        return False
