"""Evaluators, chosen by the metadata of a dataset."""

from ccsa.evaluation.build import build_evaluator, main_metric
from ccsa.evaluation.semantic_tta import SemanticTTA, build_semantic_inference
from ccsa.evaluation.sliding_window import SlidingWindow

__all__ = [
    "SemanticTTA",
    "SlidingWindow",
    "build_evaluator",
    "build_semantic_inference",
    "main_metric",
]
