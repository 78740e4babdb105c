"""The one reader of images, for training, evaluation, demos and exported programs.

Every image becomes uint8 with three channels. Images of more than 8 bits (16-bit, 32-bit and
floating point) are mapped by a range of intensities, never by clipping: Pillow's own conversion of
a 16-bit image turns nearly every pixel into 255.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageOps

from ccsa.data.records import image_header
from ccsa.errors import UserError

Range = tuple[float, float]
FIX = "replace it with an intact copy"
PERCENTILES = (0.1, 99.9)
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_PNG_DEPTH, _PNG_COLOR = 24, 25  # bytes of a PNG file with bits per channel and type of color
_TIFF_BITS = 258  # the tag of a TIFF file with bits per channel
_SAMPLE = 1 << 16  # pixels of an image that its percentiles are computed from


def read_image(
    file: str | Path,
    format: str = "RGB",
    intensity_range: Sequence[float] | None = None,
    *,
    fix: str = FIX,
) -> np.ndarray:
    """Read an image, upright by its EXIF orientation.

    Args:
        file: any format that Pillow or OpenCV read: gray, palette, alpha, CMYK, 8 to 32 bits.
        format: order of the channels, as ``INPUT.FORMAT``: ``RGB``, ``BGR``, ``L`` and Detectron2's
            other formats.
        intensity_range: (low, high), mapped to 0 and 255, for images of more than 8 bits.
        fix: how a damaged file can be fixed, for the message.

    Returns:
        uint8 (H, W, 3), or (H, W, 1) for ``L``.

    Raises:
        UserError: the file cannot be read, or it has more than 8 bits and no range is given.
    """
    image, deep = open_image(file, fix)
    if deep is not None:
        if not intensity_range:
            raise UserError(
                f"image {file} has more than 8 bits per channel ({deep.dtype}, values "
                f"{deep.min():g} to {deep.max():g}), but no range of intensities is known; set "
                "INPUT.INTENSITY_RANGE '[low, high]'"
            )
        image = Image.fromarray(to_uint8(deep, intensity_range))
    return convert_PIL_to_numpy(image, format).astype(np.uint8, copy=False)


def open_image(file: str | Path, fix: str = FIX) -> tuple[Image.Image, np.ndarray | None]:
    """Decode an image.

    Returns:
        The upright image, and its values (H, W) or (H, W, 3) if it has more than 8 bits.

    Raises:
        UserError: the file does not exist or cannot be decoded.
    """
    path = Path(file)
    if not path.is_file():  # opening a named pipe would wait forever
        raise UserError(f"cannot read image {file} (it does not exist); {fix}")
    try:
        if _is_deep_color(path):
            return Image.new("L", (1, 1)), _decode_deep(path)
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        deep = _decode_tiff(path)
        if deep is None:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"cannot read image {file} ({reason}); {fix}") from error
        return Image.new("L", (1, 1)), deep
    if image.mode in _DEEP_MODES:
        values = np.asarray(image)
        if (
            values.dtype != np.uint16
            and image.mode != "F"
            and 0 <= values.min() <= values.max() < 256
        ):
            return Image.fromarray(values.astype(np.uint8)), None
        return image, values
    return image, None


def to_uint8(values: np.ndarray, intensity_range: Sequence[float]) -> np.ndarray:
    """Map intensities linearly, the low end of the range to 0 and the high end to 255.

    Values beyond the range are clipped; not-a-number becomes 0.

    Raises:
        UserError: the range is not two finite numbers, low below high.

    Example:
        >>> to_uint8(np.array([[0, 500, 1000]], np.uint16), (0, 1000)).tolist()
        [[0, 128, 255]]
    """
    low, high = check_range(intensity_range)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.nan_to_num(np.rint(scaled), nan=0.0).clip(0, 255).astype(np.uint8)


def check_range(value: Sequence[float]) -> Range:
    """Return a range of intensities as two floats.

    Raises:
        UserError: it is not two finite numbers, low below high.
    """
    numbers = [v for v in value if isinstance(v, int | float) and np.isfinite(v)]
    if len(numbers) != 2 or len(value) != 2 or not numbers[0] < numbers[1]:
        raise UserError(
            f"INPUT.INTENSITY_RANGE {list(value)} is not [low, high] with low below high, nor auto"
        )
    return float(numbers[0]), float(numbers[1])


def intensity_range(value: str | Sequence[float]) -> Range | None:
    """Return ``INPUT.INTENSITY_RANGE`` as two floats; None for ``auto`` (images of 8 bits).

    Raises:
        UserError: it is neither.
    """
    if value == "auto":
        return None
    if isinstance(value, str):
        raise UserError(f"INPUT.INTENSITY_RANGE '{value}' is not auto or [low, high]")
    return check_range(value)


def intensity_percentiles(files: Sequence[str | Path]) -> Range | None:
    """Return the 0.1 and 99.9 percentiles over images of more than 8 bits.

    Args:
        files: images of the training set.

    Returns:
        None if none of them has more than 8 bits.

    Raises:
        UserError: an image cannot be read.
    """
    samples = []
    for file in files:
        _, deep = open_image(file)
        if deep is not None:
            flat = deep.ravel()
            samples.append(flat[:: max(1, len(flat) // _SAMPLE)].astype(np.float64))
    if not samples:
        return None
    values = np.concatenate(samples)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, PERCENTILES) if len(values) else (0.0, 1.0)
    return (float(low), float(high)) if low < high else (float(low), float(low) + 1.0)


def is_deep(file: str | Path) -> bool:
    """Return whether an image has more than 8 bits per channel, by its header. A file that cannot
    be read has not."""
    try:
        return image_header(str(file)).mode in _DEEP_MODES or _is_deep_color(Path(file))
    except OSError:
        return False


def _is_deep_color(path: Path) -> bool:
    """Whether a PNG or TIFF has color in 16 bits, which Pillow would reduce to the upper 8."""
    with path.open("rb") as file:
        head = file.read(_PNG_COLOR + 1)
    if head.startswith(b"\x89PNG") and len(head) > _PNG_COLOR:
        return head[_PNG_DEPTH] == 16 and head[_PNG_COLOR] in (2, 6)
    if head.startswith((b"II*\0", b"MM\0*")):
        with Image.open(path) as image:
            bits = image.tag_v2.get(_TIFF_BITS, (8,))
            return image.mode not in _DEEP_MODES and max(np.ravel(bits)) > 8
    return False


def _decode_deep(path: Path) -> np.ndarray:
    """Decode with OpenCV, which keeps the depth; alpha is dropped, channels become RGB."""
    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    values = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if values is None:
        raise OSError("OpenCV cannot decode it")
    return values[..., 2::-1] if values.ndim == 3 else values


def _decode_tiff(path: Path) -> np.ndarray | None:
    """Decode a TIFF that Pillow cannot read, such as 16-bit color; None if that fails too."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        values = _decode_deep(path)
    except (OSError, cv2.error):
        return None
    return values if values.dtype != np.uint8 else None
