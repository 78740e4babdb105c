"""What models cost (FLOPs, time, memory), where they attend, and comparisons of runs."""

from ccsa.analysis.attention import (
    AttentionMaps,
    CrissCrossMaps,
    SqueezeAttentionMaps,
    attention_maps,
)
from ccsa.analysis.cross_weights import attended_by, attending_to, dense_matrix
from ccsa.analysis.flops import FlopAnalysis, count_flops, flop_analysis
from ccsa.analysis.measure import Cost, count_parameters, measure

__all__ = [
    "AttentionMaps",
    "Cost",
    "CrissCrossMaps",
    "FlopAnalysis",
    "SqueezeAttentionMaps",
    "attended_by",
    "attending_to",
    "attention_maps",
    "count_flops",
    "count_parameters",
    "dense_matrix",
    "flop_analysis",
    "measure",
]
