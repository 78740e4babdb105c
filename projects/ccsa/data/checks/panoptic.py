"""Checks of panoptic datasets: every image, every PNG and every segment is read."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ccsa.data.checks.report import (
    LABELS,
    MISSING,
    SIZES,
    UNREADABLE,
    Problem,
    Report,
)
from ccsa.data.formats.label_images import read_label_image
from ccsa.data.formats.panoptic_json import Annotation, PanopticJson, read_panoptic_json
from ccsa.data.formats.panoptic_png import (
    BAD_CATEGORIES,
    BAD_IDS,
    read_segment_ids,
    relabel_segments,
    segment_problems,
)
from ccsa.data.image_reader import open_image
from ccsa.data.panoptic.splits import PanopticSplit
from ccsa.data.paths import list_files
from ccsa.data.records import image_header
from ccsa.errors import UserError
from ccsa.utils.threads import map_in_threads

BAD_AREAS = "bad areas"
PANOPTIC_KINDS = (MISSING, UNREADABLE, SIZES, BAD_IDS, BAD_CATEGORIES, BAD_AREAS, LABELS)


def check_panoptic_split(split: PanopticSplit) -> Report:
    """Read every file of a split under a progress bar, and return what is wrong with it."""
    report = Report(split, kinds=PANOPTIC_KINDS)
    missing = split.first_missing()
    if missing:
        report.problems.append((MISSING, f"{missing} does not exist"))
        return report
    report.problems += [(MISSING, text) for text in split.missing_parts()]
    try:
        truth = read_panoptic_json(split.json_file)
    except UserError as error:
        report.problems.append((UNREADABLE, str(error)))
        return report
    if not truth.annotations:
        report.problems.append((MISSING, f"{split.json_file} annotates no images"))
    check = partial(_check_image, split, truth)
    annotations = list(truth.annotations.values())
    for images, labels, problems in map_in_threads(check, annotations, split.name):
        report.images += images
        report.labels += labels
        report.problems += problems
    annotated = {split.panoptic_root / annotation.file_name for annotation in annotations}
    report.problems += [
        (MISSING, f"{split.json_file} has no annotation of {path}")
        for path in list_files(split.panoptic_root, "**/*.png")
        if path not in annotated
    ]
    return report


def _check_image(
    split: PanopticSplit, truth: PanopticJson, annotation: Annotation
) -> tuple[int, int, list[Problem]]:
    """Return whether the image and the panoptic PNG exist (0 or 1 each), and their problems."""
    image, png = split.image_of(annotation), split.panoptic_root / annotation.file_name
    label = split.label_of(annotation)
    problems: list[Problem] = [
        (MISSING, f"{what} {path} does not exist")
        for root, what, path in (
            (split.image_root, "image", image),
            (split.panoptic_root, "PNG", png),
            (split.label_root, "label", label),
        )
        if root.exists() and not path.is_file()  # a missing folder is reported once, not per file
    ]
    sizes: dict[Path, tuple[int, ...]] = {}  # width, height
    if image.is_file():
        try:
            open_image(image)
            sizes[image] = image_header(str(image))[:2]
        except (UserError, OSError) as error:
            problems.append((UNREADABLE, str(error)))
    ids = labels = None
    try:
        if png.is_file():
            ids = read_segment_ids(png)
            sizes[png] = ids.shape[::-1]
            problems += _check_segments(annotation, ids, truth)
        if label.is_file():
            labels = read_label_image(label)
            sizes[label] = labels.shape[::-1]
    except UserError as error:
        problems.append((UNREADABLE, str(error)))
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"{path} is {w}x{h}" for path, (w, h) in sizes.items())
        problems.append((SIZES, text))
    elif ids is not None and labels is not None and split.labels is not None:
        known = [s for s in annotation.segments if s.category_id in split.labels]
        wrong = np.count_nonzero(relabel_segments(ids, known, split.labels) != labels)
        if wrong:
            problems.append((LABELS, f"{label} differs from {png} in {wrong:,} pixels"))
    return image.is_file(), png.is_file(), problems


def _check_segments(
    annotation: Annotation, ids: np.ndarray, truth: PanopticJson
) -> Iterator[Problem]:
    """Yield the problems of the segments of one image, whose PNG has the segment ``ids`` (H, W)."""
    values, pixels = np.unique(ids, return_counts=True)
    areas = dict(zip(values.tolist(), pixels.tolist(), strict=True))
    where = f"image {annotation.image_id} ({annotation.file_name})"
    for kind, text in segment_problems(annotation.segments, areas, truth.categories):
        yield kind, f"{where}: {text}"
    for segment in annotation.segments:
        if segment.id in areas and segment.area != areas[segment.id]:
            yield (
                BAD_AREAS,
                f"{where}: segment {segment.id} has the area {segment.area} in the JSON and "
                f"{areas[segment.id]} pixels in the PNG",
            )
