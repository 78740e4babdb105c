"""Evaluators, chosen by the metadata of a dataset."""

from ccsa.evaluation.build import build_evaluator, main_metric
from ccsa.evaluation.panoptic_evaluator import PanopticQualityEvaluator
from ccsa.evaluation.panoptic_files import evaluate_files
from ccsa.evaluation.panoptic_quality import PanopticQuality
from ccsa.evaluation.semantic_tta import SemanticTTA, build_semantic_inference
from ccsa.evaluation.sliding_window import SlidingWindow

__all__ = [
    "PanopticQuality",
    "PanopticQualityEvaluator",
    "SemanticTTA",
    "SlidingWindow",
    "build_evaluator",
    "build_semantic_inference",
    "evaluate_files",
    "main_metric",
]
