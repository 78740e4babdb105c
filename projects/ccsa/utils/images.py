"""Writing of images: the only writer of image files in the package, for RGB and grayscale arrays.
The reader is :func:`ccsa.data.image_reader.read_image`.

OpenCV encodes, because its files are byte for byte those of the built-in datasets as they have
always been written. Its channel order (BGR) stays inside this module.
"""

from pathlib import Path

import cv2
import numpy as np

from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

# Parameters of encoders whose default is not wanted: OpenCV writes WebP without loss.
_PARAMETERS = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 95]}


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """Return the content of an image file.

    Args:
        image: RGB of shape (H, W, 3), or grayscale of shape (H, W); uint8.
        suffix: selects the format, for example ``.png`` or ``.jpg`` (quality 95).

    Raises:
        UserError: OpenCV has no encoder for ``suffix``.
        UserError: ``image`` has another shape or type.

    Example:
        >>> encode_image(np.zeros((2, 3), np.uint8), ".png")[:4]
        b'\\x89PNG'
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise UserError(
            "an image must be uint8 of shape (H, W, 3) or (H, W), not "
            f"{image.dtype} of shape {image.shape}"
        )
    pixels = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    suffix = suffix.lower()
    try:
        encoded, content = cv2.imencode(suffix, pixels, _PARAMETERS.get(suffix, []))
    except cv2.error:  # no encoder has this suffix
        encoded = False
    if not encoded:
        raise UserError(
            f"OpenCV cannot encode an image of shape {image.shape} as '{suffix}'; "
            "use another format, for example .png"
        )
    return content.tobytes()


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image file that is complete or absent.

    ``cv2.imwrite`` is not used because it may not notice that the disk is full.

    Args:
        path: the file; its suffix selects the format.
        image: RGB of shape (H, W, 3), or grayscale of shape (H, W); uint8.

    Raises:
        UserError: the file cannot be written, for example because the disk is full, or OpenCV has
            no encoder for its suffix.
        UserError: ``image`` has another shape or type.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "white.png")
        ...     write_image(file, np.full((4, 6, 3), 255, np.uint8))
        ...     file.exists()
        True
    """
    content = encode_image(image, path.suffix)
    with atomic_write(path) as partial:
        partial.write_bytes(content)
