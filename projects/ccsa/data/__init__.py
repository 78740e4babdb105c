"""Datasets of ccsa: formats, preparation, checks, augmentation and data loaders.

Importing this package registers every dataset with Detectron2: the ones that are downloaded
(:mod:`ccsa.data.semantic`, :mod:`ccsa.data.panoptic`) and the ones that are drawn and written to
disk on first use (:mod:`ccsa.data.synthetic`). No file is read or written by the import.
"""

from typing import TYPE_CHECKING, Any

from ccsa.data import panoptic, semantic
from ccsa.data.synthetic import digits, far_cue, moving_cue, small_objects

if TYPE_CHECKING:
    from ccsa.data.folder import FolderDataset, read_folder

__all__ = [
    "FolderDataset",
    "digits",
    "far_cue",
    "moving_cue",
    "panoptic",
    "read_folder",
    "semantic",
    "small_objects",
]


def __getattr__(name: str) -> Any:
    """Import the readers of a user's own data on first use (PEP 562): they need OpenCV and more."""
    if name in ("FolderDataset", "read_folder"):
        from ccsa.data import folder

        return getattr(folder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
