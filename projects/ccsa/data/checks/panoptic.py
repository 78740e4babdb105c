"""Checking a panoptic dataset on disk: every image, every PNG and every segment is read."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ccsa.data.checks.semantic import KINDS, Report, shown_size
from ccsa.data.formats.label_images import find, in_threads, read_indices
from ccsa.data.formats.panoptic_json import Annotation, PanopticJson, read_panoptic_json
from ccsa.data.formats.panoptic_png import (
    BAD_CATEGORIES,
    BAD_IDS,
    read_segment_ids,
    relabel_segments,
    segment_troubles,
)
from ccsa.data.panoptic.splits import PanopticSplit
from ccsa.errors import UserError

MISSING, UNREADABLE, SIZES, LABELS = KINDS
BAD_AREAS = "bad areas"
PANOPTIC_KINDS = (MISSING, UNREADABLE, SIZES, BAD_IDS, BAD_CATEGORIES, BAD_AREAS, LABELS)

Trouble = tuple[str, str]


def check_panoptic_split(split: PanopticSplit) -> Report:
    """Read every file of a split, under a progress bar."""
    report = Report(split, kinds=PANOPTIC_KINDS)
    absent = split.absent()
    if absent:
        report.troubles.append((MISSING, f"{absent} is not there"))
        return report
    report.troubles += [(MISSING, lack) for lack in split.incomplete()]
    try:
        truth = read_panoptic_json(split.json_file)
    except UserError as error:
        report.troubles.append((UNREADABLE, str(error)))
        return report
    if not truth.annotations:
        report.troubles.append((MISSING, f"{split.json_file} annotates no images"))
    check = partial(_check_image, split, truth)
    for images, labels, troubles in in_threads(check, list(truth.annotations.values()), split.name):
        report.images += images
        report.labels += labels
        report.troubles += troubles
    named = {split.panoptic_root / a.file_name for a in truth.annotations.values()}
    report.troubles += [
        (MISSING, f"no annotation of {path} in {split.json_file}")
        for path in find(split.panoptic_root, "**/*.png")
        if path not in named
    ]
    return report


def _check_image(
    split: PanopticSplit, truth: PanopticJson, annotation: Annotation
) -> tuple[int, int, list[Trouble]]:
    """Whether the image and the panoptic PNG are there (0 or 1 each), and their troubles."""
    image, png = split.image_of(annotation), split.panoptic_root / annotation.file_name
    label = split.label_of(annotation)
    troubles = [
        (MISSING, f"no {what} {path}")
        for root, what, path in (
            (split.image_root, "image", image),
            (split.panoptic_root, "PNG", png),
            (split.label_root, "label", label),
        )
        if root.exists() and not path.is_file()  # a folder that is not there is named once
    ]
    sizes: dict[Path, tuple[int, ...]] = {}  # width, height
    if image.is_file():
        try:
            with Image.open(image) as picture:
                picture.load()
                sizes[image] = shown_size(picture)
        except (OSError, SyntaxError, ValueError) as error:
            troubles.append((UNREADABLE, f"image {image} ({error})"))
    ids = labels = None
    try:
        if png.is_file():
            ids = read_segment_ids(png)
            sizes[png] = ids.shape[::-1]
            troubles += _segment_troubles(annotation, ids, truth)
        if label.is_file():
            labels = read_indices(label)
            sizes[label] = labels.shape[::-1]
    except UserError as error:
        troubles.append((UNREADABLE, str(error)))
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{path} is {w}x{h}" for path, (w, h) in sizes.items())
        troubles.append((SIZES, text))
    elif ids is not None and labels is not None and split.labels is not None:
        known = [s for s in annotation.segments if s.category_id in split.labels]
        wrong = np.count_nonzero(relabel_segments(ids, known, split.labels) != labels)
        if wrong:
            troubles.append((LABELS, f"{label} differs from {png} in {wrong:,} pixels"))
    return image.is_file(), png.is_file(), troubles


def _segment_troubles(
    annotation: Annotation, ids: np.ndarray, truth: PanopticJson
) -> Iterator[Trouble]:
    found, pixels = np.unique(ids, return_counts=True)
    areas = dict(zip(found.tolist(), pixels.tolist(), strict=True))
    where = f"image {annotation.image_id} ({annotation.file_name})"
    for kind, text in segment_troubles(annotation.segments, areas, truth.categories):
        yield kind, f"{where}: {text}"
    for segment in annotation.segments:
        if segment.id in areas and segment.area != areas[segment.id]:
            yield (
                BAD_AREAS,
                f"{where}: segment {segment.id} has the area {segment.area} in the JSON and "
                f"{areas[segment.id]} pixels in the PNG",
            )
