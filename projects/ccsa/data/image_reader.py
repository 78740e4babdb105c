"""The one reader of images, for training, evaluation, demos and exported programs.

Every image becomes uint8 with three channels. Images of more than 8 bits (16-bit, 32-bit and
floating point) are mapped by a range of intensities, never by clipping: Pillow's own conversion of
a 16-bit image turns nearly every pixel into 255.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageOps, TiffImagePlugin

from ccsa.errors import UserError

Range = tuple[float, float]
FIX = "replace it with an intact copy"
PERCENTILES = (0.1, 99.9)
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_PNG_DEPTH, _PNG_COLOR = 24, 25  # bytes of a PNG file with bits per channel and type of color
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_SAMPLES = 256, 257, 258, 277  # tags
_TIFF_ORIENTATION = 274  # the same tag as in EXIF
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLACEHOLDER = Image.new("L", (1, 1))
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
        if intensity_range:
            deep = to_uint8(deep, intensity_range)
        elif deep.dtype.kind == "f" or deep.dtype == np.uint16 or not _has_8_bits(deep):
            raise UserError(
                f"image {file} has more than 8 bits per channel ({deep.dtype}, values "
                f"{deep.min():g} to {deep.max():g}), but no range of intensities is known; set "
                "INPUT.INTENSITY_RANGE '[low, high]'"
            )
        image = Image.fromarray(deep.astype(np.uint8))
    try:
        return convert_PIL_to_numpy(image, format).astype(np.uint8, copy=False)
    except (ValueError, OSError) as error:  # a color space that Pillow cannot convert
        raise UserError(
            f"cannot convert image {file} from mode {image.mode} to {format} ({error}); save it "
            "as RGB"
        ) from error


def open_image(file: str | Path, fix: str = FIX) -> tuple[Image.Image, np.ndarray | None]:
    """Decode an image.

    Returns:
        The upright image, and its values (H, W) or (H, W, 3) if it has more than 8 bits.

    Raises:
        UserError: the file does not exist or cannot be decoded.
    """
    path = Path(file)
    if not is_file(path):  # opening a named pipe would wait forever
        state = "is not a regular file" if os.path.lexists(path) else "does not exist"
        raise UserError(f"cannot read image {file} (it {state}); {fix}")
    try:
        return decode_image(path)
    except UserError:
        raise
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.DecompressionBombError):
            fix = "cut it into tiles, or resize it"
        raise UserError(f"cannot read image {file} ({reason}); {fix}") from error


def decode_image(path: Path, *, upright: bool = True) -> tuple[Image.Image, np.ndarray | None]:
    """Decode an image file, of which more than 8 bits per channel are kept.

    Args:
        path: a regular file.
        upright: whether the EXIF orientation is applied.

    Returns:
        The image, and its values (H, W) or (H, W, 3) if it has more than 8 bits; then the image
        is a placeholder.

    Raises:
        Exception: of any type that Pillow or OpenCV raise for a damaged file.
    """
    layout = tiff_layout(path)
    turn = layout.orientation if layout else 1
    # Pillow and OpenCV rotate some kinds of TIFF themselves, and some of these wrongly.
    content = _without_orientation(path.read_bytes()) if turn != 1 else None
    if (layout and not layout.pillow_reads_it) or _is_deep_color_png(path):
        values = _decode_deep(content or path.read_bytes())
        turn = turn if layout else _orientation(path)
        return _PLACEHOLDER, rotate(values, turn) if upright else values
    with Image.open(io.BytesIO(content) if content else path) as opened:
        image = ImageOps.exif_transpose(opened) if upright else opened
        image.load()
    if image.mode in _DEEP_MODES:
        values = np.asarray(image)
        return image, rotate(values, turn) if upright else values
    if upright and turn in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[turn])
    return image, None


def is_file(path: Path) -> bool:
    """Whether a path is a regular file; False if the file system does not allow its name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


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
    numbers = [v for v in value if isinstance(v, int | float) and v is not True and abs(v) < 1e30]
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
    path = Path(file)
    if not is_file(path):
        return False
    try:
        layout = tiff_layout(path)
        if (layout and not layout.pillow_reads_it) or _is_deep_color_png(path):
            return True
        with Image.open(path) as image:
            return image.mode in _DEEP_MODES
    except UserError:
        raise
    except Exception:  # Pillow's plug-ins raise many kinds for damaged files
        return False


class TiffLayout(NamedTuple):
    """What the tags of a TIFF file say about its first page.

    Attributes:
        width, height: as stored.
        orientation: as in EXIF, 1 for none.
        pillow_reads_it: False for color in more than 8 bits, which Pillow rejects or reduces.
    """

    width: int
    height: int
    orientation: int
    pillow_reads_it: bool


def tiff_layout(path: Path) -> TiffLayout | None:
    """Read the tags of a TIFF file; None if the file is not a TIFF.

    Raises:
        Exception: of any type that Pillow raises for damaged tags.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return None
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
    bits = max(np.ravel(tags.get(_TIFF_BITS, (1,))))
    samples = int(tags.get(_TIFF_SAMPLES, 1))
    return TiffLayout(
        int(tags.get(_TIFF_WIDTH, 0)),
        int(tags.get(_TIFF_HEIGHT, 0)),
        int(tags.get(_TIFF_ORIENTATION, 1)),
        samples == 1 or bits <= 8,
    )


def rotate(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return an array (H, W, ...) upright, from its EXIF orientation (1 to 8)."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _without_orientation(content: bytes) -> bytes:
    """Return the content of a TIFF file whose orientation is set to 1, that is, none."""
    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"
    start = int.from_bytes(content[4:8], order)
    entries = int.from_bytes(content[start : start + 2], order)
    result = bytearray(content)
    for place in range(start + 2, start + 2 + 12 * entries, 12):
        if int.from_bytes(content[place : place + 2], order) == _TIFF_ORIENTATION:
            result[place + 8 : place + 10] = (1).to_bytes(2, order)
    return bytes(result)


def _has_8_bits(values: np.ndarray) -> bool:
    return values.size > 0 and values.min() >= 0 and values.max() < 256


def _orientation(path: Path) -> int:
    with Image.open(path) as image:
        return int(image.getexif().get(_TIFF_ORIENTATION, 1) or 1)


def _is_deep_color_png(path: Path) -> bool:
    """Whether a PNG has several channels of 16 bits, which Pillow would reduce to the upper 8."""
    with path.open("rb") as file:
        head = file.read(_PNG_COLOR + 1)
    if not head.startswith(b"\x89PNG") or len(head) <= _PNG_COLOR:
        return False
    return head[_PNG_DEPTH] == 16 and head[_PNG_COLOR] in (2, 4, 6)


def _decode_deep(content: bytes) -> np.ndarray:
    """Decode with OpenCV, which keeps the depth; alpha is dropped, channels become RGB.

    Raises:
        OSError: OpenCV cannot decode it, or it has neither 1, 3 nor 4 channels.
    """
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise OSError("its pixels cannot be decoded")
    if values.ndim == 2:
        return values
    if values.shape[2] not in (3, 4):
        raise OSError(f"it has {values.shape[2]} channels, not 1, 3 or 4")
    return values[..., 2::-1]
