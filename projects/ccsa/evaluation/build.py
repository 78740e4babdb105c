"""Choose the evaluators of a dataset by its metadata, and the main metric of their results."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)

from ccsa.data.evaluator_types import evaluator_type
from ccsa.errors import UserError, missing_package
from ccsa.evaluation.coco_metrics import COCO_LIMIT
from ccsa.evaluation.instances import InstanceEvaluator
from ccsa.evaluation.panoptic_evaluator import PanopticQualityEvaluator
from ccsa.evaluation.semantic import SemanticEvaluator

logger = logging.getLogger(__name__)

_CITYSCAPES = "cityscapesscripts"
# (task, metric, name) of the metrics that a run is judged by, the most important one first.
_MAIN_METRICS = (
    ("panoptic_seg", "PQ", "panoptic quality"),
    ("segm", "AP", "mask AP"),
    ("sem_seg", "mIoU", "mIoU"),
    ("bbox", "AP", "box AP"),
)


def build_evaluator(
    name: str,
    output_dir: str | Path,
    *,
    panoptic_files: bool = False,
    max_detections: int = COCO_LIMIT,
    boundary: bool = False,
) -> DatasetEvaluator:
    """Return the evaluators of a dataset as one evaluator.

    Args:
        name: a registered dataset. Its metadata ``evaluator_type`` chooses the evaluators; without
            it, what the records contain.
        output_dir: the folder to which the evaluators write their files.
        panoptic_files: also write the panoptic predictions of a panoptic dataset.
        max_detections: the model's limit of detections per image; above 100, AP at that limit is
            reported as well.
        boundary: also report the AP of mask boundaries.

    Raises:
        UserError: no evaluator exists for the dataset.
        MissingPackageError: an evaluator needs a package that is not installed.

    Example:
        >>> build_evaluator("digits_val", "output/inference")  # doctest: +SKIP
    """
    kind = evaluator_type(name)
    folder = str(output_dir)
    keys: dict[str, Any] = {"max_detections": max_detections, "boundary": boundary}
    builders = {
        "coco": lambda: [InstanceEvaluator(name, folder, **keys)],
        "sem_seg": lambda: [SemanticEvaluator(name, folder)],
        "coco_panoptic_seg": lambda: _panoptic_evaluators(name, folder, panoptic_files, keys),
        "cityscapes_panoptic_seg": lambda: _cityscapes_panoptic_evaluators(
            name, folder, panoptic_files
        ),
        "lvis": lambda: [_require("lvis", LVISEvaluator)(name, output_dir=folder)],
        "pascal_voc": lambda: [PascalVOCDetectionEvaluator(name)],
        "cityscapes_instance": lambda: [_require(_CITYSCAPES, CityscapesInstanceEvaluator)(name)],
        "cityscapes_sem_seg": lambda: [_require(_CITYSCAPES, CityscapesSemSegEvaluator)(name)],
    }
    if kind not in builders:
        raise UserError(
            f"dataset '{name}' has the evaluator_type {kind!r}, for which no evaluator exists; "
            f"available: {', '.join(builders)}"
        )
    return DatasetEvaluators(builders[kind]())


def main_metric(results: Mapping[str, Mapping[str, float]]) -> tuple[str, float] | None:
    """Return the name and value of the metric that a run is judged by, or None if there is none.

    Panoptic quality takes precedence over mask AP, mask AP over mIoU, and mIoU over box AP.

    Args:
        results: {task: {metric: value}}, as evaluators return them.

    Example:
        >>> main_metric({"bbox": {"AP": 41.0}, "segm": {"AP": 38.6}})
        ('mask AP', 38.6)
    """
    found = main_metric_key(results)
    return None if found is None else (found[0], results[found[1]][found[2]])


def main_metric_key(results: Mapping[str, Mapping[str, float]]) -> tuple[str, str, str] | None:
    """Return the name of the main metric, its task and its key in the results, or None.

    Example:
        >>> main_metric_key({"bbox": {"AP": 41.0}, "segm": {"AP": 38.6}})
        ('mask AP', 'segm', 'AP')
    """
    for task, metric, name in _MAIN_METRICS:
        if metric in results.get(task, {}):
            return name, task, metric
    return None


def metric_of_run(cfg: CfgNode, results: Mapping) -> tuple[str, float] | None:
    """Return the name and the value of the main metric on the first test dataset, or None.

    Args:
        cfg: the configuration of the run.
        results: ``{task: {metric: value}}``; with several test datasets
            ``{dataset: {task: {metric: value}}}``.
    """
    names = cfg.DATASETS.TEST
    return main_metric(results.get(names[0], {}) if len(names) > 1 else results)


def _panoptic_evaluators(
    name: str, folder: str, write_files: bool, keys: Mapping[str, Any]
) -> list[DatasetEvaluator]:
    """Return the panoptic evaluator, preceded by those for the other annotations of the dataset."""
    metadata = MetadataCatalog.get(name)
    evaluators: list[DatasetEvaluator] = []
    if metadata.get("sem_seg_root") or metadata.get("own"):
        evaluators.append(SemanticEvaluator(name, folder))
    if metadata.get("json_file") or metadata.get("own"):
        evaluators.append(InstanceEvaluator(name, folder, **keys))
    return [*evaluators, PanopticQualityEvaluator(name, folder, write_files=write_files)]


def _cityscapes_panoptic_evaluators(
    name: str, folder: str, write_files: bool
) -> list[DatasetEvaluator]:
    panoptic = PanopticQualityEvaluator(name, folder, write_files=write_files)
    if importlib.util.find_spec(_CITYSCAPES):
        return [CityscapesSemSegEvaluator(name), CityscapesInstanceEvaluator(name), panoptic]
    logger.warning(
        "The package %s is not installed: panoptic quality is measured, but mIoU and AP are not. "
        "To measure them, run pip install '.[evaluation]' in a clone of ccsa",
        _CITYSCAPES,
    )
    return [panoptic]


def _require(package: str, evaluator: type) -> type:
    """Return the evaluator if its package is installed, otherwise raise an error."""
    if importlib.util.find_spec(package) is None:
        install = "pip install '.[evaluation]' in a clone of ccsa"
        raise missing_package(evaluator.__name__, package, install)
    return evaluator
