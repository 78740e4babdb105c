"""Label images, whose values are the labels of the pixels: the one reader for training, evaluation,
checks and drawings, and the writer."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ccsa.data.image_reader import decode_image, is_file
from ccsa.data.records import image_header
from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

IGNORE = 255  # the label of pixels that count neither in the loss nor in the metrics
PNG_END = b"IEND\xaeB`\x82"  # the last chunk of every PNG file
FIX = "replace it with an intact copy"


def read_label_image(
    path: str | Path, mapping: Mapping[int, int] | None = None, *, fix: str = FIX
) -> np.ndarray:
    """Read a label image as integers (H, W).

    Palette images give their indices, 1-bit images 0 and 1, and images of three equal channels the
    first one. 16-bit values are kept.

    Args:
        path: a gray, palette or 1-bit image.
        mapping: replaces values: ``{255: 1}``. Values that it lacks stay.
        fix: how a damaged file can be fixed, for the message.

    Returns:
        An array of uint8 or a wider integer type.

    Raises:
        UserError: the file cannot be read, or has several different channels.
    """
    path = Path(path)
    if not is_file(path):  # opening a named pipe would wait forever
        state = "is not a regular file" if os.path.lexists(path) else "does not exist"
        raise UserError(f"cannot read {path} (it {state}); {fix}")
    try:
        image, deep = decode_image(path, upright=False)
        values = np.array(image if deep is None else deep)
        pages = image_header(str(path)).frames
    except UserError:
        raise
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        raise UserError(f"cannot read {path} ({error}); {fix}") from error
    if pages > 1:
        raise UserError(f"{path} is not a label image: it has {pages} pages; save one page")
    if values.ndim == 3 and (deep is not None or image.mode in ("RGB", "RGBA", "LA", "PA")):
        channels = values[..., :-1] if deep is None and image.mode.endswith("A") else values
        if (channels != channels[..., :1]).any():
            mode = "RGB" if deep is not None else image.mode
            raise UserError(
                f"{path} is not a label image: it has different channels ({mode}) instead of one "
                f"of integers; {fix}"
            )
        values = channels[..., 0]
    if values.dtype == bool:
        values = values.astype(np.uint8)
    whole = values.dtype.kind == "f" and (values == np.rint(values)).all()
    if whole and np.abs(values).max(initial=0) < 2**31:
        values = values.astype(np.int32)
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise UserError(
            f"{path} is not a label image with one channel of integers (shape {values.shape}, type "
            f"{values.dtype}); {fix}"
        )
    return map_labels(values, mapping) if mapping else values


def map_labels(values: np.ndarray, mapping: Mapping[int, int]) -> np.ndarray:
    """Replace values by a mapping; values that it lacks stay.

    Example:
        >>> map_labels(np.array([[0, 255]], np.uint8), {255: 1}).tolist()
        [[0, 1]]
    """
    result = values.copy()
    if (
        mapping
        and not 0 <= min(mapping.values()) <= max(mapping.values()) <= np.iinfo(values.dtype).max
    ):
        result = result.astype(np.int64)
    for value, label in mapping.items():
        result[values == value] = label
    return result


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
