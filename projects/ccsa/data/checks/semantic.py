"""Checks of semantic segmentation datasets: every image and every label image is read."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ccsa.data.checks.report import (
    LABELS,
    MISSING,
    SIZES,
    UNREADABLE,
    Problem,
    Report,
)
from ccsa.data.family import Family
from ccsa.data.formats.label_images import IGNORE, misread_reason
from ccsa.data.image_reader import open_image
from ccsa.data.records import image_header
from ccsa.data.semantic.splits import Split
from ccsa.errors import UserError
from ccsa.utils.threads import map_in_threads


def check_split(split: Split) -> Report:
    """Read every file of a split under a progress bar, and return what is wrong with it."""
    report = Report(split)
    missing = split.first_missing()
    if missing:
        report.problems.append((MISSING, f"{missing} does not exist"))
        return report
    try:
        ids = split.ids()
    except UserError as error:
        report.problems.append((UNREADABLE, str(error)))
        return report
    if not ids:
        report.problems.append((MISSING, f"{split.image_root} has no files"))
    for images, labels, problems in map_in_threads(partial(_check_pair, split), ids, split.name):
        report.images += images
        report.labels += labels
        report.problems += problems
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    report.problems += [(LABELS, f"{name} is listed twice") for name in repeated]
    return report


def check_family(
    family: Family, root: Path, check: Callable[[Any], Report] = check_split
) -> tuple[list[Report], list[str]]:
    """Return a report for each split, and notes on groups of splits that do not exist at all.

    Args:
        family: the dataset.
        root: the folder of all datasets.
        check: checks one split.

    Raises:
        UserError: no split exists: the dataset must be downloaded or prepared.
    """
    reports, notes = [], []
    splits = family.splits(root)
    for group in dict.fromkeys(split.group for split in splits):
        members = [split for split in splits if split.group == group]
        if all(split.first_missing() for split in members):
            names = ", ".join(split.name for split in members)
            notes.append(
                f"not found and not checked: {names} ({members[0].first_missing()} does not exist)"
            )
        else:
            reports += [check(split) for split in members]
    if reports:
        return reports, notes
    raise family.unavailable(root, splits[0].first_missing())


def _check_pair(split: Split, name: str) -> tuple[int, int, list[Problem]]:
    """Return whether the image and the label image of an id exist (0 or 1 each), and their
    problems."""
    image_path, label_path = split.pair(name)
    problems: list[Problem] = [
        (MISSING, f"{what} {path} does not exist")
        for what, path in (("image", image_path), ("label", label_path))
        if not path.is_file()
    ]
    sizes = []
    if image_path.is_file():
        try:
            open_image(image_path)
            sizes.append(image_header(str(image_path))[:2])
        except (UserError, OSError) as error:
            problems.append((UNREADABLE, str(error)))
    if label_path.is_file():
        try:
            with Image.open(label_path) as label:
                values = np.array(label)
                sizes.append(label.size)
                reason = misread_reason(label) or _out_of_range(values, len(split.classes))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            problems.append((UNREADABLE, f"label {label_path} ({error})"))
        else:
            if reason:
                problems.append((LABELS, f"{label_path} has {reason}"))
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (w, h), (lw, lh) = sizes
        problems.append((SIZES, f"{image_path} is {w}x{h}, {label_path} is {lw}x{lh}"))
    return image_path.is_file(), label_path.is_file(), problems


def _out_of_range(values: np.ndarray, classes: int) -> str | None:
    """Return which labels are invalid, as a noun phrase; None if all are valid."""
    found = np.unique(values)
    bad = found[(found >= classes) & (found != IGNORE)].tolist()
    if not bad:
        return None
    shown = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
    return f"labels {shown}; allowed are 0..{classes - 1} and {IGNORE}"
