"""Evaluators, chosen by the metadata of a dataset."""

from ccsa.evaluation.build import build_evaluator, main_metric

__all__ = ["build_evaluator", "main_metric"]
