"""Detectron2's Visualizer, with one colour for each class and labels that can be read."""

import colorsys
from typing import Any

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer
from matplotlib.colors import to_rgb
from matplotlib.text import Text

OPACITY = 0.45
_SMALLEST_FONT = 12  # points; Detectron2 takes 0.6 to 1 of it, by the size of the object
_UNNAMED_CLASSES = 255  # as many as a label image can hold beside "ignore"
_MOST_PROPOSALS = 20
_LABELLED_PART = 0.01  # of the image
_NO_CLASS = "lime"
_MOST_HUES = 12  # that can be told apart
_TONES = ((1.0, 1.0), (0.55, 1.0), (1.0, 0.6))  # saturation and value


class ClassColorVisualizer(Visualizer):
    """Visualizer in which a class looks the same in every picture, annotated or predicted.

    Detectron2's own ``ColorMode.SEGMENTATION`` moves every colour by a random vector, and covers
    predictions more than annotations. Its labels are cut at the border of the picture and lie on
    each other; here they are moved.
    """

    def __init__(self, image: np.ndarray, metadata: Metadata, boxes: bool = True):
        """
        Args:
            image: (H, W, 3) RGB, uint8.
            metadata: with classes and colours, see :func:`class_metadata`.
            boxes: whether instances that have a mask get a box as well.
        """
        super().__init__(image, metadata, instance_mode=ColorMode.SEGMENTATION)
        self._default_font_size = max(self._default_font_size, _SMALLEST_FONT)
        self._boxes = boxes
        self._label_boxes: list = []

    def _jitter(self, color: Any) -> tuple[float, ...]:
        return tuple(color)

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        masks: Any = None,
        assigned_colors: Any = None,
        alpha: float = OPACITY,
        **others: Any,
    ) -> VisImage:
        """As Visualizer's, with holes left open, and of one opacity whatever ``alpha`` is."""
        if masks is not None and len(masks):
            masks = self._convert_masks(masks)
            assigned_colors = assigned_colors or [_NO_CLASS] * len(masks)
            fill = np.zeros((self.output.height, self.output.width, 4), np.float32)
            for i in sorted(range(len(masks)), key=lambda i: masks[i].area(), reverse=True):
                fill[masks[i].mask > 0] = (*to_rgb(assigned_colors[i]), OPACITY)
            extent = (0, self.output.width, self.output.height, 0)
            self.output.ax.imshow(fill, extent=extent, interpolation="nearest")
            boxes = boxes if self._boxes else None
        # Visualizer fills every contour, those of holes too: outlines are left to it.
        return super().overlay_instances(
            boxes=boxes, masks=masks, assigned_colors=assigned_colors, alpha=0.0, **others
        )

    def draw_text(self, text: str, position: tuple[float, float], **style: Any) -> VisImage:
        """As Visualizer's, in white, and moved into the picture and off the labels before it."""
        output = super().draw_text(text, position, **style | {"color": "white"})
        self._place(self.output.ax.texts[-1])
        return output

    def _draw_text_in_mask(self, binary_mask: np.ndarray, text: str, color: Any) -> None:
        """A label where each large part of the mask has most room; Detectron2's, at the median, may
        lie on another object."""
        _, parts, stats, _ = cv2.connectedComponentsWithStats(binary_mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        least = min(areas.max(initial=0), _LABELLED_PART * binary_mask.size)
        for part in np.flatnonzero(areas >= least) + 1:
            inside = np.pad((parts == part).astype(np.uint8), 1)  # the border is an edge as well
            room = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
            y, x = np.unravel_index(room.argmax(), room.shape)
            self.draw_text(text, (x, y - self._default_font_size / 2), color=color)

    def _place(self, label: Text) -> None:
        drawn = label.get_window_extent(self.output.canvas.get_renderer()).padded(1)
        frame = self.output.fig.bbox
        right = max(frame.x1 - drawn.width, frame.x0)
        top = max(frame.y1 - drawn.height, frame.y0)
        x, y = np.clip(drawn.x0, frame.x0, right), np.clip(drawn.y0, frame.y0, top)
        inside = drawn.translated(x - drawn.x0, y - drawn.y0)

        step = drawn.height / 2 + 1
        shifts = sorted((n * step for n in range(-6, 7)), key=abs)
        places = [inside.translated(0, dy) for dy in shifts]
        places = [b for b in places if b.y0 >= frame.y0 - 0.5 and b.y1 <= frame.y1 + 0.5] or [
            inside
        ]
        box = min(places, key=lambda b: b.count_overlaps(self._label_boxes))
        self._label_boxes.append(box)

        to_data = self.output.ax.transData
        anchor = to_data.transform(label.get_position())
        moved = anchor[0] + box.x0 - drawn.x0, anchor[1] + box.y0 - drawn.y0
        label.set_position(to_data.inverted().transform(moved))


def class_metadata(dataset_name: str) -> Metadata:
    """Metadata of a dataset, completed: colours for all classes, numbers for names it lacks, as of
    a dataset without a name."""
    known = MetadataCatalog.get(dataset_name).as_dict() if dataset_name else {}
    for kind in ("thing", "stuff"):
        count = len(known.get(f"{kind}_classes") or ()) or _UNNAMED_CLASSES
        if len(known.get(f"{kind}_colors") or ()) < count:
            known[f"{kind}_colors"] = [_spread_color(i, count) for i in range(count)]
    if not known.get("stuff_classes"):
        known["stuff_classes"] = [str(i) for i in range(_UNNAMED_CLASSES)]
    return Metadata(**known)


def _spread_color(index: int, count: int) -> list[int]:
    """RGB, 0 to 255: hues as far apart as ``count`` allows, in three tones where it is large."""
    saturation, value = _TONES[index % len(_TONES)] if count > _MOST_HUES else _TONES[0]
    return [round(255 * c) for c in colorsys.hsv_to_rgb(index / count, saturation, value)]


def draw_outputs(image: np.ndarray, outputs: dict[str, Any], metadata: Metadata) -> np.ndarray:
    """Draw what a model returned for one image.

    Args:
        image: (H, W, 3) RGB, uint8.
        outputs: of one image, on the CPU, at (H, W); drawn is the first that is there of
            ``panoptic_seg``, ``instances``, ``sem_seg`` and ``proposals``.
        metadata: see :func:`class_metadata`.

    Returns:
        (H, W, 3) RGB, uint8.

    Raises:
        ValueError: the outputs have none of these.
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
        boxes = outputs[kind].proposal_boxes[:_MOST_PROPOSALS]
        painter.overlay_instances(boxes=boxes, assigned_colors=[_NO_CLASS] * len(boxes))
    return painter.output.get_image()


def output_kind(outputs: dict[str, Any]) -> str:
    """The output that is drawn: the one that says most.

    Raises:
        ValueError: the outputs have none that can be drawn.
    """
    for kind in ("panoptic_seg", "instances", "sem_seg", "proposals"):
        if kind in outputs:
            return kind
    raise ValueError(f"nothing to draw among the outputs {sorted(outputs)}")
