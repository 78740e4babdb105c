"""Checks of datasets on disk: every image, label and annotation is read.

A check returns a :class:`Report` for each split, with a list of problems, which
``tools/check_dataset.py`` prints.
"""

from ccsa.data.checks.panoptic import PANOPTIC_KINDS, check_panoptic_split
from ccsa.data.checks.report import HEADERS, Report, examples
from ccsa.data.checks.semantic import check_family, check_split

__all__ = [
    "HEADERS",
    "PANOPTIC_KINDS",
    "Report",
    "check_family",
    "check_panoptic_split",
    "check_split",
    "examples",
]
