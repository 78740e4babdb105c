"""A grid of images with their annotations as they were understood."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from PIL import Image, ImageDraw, ImageFont

from ccsa.data.image_reader import intensity_percentiles, open_image, read_image
from ccsa.data.tasks import has_label
from ccsa.errors import UserError
from ccsa.utils.images import write_image
from ccsa.visualization.annotations import draw_annotations
from ccsa.visualization.painter import fill_metadata

COUNT = 12
PANEL, GAP, HEADING = 420, 8, 24  # pixels
_ENLARGED = 6  # times, at most
_FEW = 4  # images that are drawn twice as large


def draw_preview(
    path: str | Path,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    things: Sequence[str] = (),
    stuff: Sequence[str] = (),
    count: int = COUNT,
) -> Path:
    """Write a grid of images with their annotations, taken at equal distances from every split.

    Images or annotations that cannot be drawn are shown as a message in their cell.

    Args:
        path: the picture; its suffix selects the format.
        splits: Detectron2's standard dicts by the name of the split.
        things: names of the classes of objects.
        stuff: names of the classes of pixels.
        count: the number of images at most.

    Returns:
        The path of the picture.

    Raises:
        UserError: there are no images, or the picture cannot be written.
    """
    chosen = [(name, record) for name, records in splits.items() for record in records]
    if not chosen:
        raise UserError("the data has no images to draw; the table lists the reasons")
    step = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    known = {"thing_classes": list(things)} if things else {}
    known |= {"stuff_classes": list(stuff)} if stuff else {}
    metadata = fill_metadata(known)
    panel = PANEL if len(step) > _FEW else 2 * PANEL
    cells = []
    for name, record in (chosen[i] for i in step):
        title = f"{name}: {Path(str(record.get('file_name'))).name}"
        cells.append((title, _cell(record, metadata, panel)))
    write_image(Path(path), _grid(cells))
    return Path(path)


def _cell(record: Mapping[str, Any], metadata: Metadata, panel: int) -> np.ndarray:
    """Return the drawing of one record, or the reason why it cannot be drawn."""
    try:
        file = record["file_name"]
        _, deep = open_image(file)
        image = read_image(file, intensity_range=None if deep is None else _range(file))
        height, width = image.shape[:2]
        scale = min(panel / max(height, width), _ENLARGED)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        resize = T.ResizeTransform(height, width, *size, Image.Resampling.BICUBIC)
        return draw_annotations(resize.apply_image(image), record, metadata, resize, _kind(record))
    except Exception as error:  # whatever a damaged record causes; the table names it
        return _message(" ".join(f"cannot be drawn: {error}".split()))


def _range(file: str) -> Sequence[float] | None:
    return intensity_percentiles([file])


def _kind(record: Mapping[str, Any]) -> str:
    """Return the kind of prediction that the annotations of a record correspond to."""
    if "pan_seg_file_name" in record or "things" in record.get("labels", ()):
        return "panoptic_seg"
    return "sem_seg" if has_label(record) and not record.get("annotations") else "instances"


def _message(text: str) -> np.ndarray:
    canvas = Image.new("RGB", (PANEL, PANEL // 2), (90, 90, 90))
    lines = [text[i : i + 56] for i in range(0, min(len(text), 448), 56)]
    ImageDraw.Draw(canvas).multiline_text((8, 8), "\n".join(lines), "white")
    return np.asarray(canvas)


def _grid(cells: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Arrange pictures (H, W, 3) below their titles on white, about as high as wide."""
    columns = math.ceil(math.sqrt(len(cells)))
    rows = math.ceil(len(cells) / columns)
    width = max(picture.shape[1] for _, picture in cells) + GAP
    heights = [
        max(picture.shape[0] for _, picture in cells[row * columns : (row + 1) * columns])
        for row in range(rows)
    ]
    total = sum(heights) + rows * (HEADING + GAP)
    canvas = Image.new("RGB", (columns * width + GAP, total), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    y = 0
    for row in range(rows):
        for column, (title, picture) in enumerate(cells[row * columns : (row + 1) * columns]):
            x = GAP + column * width
            shown = title
            while len(shown) > 8 and draw.textlength(shown, font) > width - GAP:
                shown = shown[: len(shown) // 2 - 2] + "..." + shown[len(shown) // 2 + 2 :]
            draw.text((x, y + HEADING / 2), shown, "black", font, anchor="lm")
            canvas.paste(Image.fromarray(picture), (x, y + HEADING))
        y += heights[row] + HEADING + GAP
    return np.asarray(canvas)
