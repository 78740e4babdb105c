"""The worst images of a run, drawn next to their ground truth."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from ccsa.analysis.detections.suspects import above, image_errors
from ccsa.analysis.run_metrics import read_json
from ccsa.data.image_reader import intensity_range, read_image
from ccsa.data.tasks import decode_mask
from ccsa.errors import UserError
from ccsa.evaluation.rle import is_mask
from ccsa.evaluation.semantic import PREDICTIONS
from ccsa.report.run_files import RunFiles
from ccsa.visualization.annotations import draw_annotations, draw_objects
from ccsa.visualization.painter import OPACITY, ClassColorVisualizer, class_metadata

WIDTH = 320  # pixels of a picture, at most
MOST = 24
_BYTES = 1_900_000  # of all pictures
_QUALITIES = (80, 65, 50, 35)  # of JPEG; the last one is used even if it is too large
_IGNORED = 255
Draw = Callable[[ClassColorVisualizer, T.Transform], None]


class Worst(NamedTuple):
    """An image with many errors.

    Attributes:
        record: of the dataset.
        text: how bad it is.
        draw: draws the prediction.
    """

    record: Mapping[str, Any]
    text: str
    draw: Draw


def worst_images(files: RunFiles, most: int = MOST) -> list[dict[str, Any]]:
    """Return the images with the most errors, the worst ones first.

    Returns:
        ``image`` (the name of the file), ``text``, and ``truth`` and ``prediction``, JPEG files as
        data addresses.
    """
    worst = _of_detections(files, most) if files.task else _of_labels(files, most)
    metadata = class_metadata(files.dataset)
    intensities = intensity_range(files.run.cfg.INPUT.get("INTENSITY_RANGE", "auto"))
    kind = "instances" if files.task else "sem_seg"
    found: list[dict[str, Any]] = []
    pictures: list[tuple[np.ndarray, np.ndarray]] = []
    for record, text, draw in worst:
        try:
            image = read_image(record["file_name"], intensity_range=intensities)
        except UserError:
            continue  # the data has changed since; the text of other sections still holds
        height, width = image.shape[:2]
        scale = min(WIDTH / width, WIDTH / height, 4.0)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        resize = T.ResizeTransform(height, width, *size, Image.Resampling.BICUBIC)
        shown = resize.apply_image(image)
        painter = ClassColorVisualizer(shown, metadata)
        draw(painter, resize)
        truth = draw_annotations(shown, record, metadata, resize, kind)
        pictures.append((truth, painter.output.get_image()))
        found.append({"image": str(record["file_name"]), "text": text})
    for quality in _QUALITIES:
        addresses = [[data_address(p, quality) for p in pair] for pair in pictures]
        if sum(len(a) for pair in addresses for a in pair) <= _BYTES * most / MOST:
            break
    pairs = [{"truth": one, "prediction": other} for one, other in addresses]
    return [entry | pair for entry, pair in zip(found, pairs, strict=True)]


def data_address(picture: np.ndarray, quality: int = 80) -> str:
    """Return RGB (H, W, 3) as a JPEG file in a data address."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _of_detections(files: RunFiles, most: int) -> list[Worst]:
    records = {record["image_id"]: record for record in files.records}
    matches = {m.image["id"]: m for m in files.matches}
    index = {number: i for i, number in enumerate(files.categories)}
    worst = []
    for errors in image_errors(files.matches, files.thresholds)[:most]:
        record, m = records.get(errors.image), matches[errors.image]
        if record is None or not (errors.wrong or errors.missed):
            continue
        kept = [
            {
                "bbox": result["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": index[result["category_id"]],
                **({"segmentation": result["segmentation"]} if "segmentation" in result else {}),
            }
            for result, keep in zip(m.found, above(m, files.thresholds), strict=True)
            if keep
        ]
        size = int(m.image["height"]), int(m.image["width"])
        text = f"F1 {errors.f1:.2f}: {errors.correct} correct, {errors.wrong} wrong, "
        worst.append(Worst(record, text + f"{errors.missed} missed", _objects_painter(kept, size)))
    return worst


def _objects_painter(entries: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Draw:
    return lambda painter, resize: draw_objects(painter, entries, resize, size)


def _of_labels(files: RunFiles, most: int) -> list[Worst]:
    counts = files.semantic
    correct, labelled, predicted = np.moveaxis(counts.pixels.astype(float), 1, 0)
    union = labelled + predicted - correct
    ious = np.divide(correct, union, out=np.full(union.shape, np.nan), where=labelled > 0)
    defined = (labelled > 0).any(1)
    means = np.where(defined, np.nansum(ious, 1) / np.maximum((labelled > 0).sum(1), 1), np.inf)
    order = [int(i) for i in np.argsort(means, kind="stable")[:most] if means[i] < 1]
    predictions = _label_entries(files)
    # The counts are in the order of the records that were evaluated.
    evaluated = [r for r in files.records if r["file_name"] in predictions]
    if len(evaluated) != len(means):
        return []
    worst = []
    for i in order:
        record = evaluated[i]
        draw = _labels_painter(files, predictions[record["file_name"]])
        worst.append(Worst(record, f"mean IoU of its classes {100 * means[i]:.1f}", draw))
    return worst


def _label_entries(files: RunFiles) -> dict[str, list[Mapping[str, Any]]]:
    """Return the predicted masks of the classes of each image."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    content = read_json(files.folder / PREDICTIONS)
    for entry in content if isinstance(content, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            found.setdefault(entry["file_name"], []).append(entry)
    return found


def _labels_painter(files: RunFiles, entries: Sequence[Mapping[str, Any]]) -> Draw:
    metadata = class_metadata(files.dataset)
    numbers = metadata.get("stuff_dataset_id_to_contiguous_id") or {}

    def draw(painter: ClassColorVisualizer, resize: T.ResizeTransform) -> None:
        size = resize.h, resize.w
        labels = np.full(size, _IGNORED, np.uint8)
        for entry in entries:
            mask, number = entry.get("segmentation"), entry.get("category_id")
            number = numbers.get(number, number) if isinstance(number, int) else -1
            if is_mask(mask, size) and 0 <= number < _IGNORED:
                labels[decode_mask(entry, size)] = number
        resized = resize.apply_segmentation(labels.astype(np.float32)).astype(np.int64)
        painter.draw_sem_seg(resized, alpha=OPACITY)

    return draw
