"""Datasets of ccsa: formats, preparation, checks, augmentation and data loaders.

Importing this package registers every dataset with Detectron2: the ones that are downloaded
(:mod:`ccsa.data.semantic`, :mod:`ccsa.data.panoptic`) and the ones that are drawn and written to
disk on first use (:mod:`ccsa.data.synthetic`). No file is read or written by the import.
"""

from ccsa.data import panoptic, semantic
from ccsa.data.synthetic import digits, far_cue, moving_cue

__all__ = ["digits", "far_cue", "moving_cue", "panoptic", "semantic"]
