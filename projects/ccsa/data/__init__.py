"""Datasets of ccsa; importing this registers them with Detectron2."""

from ccsa.data import digits, panoptic, semantic

__all__ = ["digits", "panoptic", "semantic"]
