"""Checks of files: every image and label that a dataset names is opened."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.formats.label_images import read_label_image
from ccsa.data.image_reader import open_image
from ccsa.data.problems import Problems
from ccsa.data.records import ROTATING, Header, image_header
from ccsa.errors import UserError

_DEEP = ("I", "F")
_UNUSUAL = ("RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBa")
_TINY = 8  # pixels
_ASPECT = 20
GIANT = 50_000_000  # pixels


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
        problems.add("unreadable_image", file, _short(error))
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


def check_image(file: str, problems: Problems) -> None:
    """Decode an image completely; damage in its middle shows only then."""
    try:
        _, deep = open_image(file)
    except UserError as error:
        problems.add("unreadable_image", file, str(error))
        return
    if deep is not None and deep.ndim == 3:
        problems.add("bit_depth", file, f"the image has color in {deep.dtype}")


class LabelCheck:
    """Checks label images against the classes.

    Args:
        classes: number of classes.
        ignore: the ignore value.
    """

    def __init__(self, classes: int, ignore: int = 255):
        self.classes, self.ignore = classes, ignore
        self.values: set[int] = set()  # of all labels

    def __call__(
        self, record: Mapping[str, Any], header: Header | None, problems: Problems
    ) -> None:
        """Check the label of a record: channels, size and every value."""
        file = str(record["sem_seg_file_name"])
        mapping = (record.get("labels") or {}).get("classes") or record.get("label_mapping")
        try:
            values = read_label_image(file, mapping)
        except UserError as error:
            text = str(error)
            kind = "label_channels" if "channels" in text else "unreadable_label"
            problems.add(kind, file, text)
            return
        try:
            if image_header(file).mode in ("RGB", "RGBA"):
                problems.add("label_rgb", file, "the label has three equal channels")
        except OSError:
            pass  # reported above if it matters
        if header is not None and values.shape != (header.height, header.width):
            problems.add(
                "label_size",
                file,
                f"the label has {values.shape[1]} x {values.shape[0]} pixels, its image "
                f"{header.width} x {header.height}",
            )
        found = set(np.unique(values).tolist())
        self.values |= found
        wrong = sorted(v for v in found if v != self.ignore and not 0 <= v < self.classes)
        if wrong:
            listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            classes = f"the classes are 0 to {self.classes - 1}"
            problems.add("label_out_of_range", file, f"the label contains {listed}; {classes}")
        elif found == {self.ignore}:
            problems.add("only_ignored_pixels", file, f"every pixel is {self.ignore}")

    def finish(self, source: str | Path, problems: Problems) -> None:
        """Check the values of all labels together."""
        if self.values == {0, self.ignore} and self.classes > 1:
            problems.add(
                "ignored_class",
                source,
                f"the labels contain only 0 and {self.ignore}, but {self.classes} classes exist",
            )


def check_channels(headers: Sequence[tuple[str, Header]], problems: Problems) -> None:
    """Report gray and color images in one training set."""
    gray = [file for file, header in headers if header.mode in ("L", "1", "I;16", "I", "F", "LA")]
    if gray and len(gray) < len(headers):
        text = f"{len(gray)} of {len(headers)} training images are gray"
        problems.add("mixed_channels", gray[0], text)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
