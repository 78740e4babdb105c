"""Datasets of ccsa; importing this registers them with Detectron2."""

from ccsa.data import digits, far_cue, moving_cue, panoptic, semantic

__all__ = ["digits", "far_cue", "moving_cue", "panoptic", "semantic"]
