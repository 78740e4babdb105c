"""Checks of files: every image, label and panoptic PNG that a dataset names is opened."""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ccsa.data.formats.label_images import read_label_image
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
    _check_size(file, ids, header, problems)
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


def _check_size(file: str, values: np.ndarray, header: Header | None, problems: Problems) -> None:
    if header is not None and values.shape != (header.height, header.width):
        problems.add(
            "label_size",
            file,
            f"the label has {values.shape[1]} x {values.shape[0]} pixels, its image "
            f"{header.width} x {header.height}",
        )


class LabelCheck:
    """Checks label images against the classes.

    Args:
        classes: number of classes.
        ignore: the ignore value.
    """

    def __init__(self, classes: int, ignore: int = 255):
        self.classes, self.ignore = classes, ignore
        self.values: dict[str, list[frozenset[int]]] = defaultdict(list)  # of labels, by split
        self.only_labels = True  # no record has objects or segments as well

    def __call__(
        self, split: str, record: Mapping[str, Any], header: Header | None, problems: Problems
    ) -> None:
        """Check the label of a record: channels, size and every value."""
        file = str(record["sem_seg_file_name"])
        mapping = (record.get("labels") or {}).get("classes") or record.get("label_mapping")
        try:
            values = read_label_image(file, mapping)
        except UserError as error:
            text = str(error)
            kind = "label_channels" if "channels" in text else "unreadable_label"
            kind = kind if Path(file).exists() else "missing_label"
            problems.add(kind, file, text)
            return
        try:
            if image_header(file).mode in ("RGB", "RGBA"):
                problems.add("label_rgb", file, "the label has three equal channels")
        except OSError:
            pass  # reported above if it matters
        _check_size(file, values, header, problems)
        found = set(np.unique(values).tolist())
        self.values[split].append(frozenset(found))
        if "annotations" in record or "pan_seg_file_name" in record:
            self.only_labels = False
        wrong = sorted(v for v in found if v != self.ignore and not 0 <= v < self.classes)
        if wrong:
            listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            classes = f"the classes are 0 to {self.classes - 1}"
            problems.add("label_out_of_range", file, f"the label contains {listed}; {classes}")
        elif found == {self.ignore}:
            problems.add("only_ignored_pixels", file, f"every pixel is {self.ignore}")

    def finish(
        self, source: str | Path, names: Sequence[str], complete: bool, problems: Problems
    ) -> None:
        """Check the values of all labels together.

        Args:
            source: what messages name.
            names: the names of the classes.
            complete: whether all labels were read, so that a class may be said to be missing.
            problems: where problems are reported.
        """
        if self.values and self.classes == 1 and self.only_labels:
            problems.add("single_class", source, f"{names[0]} is the only class")
        ignored = [split for split in self.values if self._ignores_class(split, source, problems)]
        if ignored or not complete:
            return
        used = {split: set().union(*values) for split, values in self.values.items()}
        for split, values in used.items():
            for index, name in enumerate(names if self.ignore in values else ()):
                if index not in values:
                    text = f"{split} contains {self.ignore}, but no pixel of class {name} ({index})"
                    problems.add("class_or_ignored", source, text)
        if "train" not in used:
            return
        for index, name in enumerate(names):
            splits = [split for split, values in used.items() if index in values]
            if "train" not in splits:
                where = f", only in {' and '.join(splits)}" if splits else ""
                text = f"class {name} has no pixel{where}"
                problems.add("class_without_objects", source, text)
            elif len(used) > 1 and splits == ["train"]:
                text = f"class {name} has pixels in train only"
                problems.add("class_in_one_split", source, text)

    def _ignores_class(self, split: str, source: str | Path, problems: Problems) -> bool:
        """Report a split of which most labels with anything but 0 contain just 0 and ignore."""
        marked = [values for values in self.values[split] if values != {0}]
        binary = sum(values == {0, self.ignore} for values in marked)
        if 2 * binary <= len(marked):
            return False
        text = f"{split}: {binary} of {len(marked)} labels with objects contain only 0 and "
        problems.add("ignored_class", source, f"{text}{self.ignore}")
        return True


def check_channels(headers: Sequence[tuple[str, Header]], problems: Problems) -> None:
    """Report gray and color images in one training set."""
    gray = [file for file, header in headers if header.mode in ("L", "1", "I;16", "I", "F", "LA")]
    if gray and len(gray) < len(headers):
        text = f"{len(gray)} of {len(headers)} training images are gray"
        problems.add("mixed_channels", gray[0], text)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
