"""What the detections of a run say about its errors: matches, costs, confusion, curves, slices."""

from ccsa.analysis.detections.matching import THRESHOLDS, ImageMatches, match_images

__all__ = ["THRESHOLDS", "ImageMatches", "match_images"]
