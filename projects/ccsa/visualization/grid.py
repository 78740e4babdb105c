"""The picture at the end of a run: predictions next to the ground truth."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from ccsa.data.image_reader import Range, intensity_range, read_image
from ccsa.data.loaders import load_records
from ccsa.errors import UserError
from ccsa.inference import build_inference
from ccsa.inference.predictor import ModelPredictor
from ccsa.utils.images import write_image
from ccsa.visualization.annotations import draw_annotations
from ccsa.visualization.painter import class_metadata, draw_outputs, output_kind

SCORE_THRESHOLD = 0.5
HEADINGS = ("ground truth", "prediction")
PANEL = 400  # the longer side of a panel in pixels; twice as long if there is only one image
GAP, HEADING_HEIGHT = 8, 34  # pixels
_ASPECT_RATIO = 1.5  # the desired width / height of the grid

Pair = tuple[np.ndarray, np.ndarray]


def draw_predictions(
    cfg: CfgNode, model: nn.Module, dataset_name: str, path: str | Path, count: int = 6
) -> Path:
    """Write a picture of predictions next to the ground truth, for images of a dataset.

    Args:
        cfg: a configuration; it defines how images are prepared (``INPUT``) and the precision
            (``SOLVER.AMP``).
        model: a model with instances, a panoptic or a semantic segmentation as output, on its
            device. Its mode is left as it was.
        dataset_name: a registered dataset; images are chosen at equal distances.
        path: the picture, which is complete or absent.
        count: the number of images at most.

    Returns:
        The path of the picture.

    Raises:
        UserError: the dataset has no images, a file cannot be read, or the picture cannot be
            written.

    Example:
        >>> draw_predictions(cfg, model, "digits_val", "predictions.jpg")  # doctest: +SKIP
    """
    records = load_records(cfg, dataset_name)
    if not records:
        raise UserError(f"dataset '{dataset_name}' has no images to draw; check its annotations")
    metadata = class_metadata(dataset_name)
    predictor = ModelPredictor(cfg, build_inference(cfg, model))
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    intensities = intensity_range(cfg.INPUT.INTENSITY_RANGE)
    panel = PANEL if len(chosen) > 1 else 2 * PANEL
    pairs = [_draw_pair(predictor, records[i], metadata, intensities, panel) for i in chosen]
    write_image(Path(path), arrange(pairs))
    return Path(path)


def _draw_pair(
    predictor: ModelPredictor,
    record: Mapping[str, Any],
    metadata: Metadata,
    intensities: Range | None,
    panel: int,
) -> Pair:
    """Return the drawings of ground truth and prediction, with a longer side of ``panel`` pixels.

    Both are drawn at the size of the panel, so that they are sharp for small images too.
    """
    image = read_image(record["file_name"], intensity_range=intensities)
    height, width = image.shape[:2]
    scale = panel / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    resize = T.ResizeTransform(height, width, *size, Image.Resampling.BICUBIC)
    outputs = predictor(_read_input(record, image, intensities), size)
    if "instances" in outputs and outputs["instances"].has("scores"):
        instances = outputs["instances"]
        outputs["instances"] = instances[instances.scores >= SCORE_THRESHOLD]
    shown = resize.apply_image(image)
    truth = draw_annotations(shown, record, metadata, resize, output_kind(outputs))
    return truth, draw_outputs(shown, outputs, metadata)


def _read_input(
    record: Mapping[str, Any], image: np.ndarray, intensities: Range | None
) -> np.ndarray:
    """Return the image (H, W, 3) of a record, or its clip (T, H, W, 3)."""
    if "clip_file_names" not in record:
        return image
    files = record["clip_file_names"]
    return np.stack([read_image(file, intensity_range=intensities) for file in files])


def arrange(pairs: list[Pair]) -> np.ndarray:
    """Arrange pairs of panels (H, W, 3) in a landscape grid on white, below headings."""
    width = max(panel.shape[1] for pair in pairs for panel in pair)
    height = max(panel.shape[0] for pair in pairs for panel in pair)
    columns = min(
        range(1, len(pairs) + 1),
        key=lambda n: abs(
            math.log(2 * width * n / (height * math.ceil(len(pairs) / n) * _ASPECT_RATIO))
        ),
    )
    pair_width, row_height = 2 * width + 4 * GAP, height + GAP
    rows = math.ceil(len(pairs) / columns)
    canvas = Image.new(
        "RGB", (columns * pair_width - GAP, HEADING_HEIGHT + rows * row_height), "white"
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(20)
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        for side, panel in enumerate(pair):
            x = GAP + column * pair_width + side * (width + GAP)
            y = HEADING_HEIGHT + row * row_height
            if row == 0:
                middle = (x + width / 2, HEADING_HEIGHT / 2)
                draw.text(middle, HEADINGS[side], fill="black", font=font, anchor="mm")
            free_x, free_y = width - panel.shape[1], height - panel.shape[0]
            canvas.paste(Image.fromarray(panel), (x + free_x // 2, y + free_y // 2))
    return np.asarray(canvas)
