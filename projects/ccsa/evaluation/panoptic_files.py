"""Panoptic quality of result files in COCO's format, of any program."""

from collections.abc import Container, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from ccsa.data.panoptic import (
    Annotation,
    PanopticJson,
    read_panoptic_json,
    read_segment_ids,
    segment_problems,
)
from ccsa.errors import UserError
from ccsa.evaluation.panoptic_quality import Counts, PanopticQuality, count_overlaps, count_shared
from ccsa.utils.threads import map_in_threads


def evaluate_files(
    gt_json: Path, gt_dir: Path, pred_json: Path, pred_dir: Path
) -> tuple[PanopticQuality, PanopticJson]:
    """Compare predictions with ground truth, image by image in threads, under a progress bar.

    Predicted images that the ground truth does not have are left out, as panopticapi does.

    Args:
        gt_json: ground truth, with ``annotations`` and ``categories``.
        gt_dir: its PNGs.
        pred_json: predictions, with ``annotations``.
        pred_dir: their PNGs.

    Returns:
        The sums, and the ground truth that was read.

    Raises:
        UserError: a file that is missing or cannot be read, an image without prediction, sizes that
            differ, or segments that do not fit their PNG or have an unknown category.
    """
    for folder in (gt_dir, pred_dir):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; name the one that holds the PNG files")
    truth = read_panoptic_json(gt_json)
    found = read_panoptic_json(pred_json, truth=False)
    if not truth.annotations:
        raise UserError(f"{gt_json} has no images to evaluate; name another file by --gt-json")
    _refuse_missing(truth, found)
    quality = PanopticQuality(truth.isthing)
    compare = partial(_compare, truth=truth, gt_dir=gt_dir, found=found, pred_dir=pred_dir)
    images = list(truth.annotations)
    for counts in map_in_threads(compare, images, "panoptic quality"):
        quality.add(counts)
    return quality, truth


def read_png(annotation: Annotation, folder: Path, json: Path) -> np.ndarray:
    """(H, W) uint32 ids of an image's PNG.

    Raises:
        UserError: it is not there or cannot be read.
    """
    path = folder / annotation.file_name
    if not path.is_file():
        raise UserError(
            f"image {annotation.image_id} has no PNG: {path} is not there, which {json} names; "
            "put it there"
        )
    try:
        return read_segment_ids(path)
    except UserError as error:
        raise UserError(f"image {annotation.image_id}: {error}") from error


def refuse_troubles(
    annotation: Annotation, there: Iterable[int], json: PanopticJson, categories: Container[int]
) -> None:
    """Raise a UserError of the first thing wrong with an image's segments; ``there`` are the ids in
    its PNG."""
    for _, trouble in segment_problems(annotation.segments, there, categories):
        raise UserError(
            f"image {annotation.image_id} ({annotation.file_name}, listed in {json.path}): "
            f"{trouble}; write PNG and JSON from the same segments"
        )


def _compare(
    image_id: int | str, truth: PanopticJson, gt_dir: Path, found: PanopticJson, pred_dir: Path
) -> Counts:
    one, other = truth.annotations[image_id], found.annotations[image_id]
    true_ids = read_png(one, gt_dir, truth.path)
    found_ids = read_png(other, pred_dir, found.path)
    refuse_sizes(true_ids, found_ids, f"image {image_id} ({pred_dir / other.file_name})")
    shared = count_overlaps(true_ids, found_ids)
    refuse_troubles(one, {pair[0] for pair in shared}, truth, truth.categories)
    refuse_troubles(other, {pair[1] for pair in shared}, found, truth.categories)
    return count_shared(shared, one.segments, other.segments)


def refuse_sizes(truth: np.ndarray, predicted: np.ndarray, where: str) -> None:
    """Raise a UserError if two maps (H, W) are of different sizes."""
    if truth.shape != predicted.shape:
        (h, w), (ph, pw) = truth.shape, predicted.shape
        raise UserError(
            f"{where}: the prediction is {pw}x{ph} pixels and the ground truth {w}x{h}; "
            "predict at the image's own size"
        )


def _refuse_missing(truth: PanopticJson, found: PanopticJson) -> None:
    missing = [image for image in truth.annotations if image not in found.annotations]
    if not missing:
        return
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    alike = str(missing[0]) in map(str, found.annotations)
    kinds = "; its ids are of another type, text or number" if alike else ""
    raise UserError(
        f"{len(missing)} of {len(truth.annotations)} images have no prediction in {found.path}: "
        f"image {shown}{kinds}; add an entry for each, with no segments where nothing was found"
    )
