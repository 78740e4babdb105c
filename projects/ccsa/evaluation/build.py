"""Evaluators, chosen by the metadata of a dataset."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from PIL import Image

from ccsa.errors import UserError
from ccsa.evaluation.panoptic_evaluator import PanopticQualityEvaluator

logger = logging.getLogger(__name__)


def read_labels(file_name: str, dtype: type | str = int) -> np.ndarray:
    """A label image as (H, W) integers. Detectron2's own reader asks NumPy 2 for a copy-free
    conversion that it refuses."""
    with Image.open(file_name) as image:
        return np.asarray(image).astype(dtype)


def build_evaluator(
    name: str, output_dir: str | Path, *, panoptic_files: bool = False
) -> DatasetEvaluator:
    """The evaluator of dataset ``name``, writing its files to ``output_dir``; among them, with
    ``panoptic_files``, the panoptic predictions of a panoptic dataset.

    Raises:
        UserError: a dataset with no evaluator, or one that needs a package that is not installed.
    """
    kind = MetadataCatalog.get(name).get("evaluator_type")
    folder = str(output_dir)
    makers = {
        "coco": lambda: [COCOEvaluator(name, output_dir=folder)],
        "sem_seg": lambda: [_sem_seg(name, folder)],
        "coco_panoptic_seg": lambda: _panoptic(name, folder, panoptic_files),
        "cityscapes_panoptic_seg": lambda: _cityscapes_panoptic(name, folder, panoptic_files),
        "lvis": lambda: [_needs("lvis", LVISEvaluator)(name, output_dir=folder)],
        "pascal_voc": lambda: [PascalVOCDetectionEvaluator(name)],
        "cityscapes_instance": lambda: [_needs(_CITYSCAPES, CityscapesInstanceEvaluator)(name)],
        "cityscapes_sem_seg": lambda: [_needs(_CITYSCAPES, CityscapesSemSegEvaluator)(name)],
    }
    if kind not in makers:
        raise UserError(
            f"dataset '{name}' has evaluator_type {kind!r}, which no evaluator serves; "
            f"known are {', '.join(makers)}"
        )
    return DatasetEvaluators(makers[kind]())


def main_metric(results: Mapping) -> tuple[str, float] | None:
    """The figure a run is judged by, with its name: mask AP before panoptic quality, mIoU and box
    AP."""
    for task, key, label in (
        ("panoptic_seg", "PQ", "panoptic quality"),
        ("segm", "AP", "mask AP"),
        ("sem_seg", "mIoU", "mIoU"),
        ("bbox", "AP", "box AP"),
    ):
        if key in results.get(task, {}):
            return label, results[task][key]
    return None


_CITYSCAPES = "cityscapesscripts"


def _sem_seg(name: str, folder: str) -> SemSegEvaluator:
    return SemSegEvaluator(name, output_dir=folder, sem_seg_loading_fn=read_labels)


def _panoptic(name: str, folder: str, write_files: bool) -> list[DatasetEvaluator]:
    """Panoptic, and what else the dataset has annotations for."""
    metadata = MetadataCatalog.get(name)
    evaluators: list[DatasetEvaluator] = []
    if metadata.get("sem_seg_root"):
        evaluators.append(_sem_seg(name, folder))
    if metadata.get("json_file"):
        evaluators.append(COCOEvaluator(name, output_dir=folder))
    return [*evaluators, PanopticQualityEvaluator(name, folder, write_files=write_files)]


def _cityscapes_panoptic(name: str, folder: str, write_files: bool) -> list[DatasetEvaluator]:
    evaluators = [PanopticQualityEvaluator(name, folder, write_files=write_files)]
    if importlib.util.find_spec(_CITYSCAPES):
        return [CityscapesSemSegEvaluator(name), CityscapesInstanceEvaluator(name), *evaluators]
    logger.warning(
        "%s is not installed: panoptic quality is measured, mIoU and AP are not", _CITYSCAPES
    )
    return evaluators


def _needs(package: str, evaluator: type) -> type:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{evaluator.__name__} needs {package}: pip install {package}")
    return evaluator
