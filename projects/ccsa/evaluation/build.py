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
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from PIL import Image

from ccsa.errors import UserError

logger = logging.getLogger(__name__)


def read_labels(file_name: str, dtype: type | str = int) -> np.ndarray:
    """A label image as (H, W) integers. Detectron2's own reader asks NumPy 2 for a copy-free
    conversion that it refuses."""
    with Image.open(file_name) as image:
        return np.asarray(image).astype(dtype)


def build_evaluator(name: str, output_dir: str | Path) -> DatasetEvaluator:
    """The evaluator of dataset ``name``, writing its files to ``output_dir``.

    Raises:
        UserError: a dataset with no evaluator, or one that needs a package that is not installed.
    """
    kind = MetadataCatalog.get(name).get("evaluator_type")
    folder = str(output_dir)
    makers = {
        "coco": lambda: [COCOEvaluator(name, output_dir=folder)],
        "sem_seg": lambda: [_sem_seg(name, folder)],
        "coco_panoptic_seg": lambda: _panoptic(name, folder),
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


def _panoptic(name: str, folder: str) -> list[DatasetEvaluator]:
    evaluators = [_sem_seg(name, folder), COCOEvaluator(name, output_dir=folder)]
    if importlib.util.find_spec("panopticapi"):
        evaluators.append(COCOPanopticEvaluator(name, folder))
    else:
        logger.warning(
            "panopticapi is not installed: mIoU and AP are measured, panoptic quality is not"
        )
    return evaluators


def _needs(package: str, evaluator: type) -> type:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{evaluator.__name__} needs {package}: pip install {package}")
    return evaluator
