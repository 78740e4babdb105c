"""Panoptic quality of result files in COCO's panoptic format, from any program."""

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
from ccsa.evaluation.panoptic_quality import Counts, PanopticQuality, count_matches, count_overlaps
from ccsa.utils.files import inside
from ccsa.utils.threads import map_in_threads


def evaluate_files(
    gt_json: Path, gt_dir: Path, pred_json: Path, pred_dir: Path
) -> tuple[PanopticQuality, PanopticJson]:
    """Compare predictions with the ground truth, in threads and with a progress bar.

    Predicted images that the ground truth does not contain are ignored, as in panopticapi.

    Args:
        gt_json: the ground truth with ``annotations`` and ``categories``.
        gt_dir: the folder of its PNGs.
        pred_json: the predictions with ``annotations``.
        pred_dir: the folder of their PNGs.

    Returns:
        The accumulated counts and the ground truth that was read.

    Raises:
        UserError: a file is missing or cannot be read, an image has no prediction, sizes differ,
            segments do not correspond to their PNG, or a category is unknown.

    Example:
        >>> quality, truth = evaluate_files(
        ...     Path("panoptic_val2017.json"), Path("panoptic_val2017"),
        ...     Path("predictions.json"), Path("predictions"),
        ... )  # doctest: +SKIP
        >>> quality.results()["All"]["pq"]  # doctest: +SKIP
    """
    for folder in (gt_dir, pred_dir):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; name the folder of the PNG files")
    truth = read_panoptic_json(gt_json)
    predictions = read_panoptic_json(pred_json, truth=False)
    if not truth.annotations:
        raise UserError(f"{gt_json} has no images to evaluate; name another file with --gt-json")
    _check_all_predicted(truth, predictions)
    quality = PanopticQuality(truth.isthing)
    compare = partial(
        _compare_image, truth=truth, gt_dir=gt_dir, predictions=predictions, pred_dir=pred_dir
    )
    images = list(truth.annotations)
    for counts in map_in_threads(compare, images, "panoptic quality"):
        quality.add(counts)
    return quality, truth


def read_annotation_ids(annotation: Annotation, folder: Path, json: Path) -> np.ndarray:
    """Return the segment ids in the PNG of an annotation, uint32 of shape (H, W).

    Args:
        annotation: an annotation of one image.
        folder: the folder of its PNG.
        json: the file with the annotation, for error messages.

    Raises:
        UserError: the PNG is missing or cannot be read.
    """
    try:
        path = inside(folder, annotation.file_name)
    except UserError as error:
        raise UserError(f"image {annotation.image_id} of {json}: {error}") from error
    if not path.is_file():
        raise UserError(
            f"image {annotation.image_id} has no PNG: {path} does not exist, but {json} names it; "
            "add the file"
        )
    try:
        return read_segment_ids(path)
    except UserError as error:
        raise UserError(f"image {annotation.image_id}: {error}") from error


def check_segments(
    annotation: Annotation, ids: Iterable[int], json: PanopticJson, categories: Container[int]
) -> None:
    """Check that the segments of an image correspond to the ids in its PNG.

    Args:
        annotation: the annotation with the segments.
        ids: the ids that occur in the PNG.
        json: the file with the annotation, for error messages.
        categories: the known categories.

    Raises:
        UserError: the first problem.
    """
    for _, problem in segment_problems(annotation.segments, ids, categories):
        raise UserError(
            f"image {annotation.image_id} ({annotation.file_name}, listed in {json.path}): "
            f"{problem}; write PNG and JSON from the same segments"
        )


def check_sizes(truth: np.ndarray, predicted: np.ndarray, image: str) -> None:
    """Check that the ids of ground truth and prediction have the same size.

    Args:
        truth, predicted: segment ids of shape (H, W).
        image: the name of the image in the message.

    Raises:
        UserError: they have different sizes.
    """
    if truth.shape != predicted.shape:
        (h, w), (ph, pw) = truth.shape, predicted.shape
        raise UserError(
            f"{image}: the prediction is {pw}x{ph} pixels and the ground truth {w}x{h}; "
            "predict at the size of the image"
        )


def _compare_image(
    image_id: int | str,
    truth: PanopticJson,
    gt_dir: Path,
    predictions: PanopticJson,
    pred_dir: Path,
) -> Counts:
    one, other = truth.annotations[image_id], predictions.annotations[image_id]
    true_ids = read_annotation_ids(one, gt_dir, truth.path)
    predicted_ids = read_annotation_ids(other, pred_dir, predictions.path)
    check_sizes(true_ids, predicted_ids, f"image {image_id} ({pred_dir / other.file_name})")
    overlaps = count_overlaps(true_ids, predicted_ids)
    check_segments(one, {pair[0] for pair in overlaps}, truth, truth.categories)
    check_segments(other, {pair[1] for pair in overlaps}, predictions, truth.categories)
    return count_matches(overlaps, one.segments, other.segments)


def _check_all_predicted(truth: PanopticJson, predictions: PanopticJson) -> None:
    missing = [image for image in truth.annotations if image not in predictions.annotations]
    if not missing:
        return
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    other_type = str(missing[0]) in map(str, predictions.annotations)
    hint = "; its ids have another type, text or number" if other_type else ""
    raise UserError(
        f"{len(missing)} of {len(truth.annotations)} images have no prediction in "
        f"{predictions.path}: image {shown}{hint}; add an entry for each image, without segments "
        "if nothing was detected"
    )
