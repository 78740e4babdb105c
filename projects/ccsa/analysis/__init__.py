"""Cost and results of models: FLOPs, time and memory, and comparisons of runs."""

from ccsa.analysis.flops import FlopAnalysis, count_flops, flop_analysis
from ccsa.analysis.measure import Cost, count_parameters, measure

__all__ = [
    "Cost",
    "FlopAnalysis",
    "count_flops",
    "count_parameters",
    "flop_analysis",
    "measure",
]
