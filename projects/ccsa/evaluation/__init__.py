"""Metrics: Detectron2's evaluators, chosen by the metadata of a dataset, and panoptic quality."""

from ccsa.evaluation.build import build_evaluator, main_metric, metric_of_run
from ccsa.evaluation.panoptic_evaluator import PanopticQualityEvaluator
from ccsa.evaluation.panoptic_files import evaluate_files
from ccsa.evaluation.panoptic_quality import PanopticQuality

__all__ = [
    "PanopticQuality",
    "PanopticQualityEvaluator",
    "build_evaluator",
    "evaluate_files",
    "main_metric",
    "metric_of_run",
]
