"""The one reader of label images, for training, evaluation, checks and drawings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ccsa.errors import UserError

_FIX = "save labels as one channel (gray or palette) of integers"


def read_label(path: str | Path, mapping: Mapping[int, int] | None = None) -> np.ndarray:
    """Read a label image as integers (H, W).

    Palette images give their indices, 1-bit images 0 and 1, and images of three equal channels the
    first one. 16-bit values are kept.

    Args:
        path: a gray, palette or 1-bit image.
        mapping: replaces values: ``{255: 1}``. Values that it lacks stay.

    Returns:
        An array of uint8 or a wider integer type.

    Raises:
        UserError: the file cannot be read, or has several different channels.
    """
    path = Path(path)
    if not path.is_file():  # opening a named pipe would wait forever
        raise UserError(f"label file {path} does not exist; restore it")
    try:
        with Image.open(path) as image:
            mode = image.mode
            values = np.array(image)
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        raise UserError(f"cannot read the label file {path} ({error}); replace it") from error
    if values.ndim == 3 and mode in ("RGB", "RGBA", "LA"):
        colors = values[..., : len(mode) - mode.endswith("A")]
        if (colors != colors[..., :1]).any():
            raise UserError(f"label file {path} has different channels ({mode}); {_FIX}")
        values = colors[..., 0]
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        values = values.astype(np.int32)
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise UserError(
            f"label file {path} is not an image of integers (mode {mode}, type {values.dtype}); "
            f"{_FIX}"
        )
    return map_labels(values, mapping) if mapping else values


def map_labels(values: np.ndarray, mapping: Mapping[int, int]) -> np.ndarray:
    """Replace values by a mapping; values that it lacks stay.

    Example:
        >>> map_labels(np.array([[0, 255]], np.uint8), {255: 1}).tolist()
        [[0, 1]]
    """
    result = values.copy()
    if mapping and max(mapping.values()) > np.iinfo(values.dtype).max:
        result = result.astype(np.int32)
    for value, label in mapping.items():
        result[values == value] = label
    return result
