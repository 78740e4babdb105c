"""Label maps in MATLAB files: those of SBD and of PASCAL Context."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ccsa.errors import UserError, missing_package
from ccsa.utils.files import regular_file


def read_sbd(path: Path) -> np.ndarray:
    """Return the labels (H, W), 0..20, of a file in ``cls`` of SBD (``GTcls.Segmentation``).

    Raises:
        UserError: the file cannot be read or has no such labels.
    """
    return _read(path, lambda content: content["GTcls"][0, 0]["Segmentation"], "GTcls.Segmentation")


def read_context(path: Path) -> np.ndarray:
    """Return the ids (H, W), 0..459, of a file in ``trainval`` of PASCAL Context (``LabelMap``).

    Raises:
        UserError: the file cannot be read or has no such ids.
    """
    return _read(path, lambda content: content["LabelMap"], "LabelMap")


def _read(path: Path, select: Callable[[dict[str, Any]], Any], key: str) -> np.ndarray:
    try:
        from scipy.io import loadmat  # imported here, because only these two datasets need SciPy
    except ModuleNotFoundError as error:
        install = "pip install '.[train]' in a clone of ccsa"
        raise missing_package("A MATLAB file", "scipy", install) from error

    try:
        values = np.asarray(select(loadmat(regular_file(path))))
    except Exception as error:  # whatever SciPy's parser or zlib raises
        raise UserError(
            f"cannot read {key} of {path} ({error}); replace it with an intact copy"
        ) from error
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uif":
        raise UserError(
            f"{key} of {path} is not a map of labels (shape {values.shape}, type {values.dtype}); "
            "replace it with an intact copy"
        )
    return values.astype(np.int64)
