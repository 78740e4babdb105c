"""Label images: PNG files of one channel whose values are the labels of the pixels."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

IGNORE = 255  # the label of pixels that count neither in the loss nor in the metrics
PNG_END = b"IEND\xaeB`\x82"  # the last chunk of every PNG file


def read_label_image(path: Path | str) -> np.ndarray:
    """Return the labels (H, W) of a label image, integers. A palette image gives its indices, not
    its colors.

    Raises:
        UserError: the file cannot be read, or it has several channels.
    """
    try:
        with Image.open(path) as image:
            values = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {path} ({error}); replace it with an intact copy") from error
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise UserError(
            f"{path} is not a label image with one channel of integers (shape {values.shape}, type "
            f"{values.dtype}); replace it with an intact copy"
        )
    return values


def misread_reason(image: Image.Image) -> str | None:
    """Return why Detectron2's mapper, which converts labels to grayscale, would misread a label
    image, as a noun phrase; None if it would not.

    A palette other than the gray ramp turns indices into the brightness of their colors.
    """
    if image.mode == "L":
        return None
    if image.mode != "P":
        return f"mode {image.mode} instead of 8-bit indices"
    palette = np.array(image.getpalette()).reshape(-1, 3)
    used = int(np.array(image).max()) + 1
    colored = np.flatnonzero(palette.any(axis=1))
    count = max(used, int(colored[-1]) + 1 if len(colored) else 0)
    if np.array_equal(palette[:count], np.repeat(np.arange(count)[:, None], 3, axis=1)):
        return None
    return "a color palette, which would be read as brightness"


def is_complete_png(path: Path) -> bool:
    """Return whether ``path`` exists and ends with the last chunk of a complete PNG file."""
    try:
        with path.open("rb") as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except OSError:
        return False


def write_label_image(path: Path, labels: np.ndarray) -> None:
    """Write (H, W) uint8 labels as an 8-bit grayscale PNG that is complete or absent.

    Raises:
        UserError: the file cannot be written.
    """
    image = Image.fromarray(labels)
    with atomic_write(path) as partial:
        image.save(partial)
