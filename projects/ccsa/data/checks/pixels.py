"""Checks of files: every image, label and panoptic PNG that a dataset names is opened."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ccsa.data.formats.panoptic_png import read_segment_ids
from ccsa.data.image_reader import open_image
from ccsa.data.problems import Problems
from ccsa.data.records import ROTATING, Header, image_header
from ccsa.errors import UserError

_DEEP = ("I", "F")
_UNUSUAL = ("RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBa")
_TINY = 8  # pixels
_ASPECT = 20
GIANT = 50_000_000  # pixels
_one_giant = threading.Lock()  # giant images are decoded one at a time, because of their memory


def check_header(record: Mapping[str, Any], problems: Problems) -> Header | None:
    """Check the header of an image: size, orientation, depth and channels.

    Returns:
        The header, or None if the file cannot be opened.
    """
    file = str(record["file_name"])
    path = Path(file)
    if not path.is_file():
        kind = "not_a_file" if path.exists() else "missing_image"
        problems.add(kind, file, "the file cannot be opened as an image")
        return None
    try:
        header = image_header(file)
    except OSError as error:
        too_large = isinstance(error.__cause__, Image.DecompressionBombError)
        kind = "too_large_image" if too_large else "unreadable_image"
        problems.add(kind, file, _short(error))
        return None
    size = record.get("width"), record.get("height")
    shown = header.width, header.height
    if None not in size and size != shown:
        text = (
            f"the record says {size[0]} x {size[1]} pixels, the image has {shown[0]} x {shown[1]}"
        )
        rotated = header.orientation in ROTATING and size == header.stored
        problems.add("exif_rotation" if rotated else "size_mismatch", file, text)
    elif header.orientation != 1:
        problems.add("exif_orientation", file, f"the EXIF orientation is {header.orientation}")
    if header.mode.startswith(_DEEP):
        problems.add("bit_depth", file, f"the image has mode {header.mode}")
    if header.mode in _UNUSUAL or header.frames > 1:
        pages = f" and {header.frames} pages" if header.frames > 1 else ""
        problems.add("channels", file, f"the image has mode {header.mode}{pages}")
    short, long = sorted(shown)
    if short < _TINY:
        problems.add("tiny_image", file, f"the image has {shown[0]} x {shown[1]} pixels")
    elif long > _ASPECT * short:
        problems.add("extreme_aspect_ratio", file, f"{shown[0]} x {shown[1]} pixels")
    if short * long > GIANT:
        problems.add("giant_image", file, f"{short * long / 1e6:.0f} megapixels")
    return header


def check_image(
    file: str,
    header: Header,
    problems: Problems,
    see: Callable[[np.ndarray], None] | None = None,
) -> bytes:
    """Decode an image completely, because damage in its middle shows only then.

    Args:
        file: the image.
        header: its header.
        problems: where problems are reported.
        see: called with the values of an image of more than 8 bits.

    Returns:
        A hash of its pixels; empty if it cannot be decoded.
    """
    if header.width * header.height > GIANT:
        with _one_giant:
            return _decoded(file, problems, see)
    return _decoded(file, problems, see)


def _decoded(
    file: str, problems: Problems, see: Callable[[np.ndarray], None] | None = None
) -> bytes:
    try:
        image, deep = open_image(file)
    except UserError as error:
        problems.add("unreadable_image", file, str(error))
        return b""
    if deep is not None and deep.ndim == 3:
        problems.add("bit_depth", file, f"the image has color in {deep.dtype}")
    if deep is not None and (bad := int(deep.size - np.isfinite(deep).sum())):
        problems.add("not_finite", file, f"{bad:,} of {deep.size:,} values are NaN or infinite")
    if deep is not None and see is not None:
        see(deep)
    pixels = np.ascontiguousarray(image if deep is None else deep)
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(pixels.data)
    return digest.digest()


def check_segments(record: Mapping[str, Any], header: Header | None, problems: Problems) -> None:
    """Check the panoptic PNG of a record against its segments and its image."""
    file = str(record["pan_seg_file_name"])
    try:
        ids = read_segment_ids(Path(file))
    except UserError as error:
        missing = not Path(file).exists()
        problems.add("missing_label" if missing else "unreadable_label", file, str(error))
        return
    check_size(file, ids, header, problems)
    shown = set(np.unique(ids).tolist()) - {0}
    listed = [segment["id"] for segment in record["segments_info"]]
    for problem, values in (
        ("occurs twice in the records", {n for n in listed if listed.count(n) > 1}),
        ("is in the records but not in the PNG", set(listed) - shown),
        ("is in the PNG but not in the records", shown - set(listed)),
    ):
        if values:
            problems.add("segment_mismatch", file, f"segment {min(values)} {problem}")
            return


def check_size(file: str, values: np.ndarray, header: Header | None, problems: Problems) -> None:
    """Check that a label image (H, W) has the size of its image."""
    if header is not None and values.shape != (header.height, header.width):
        problems.add(
            "label_size",
            file,
            f"the label has {values.shape[1]} x {values.shape[0]} pixels, its image "
            f"{header.width} x {header.height}",
        )


def check_channels(headers: Sequence[tuple[str, Header]], problems: Problems) -> None:
    """Report gray and color images in one training set."""
    gray = [file for file, header in headers if header.mode in ("L", "1", "I;16", "I", "F", "LA")]
    if gray and len(gray) < len(headers):
        text = f"{len(gray)} of {len(headers)} training images are gray"
        problems.add("mixed_channels", gray[0], text)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
