"""Checking a dataset on disk: every image and every label is read."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ccsa.data.formats.label_images import IGNORE, in_threads, misreading
from ccsa.data.semantic.catalog import Family, Split
from ccsa.errors import UserError

KINDS = ("missing", "unreadable", "sizes differ", "bad labels")
HEADERS = ("dataset", "images", "labels", "published")  # and the kinds
EXIF_ORIENTATION = 0x0112  # 5..8 turn an image by a quarter, and Detectron2 obeys them


@dataclass
class Report:
    """What was found of one split."""

    split: Any  # with the name and the published count of images of a Split
    images: int = 0
    labels: int = 0
    troubles: list[tuple[str, str]] = field(default_factory=list)  # its kind, what and where
    kinds: tuple[str, ...] = KINDS

    def row(self) -> list[str | int]:
        counts = Counter(kind for kind, _ in self.troubles)
        found = [self.split.name, self.images, self.labels, self.split.published]
        return [*found, *(counts[kind] for kind in self.kinds)]

    def note(self) -> str | None:
        """How the count of images differs from the published one; that is not an error."""
        difference = self.images - self.split.published
        if not difference:
            return None
        more = "more" if difference > 0 else "fewer"
        return (
            f"{self.split.name} has {self.images:,} images, {abs(difference):,} {more} than the "
            f"{self.split.published:,} that are published"
        )


def check_split(split: Split) -> Report:
    """Read every file of a split, under a progress bar."""
    report = Report(split)
    absent = split.absent()
    if absent:
        report.troubles.append(("missing", f"{absent} is not there"))
        return report
    try:
        ids = split.ids()
    except UserError as error:
        report.troubles.append(("unreadable", str(error)))
        return report
    if not ids:
        report.troubles.append(("missing", f"{split.image_root} has no files"))
    for images, labels, troubles in in_threads(lambda i: _check_pair(split, i), ids, split.name):
        report.images += images
        report.labels += labels
        report.troubles += troubles
    twice = [name for name, count in Counter(ids).items() if count > 1]
    report.troubles += [("bad labels", f"{name} is listed twice") for name in twice]
    return report


def check_family(
    family: Family, root: Path, check: Callable[[Any], Report] = check_split
) -> tuple[list[Report], list[str]]:
    """A report for each split, and notes on groups of splits that are not there at all.

    Raises:
        UserError: nothing of the dataset is there, or it is there but not prepared.
    """
    reports, notes = [], []
    splits = family.splits(root)
    for group in dict.fromkeys(split.group for split in splits):
        members = [split for split in splits if split.group == group]
        if all(split.absent() for split in members):
            names = ", ".join(split.name for split in members)
            notes.append(f"not there, not checked: {names} (no {members[0].absent()})")
        else:
            reports += [check(split) for split in members]
    if reports:
        return reports, notes
    raise family.absence(root, splits[0].absent())


def examples(reports: Iterable[Report], most: int = 5) -> list[str]:
    """Up to ``most`` troubles of each kind of each split, as lines of text."""
    lines = []
    for report in reports:
        for kind in report.kinds:
            found = [text for other, text in report.troubles if other == kind]
            lines += [f"{report.split.name}: {kind}: {text}" for text in found[:most]]
            if len(found) > most:
                lines.append(f"{report.split.name}: {kind}: and {len(found) - most} more")
    return lines


def _check_pair(split: Split, name: str) -> tuple[int, int, list[tuple[str, str]]]:
    """Whether the image and the label of an id are there (0 or 1 each), and their troubles."""
    image_path, label_path = split.pair(name)
    troubles = [
        ("missing", f"no {what} {path}")
        for what, path in (("image", image_path), ("label", label_path))
        if not path.is_file()
    ]
    sizes = []
    if image_path.is_file():
        try:
            with Image.open(image_path) as image:
                image.load()
                sizes.append(shown_size(image))
        except (OSError, SyntaxError, ValueError) as error:
            troubles.append(("unreadable", f"image {image_path} ({error})"))
    if label_path.is_file():
        try:
            with Image.open(label_path) as label:
                values = np.array(label)
                sizes.append(label.size)
                problem = misreading(label) or _out_of_range(values, len(split.classes))
        except (OSError, SyntaxError, ValueError) as error:
            troubles.append(("unreadable", f"label {label_path} ({error})"))
        else:
            if problem:
                troubles.append(("bad labels", f"{label_path} has {problem}"))
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (w, h), (lw, lh) = sizes
        troubles.append(("sizes differ", f"{image_path} is {w}x{h}, {label_path} {lw}x{lh}"))
    return image_path.is_file(), label_path.is_file(), troubles


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image as Detectron2 reads it, turned by its EXIF tag."""
    turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    return image.size[::-1] if turned else image.size


def _out_of_range(values: np.ndarray, classes: int) -> str | None:
    found = np.unique(values)
    bad = found[(found >= classes) & (found != IGNORE)].tolist()
    if not bad:
        return None
    shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
    return f"labels {shown}; allowed are 0..{classes - 1} and {IGNORE}"
