"""Datasets of ccsa; importing this registers them with Detectron2."""

from ccsa.data import panoptic, semantic
from ccsa.data.synthetic import digits, far_cue, moving_cue

__all__ = ["digits", "far_cue", "moving_cue", "panoptic", "semantic"]
