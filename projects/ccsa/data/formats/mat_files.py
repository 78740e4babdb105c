"""The label maps of MATLAB files: SBD's and PASCAL Context's."""

from pathlib import Path

import numpy as np

from ccsa.errors import UserError


def read_sbd(path: Path) -> np.ndarray:
    """(H, W) labels, 0..20, of a file of SBD's ``cls`` (``GTcls.Segmentation``)."""
    return _read(path, lambda content: content["GTcls"][0, 0]["Segmentation"], "GTcls.Segmentation")


def read_context(path: Path) -> np.ndarray:
    """(H, W) ids, 0..459, of a file of PASCAL Context's ``trainval`` (``LabelMap``)."""
    return _read(path, lambda content: content["LabelMap"], "LabelMap")


def _read(path: Path, pick, key: str) -> np.ndarray:
    from scipy.io import loadmat  # needed only to prepare these two datasets

    try:
        values = np.asarray(pick(loadmat(path)))
    except Exception as error:  # SciPy lets through whatever its parser and zlib raise
        raise UserError(
            f"cannot read {key} of {path} ({error}); put a good copy in its place"
        ) from error
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uif":
        raise UserError(
            f"{key} of {path} is not a map of labels (shape {values.shape}, type {values.dtype}); "
            "put a good copy in its place"
        )
    return values.astype(np.int64)
