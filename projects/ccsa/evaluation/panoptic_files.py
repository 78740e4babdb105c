"""Panoptic quality of result files in COCO's format, of any program."""

import difflib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.panoptic import (
    Annotation,
    PanopticJson,
    Segment,
    read_panoptic_json,
    read_segment_ids,
    segment_troubles,
)
from ccsa.data.semantic.files import in_threads
from ccsa.errors import UserError
from ccsa.evaluation.panoptic_quality import Counts, PanopticQuality, count_image


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
    found = read_panoptic_json(pred_json, needs_categories=False)
    if not truth.annotations:
        raise UserError(f"{gt_json} has no images to evaluate; name another file by --gt-json")
    _refuse_missing(truth, found)
    quality = PanopticQuality(truth.isthing)
    compare = partial(_compare, truth=truth, gt_dir=gt_dir, found=found, pred_dir=pred_dir)
    images = list(truth.annotations)
    for counts in in_threads(compare, images, "panoptic quality"):
        quality.add(counts)
    return quality, truth


def read_annotated(annotation: Annotation, folder: Path, categories: Any, json: Path) -> np.ndarray:
    """(H, W) uint32 ids of an image's PNG, which fit its segments.

    Raises:
        UserError: as :func:`evaluate_files`; image and segment are named.
    """
    path = folder / annotation.file_name
    if not path.is_file():
        raise UserError(
            f"image {annotation.image_id} has no PNG: {path} is not there, which {json} names; "
            "put it there"
        )
    ids = read_segment_ids(path)
    where = f"image {annotation.image_id} ({path}, listed in {json})"
    cure = "write PNG and JSON from the same segments"
    refuse_troubles(ids, annotation.segments, categories, where, cure)
    return ids


def refuse_troubles(
    ids: np.ndarray,
    segments: Iterable[Segment],
    categories: Any,
    where: str,
    cure: str,
    names: tuple[str, str] = ("JSON", "PNG"),
) -> None:
    """Raise a UserError of the first thing wrong with segments and their map (H, W)."""
    for _, trouble in segment_troubles(segments, np.unique(ids).tolist(), categories, names):
        raise UserError(f"{where}: {trouble}; {cure}")


def _compare(
    image_id: int | str, truth: PanopticJson, gt_dir: Path, found: PanopticJson, pred_dir: Path
) -> Counts:
    one, other = truth.annotations[image_id], found.annotations[image_id]
    true_ids = read_annotated(one, gt_dir, truth.categories, truth.path)
    found_ids = read_annotated(other, pred_dir, truth.categories, found.path)
    refuse_sizes(true_ids, found_ids, f"image {image_id} ({pred_dir / other.file_name})")
    return count_image(true_ids, one.segments, found_ids, other.segments)


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
    alike = difflib.get_close_matches(str(missing[0]), map(str, found.annotations), 1, 0.999)
    kinds = "; its ids are of another type, text or number" if alike else ""
    raise UserError(
        f"{len(missing)} of {len(truth.annotations)} images have no prediction in {found.path}: "
        f"image {shown}{kinds}; add an entry for each, with no segments where nothing was found"
    )
