"""Detectron2's Visualizer with one fixed color for each class and legible labels.

Deviations from Detectron2:

* ``ColorMode.SEGMENTATION`` moves every color by a random vector, and predictions are more opaque
  than annotations. Here a class has the same color and opacity in every picture.
* Labels are not cut off at the border of the picture, and overlap only if there is no room.
* Holes of masks stay open.
* In crowded images, and with several objects of the only class, every object has its own color.
"""

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import ColorMode, GenericMask, VisImage, Visualizer
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from ccsa.errors import UserError
from ccsa.visualization.object_colors import CROWDED, object_colors

OPACITY = 0.45
_MIN_FONT_SIZE = 12  # points; Detectron2 multiplies it by 0.6 to 1, depending on the object's size
_UNNAMED_CLASSES = 255  # the number of labels in an 8-bit image, without "ignore"
_MAX_PROPOSALS = 20
_MIN_LABELED_AREA = 0.01  # smaller parts of a mask get no label; as a share of the image
_FEW = 3  # objects of the only class that are labeled one by one
_SMALLEST_LABEL = 0.5  # share of the usual font size, in crowded images
_NO_CLASS_COLOR = "lime"
_MAX_HUES = 12  # that can be distinguished
_TONES = ((1.0, 1.0), (0.55, 1.0), (1.0, 0.6))  # saturation and value
_OUTPUT_KINDS = ("panoptic_seg", "instances", "sem_seg", "proposals")  # the richest one first


class ClassColorVisualizer(Visualizer):
    """Visualizer in which a class looks the same in every picture, annotated or predicted, and the
    objects of a crowded picture look different.

    Args:
        image: RGB of shape (H, W, 3), uint8.
        metadata: classes and colors, see :func:`class_metadata`.
        boxes: draw the boxes of instances that have a mask as well.
    """

    _default_font_size: float

    def __init__(self, image: np.ndarray, metadata: Metadata, boxes: bool = True):
        super().__init__(image, metadata, instance_mode=ColorMode.SEGMENTATION)
        self._default_font_size = max(self._default_font_size, _MIN_FONT_SIZE)
        self._boxes = boxes
        self._label_boxes: list = []
        self._font_scale = 1.0  # below 1 in crowded images

    def _jitter(self, color: Any) -> tuple[float, ...]:
        """Return the color unchanged."""
        return tuple(color)

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        assigned_colors: Any = None,
        alpha: float = OPACITY,
        **others: Any,
    ) -> VisImage:
        """Draw instances like Visualizer, but keep holes open and always use the same opacity.

        In crowded images, and in images with several objects of the only class, every object has
        its own color, and labels shrink or give way. An entry of ``masks`` may be None: that object
        only has a box.
        """
        boxes = self._convert_boxes(boxes) if boxes is not None else None
        masks = self._generic_masks(masks)
        count = len(masks) if masks is not None else len(boxes) if boxes is not None else 0
        if not count:
            return self.output
        colors = list(assigned_colors or [_NO_CLASS_COLOR] * count)
        only_class = len(self.metadata.get("thing_classes") or ()) == 1
        crowded = count > CROWDED
        if count > 1 and (crowded or (only_class and assigned_colors)):
            colors = object_colors(colors, _centers(boxes, masks))
        boxes_too = self._boxes and not crowded and not (only_class and count > _FEW)
        if only_class and count > _FEW and labels is not None:
            self._draw_caption(f"{count} x {self.metadata.thing_classes[0]}")
            labels = None
        elif crowded and labels is not None:
            labels = [_without_score(label) for label in labels]
        self._font_scale = max(_SMALLEST_LABEL, (CROWDED / count) ** 0.5) if crowded else 1.0
        if masks is not None:
            self._fill(masks, colors)
        with_mask = [i for i in range(count) if masks is not None and masks[i] is not None]
        box_only = [i for i in range(count) if i not in set(with_mask)]
        # Visualizer fills all contours, including those of holes. Here it draws the outlines only.
        for chosen in (with_mask, box_only):
            if not chosen:
                continue
            drawn = chosen is box_only or boxes_too
            super().overlay_instances(
                boxes=boxes[chosen] if boxes is not None and drawn else None,
                labels=None if labels is None else [labels[i] for i in chosen],
                masks=None if chosen is box_only else [masks[i] for i in chosen],
                assigned_colors=[colors[i] for i in chosen],
                alpha=0.0,
                **others,
            )
        self._font_scale = 1.0
        return self.output

    def _generic_masks(self, masks: Any) -> list[GenericMask | None] | None:
        """Return masks of any form that Visualizer accepts; None for an object without one."""
        if masks is None:
            return None
        if not isinstance(masks, list):
            return self._convert_masks(masks)
        return [None if mask is None else self._convert_masks([mask])[0] for mask in masks]

    def _fill(self, masks: Sequence[GenericMask | None], colors: Sequence[Any]) -> None:
        """Fill masks, smaller ones on top."""
        fill = np.zeros((self.output.height, self.output.width, 4), np.float32)
        pairs = [(mask, color) for mask, color in zip(masks, colors, strict=True) if mask]
        for mask, color in sorted(pairs, key=lambda pair: pair[0].area(), reverse=True):
            fill[mask.mask > 0] = (*to_rgb(color), OPACITY)
        extent = (0, self.output.width, self.output.height, 0)
        self.output.ax.imshow(fill, extent=extent, interpolation="nearest")

    def _draw_caption(self, text: str) -> None:
        """Draw one label for the whole picture into its corner."""
        self.draw_text(text, (2, 2), horizontal_alignment="left")

    def draw_text(self, text: str, position: tuple[float, float], **style: Any) -> VisImage:
        """Draw text like Visualizer, but white, inside the picture and away from other labels.

        In crowded images it is smaller, and it is left out if there is no room.
        """
        size = (style.get("font_size") or self._default_font_size) * self._font_scale
        super().draw_text(text, position, **style | {"color": "white", "font_size": size})
        self._move_label(self.output.ax.texts[-1])
        if self._font_scale < 1 and self._label_boxes[-1].count_overlaps(self._label_boxes[:-1]):
            self.output.ax.texts[-1].remove()
            self._label_boxes.pop()
        return self.output

    def _draw_text_in_mask(self, binary_mask: np.ndarray, text: str, color: Any) -> None:
        """Draw a label at the widest location of each large part of a mask.

        Detectron2 draws it at the median, which may be on another object.
        """
        _, parts, stats, _ = cv2.connectedComponentsWithStats(binary_mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        smallest = min(areas.max(initial=0), _MIN_LABELED_AREA * binary_mask.size)
        for part in np.flatnonzero(areas >= smallest) + 1:
            inside = np.pad((parts == part).astype(np.uint8), 1)  # the border is an edge too
            distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
            y, x = np.unravel_index(distance.argmax(), distance.shape)
            self.draw_text(text, (float(x), float(y) - self._default_font_size / 2), color=color)

    def _move_label(self, label: Text) -> None:
        """Move a label into the picture, and up or down to where it covers other labels least."""
        drawn = label.get_window_extent(self.output.canvas.get_renderer()).padded(1)
        frame = self.output.fig.bbox
        right = max(frame.x1 - drawn.width, frame.x0)
        top = max(frame.y1 - drawn.height, frame.y0)
        x, y = np.clip(drawn.x0, frame.x0, right), np.clip(drawn.y0, frame.y0, top)
        inside = drawn.translated(x - drawn.x0, y - drawn.y0)

        step = drawn.height / 2 + 1
        shifts = sorted((n * step for n in range(-6, 7)), key=abs)
        candidates = [inside.translated(0, dy) for dy in shifts]
        candidates = [
            b for b in candidates if b.y0 >= frame.y0 - 0.5 and b.y1 <= frame.y1 + 0.5
        ] or [inside]
        box = min(candidates, key=lambda b: b.count_overlaps(self._label_boxes))
        self._label_boxes.append(box)

        to_data = self.output.ax.transData
        anchor = to_data.transform(label.get_position())
        moved = anchor[0] + box.x0 - drawn.x0, anchor[1] + box.y0 - drawn.y0
        label.set_position(to_data.inverted().transform(moved))


def _centers(boxes: np.ndarray | None, masks: Sequence[GenericMask | None] | None) -> np.ndarray:
    """Return the centers (N, 2) of objects, of their boxes or else of their masks."""
    if boxes is not None:
        return boxes[:, :2] if boxes.shape[1] == 5 else (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.array([_center(mask) for mask in masks or ()])


def _center(mask: GenericMask | None) -> np.ndarray:
    """Return the center of the box of a mask. Masks of few pixels have no polygons, from which
    ``GenericMask.bbox`` computes it."""
    if mask is None or not mask.mask.any():
        return np.zeros(2)
    rows, columns = np.nonzero(mask.mask)
    return np.array([columns.min() + columns.max() + 1, rows.min() + rows.max() + 1]) / 2


def _without_score(label: str) -> str:
    """Return a label without the score at its end."""
    name, _, score = label.rpartition(" ")
    return name if score.endswith("%") and name else label


def class_metadata(dataset_name: str) -> Metadata:
    """Return the metadata of a dataset with a color for every class and a name for every label.

    Colors that are missing are spread over the hues. Labels without a name are named by their
    number, e.g. for an unregistered dataset (``dataset_name=""``).

    Example:
        >>> metadata = class_metadata("")
        >>> metadata.stuff_classes[:3], len(metadata.stuff_colors)
        (['0', '1', '2'], 255)
    """
    return fill_metadata(MetadataCatalog.get(dataset_name).as_dict() if dataset_name else {})


def fill_metadata(known: dict[str, Any]) -> Metadata:
    """Return metadata with the given entries, and with the colors and names that are missing; see
    :func:`class_metadata`."""
    for kind in ("thing", "stuff"):
        count = len(known.get(f"{kind}_classes") or ()) or _UNNAMED_CLASSES
        if len(known.get(f"{kind}_colors") or ()) < count:
            known[f"{kind}_colors"] = [_spread_color(i, count) for i in range(count)]
    if not known.get("stuff_classes"):
        known["stuff_classes"] = [str(i) for i in range(_UNNAMED_CLASSES)]
    return Metadata(**known)


def _spread_color(index: int, count: int) -> list[int]:
    """Return one of ``count`` colors as RGB from 0 to 255.

    Hues are as different as ``count`` allows; three tones are used if there are many classes.
    """
    saturation, value = _TONES[index % len(_TONES)] if count > _MAX_HUES else _TONES[0]
    return [round(255 * c) for c in colorsys.hsv_to_rgb(index / count, saturation, value)]


def draw_outputs(image: np.ndarray, outputs: dict[str, Any], metadata: Metadata) -> np.ndarray:
    """Draw the outputs of a model for one image.

    Args:
        image: RGB of shape (H, W, 3), uint8.
        outputs: the outputs for this image, on the CPU and of size (H, W). The first existing one
            of ``panoptic_seg``, ``instances``, ``sem_seg`` and ``proposals`` is drawn.
        metadata: classes and colors, see :func:`class_metadata`.

    Returns:
        RGB of shape (H, W, 3), uint8.

    Raises:
        UserError: the outputs contain none of these.
    """
    painter = ClassColorVisualizer(image, metadata)
    kind = output_kind(outputs)
    if kind == "panoptic_seg":
        painter.draw_panoptic_seg_predictions(*outputs[kind], alpha=OPACITY)
    elif kind == "instances":
        painter.draw_instance_predictions(outputs[kind])
    elif kind == "sem_seg":
        painter.draw_sem_seg(outputs[kind].argmax(dim=0), alpha=OPACITY)
    else:
        boxes = outputs[kind].proposal_boxes[:_MAX_PROPOSALS]
        painter.overlay_instances(boxes=boxes, assigned_colors=[_NO_CLASS_COLOR] * len(boxes))
    return painter.output.get_image()


def output_kind(outputs: dict[str, Any]) -> str:
    """Return the name of the output that is drawn: the one with the most information.

    Raises:
        UserError: the outputs contain none that can be drawn.

    Example:
        >>> output_kind({"sem_seg": None, "instances": None})
        'instances'
    """
    for kind in _OUTPUT_KINDS:
        if kind in outputs:
            return kind
    raise UserError(
        f"the model's outputs are {', '.join(sorted(outputs)) or 'empty'}, and none of them can be "
        f"drawn; drawing needs one of {', '.join(_OUTPUT_KINDS)}"
    )
