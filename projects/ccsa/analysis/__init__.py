"""What models cost and what runs gave: FLOPs, time, memory, and runs side by side."""

from ccsa.analysis.flops import count_flops, flop_analysis
from ccsa.analysis.measure import Cost, measure

__all__ = ["Cost", "count_flops", "flop_analysis", "measure"]
