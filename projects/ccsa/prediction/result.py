"""The prediction of a model for one image."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from PIL import Image
from torch import Tensor

from ccsa.checkpoint import Classes
from ccsa.errors import UserError
from ccsa.prediction.coco_results import objects_to_coco, regions_to_coco
from ccsa.prediction.shrinking import shrunk_outputs, shrunk_size
from ccsa.utils.images import write_image
from ccsa.visualization.painter import draw_outputs


class Panoptic(NamedTuple):
    """A panoptic segmentation.

    Attributes:
        ids: (H, W), int32; the id of the segment of each pixel, 0 where there is none.
        segments: one dict for each segment, in Detectron2's format: ``id``, ``isthing``, and
            ``category_id``, an index into the classes of objects if ``isthing``, else into those of
            pixels.
    """

    ids: Tensor
    segments: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model predicts for one image. All tensors are on the CPU.

    Attributes:
        image: the image, RGB of shape (H, W, 3), uint8; of a clip, its labeled frame.
        size: (height, width) of the prediction in pixels, by default that of the image.
        outputs: what the model returned, under Detectron2's names, e.g. ``sem_seg`` with the scores
            of all classes (K, H, W).
        names: the names of the classes of objects and of pixels.
        metadata: names and colors, for drawing.
        category_ids: the COCO id of each class of :attr:`classes`.

    Example:
        >>> found = predictor("photo.jpg")  # doctest: +SKIP
        >>> [found.classes[i] for i in found.instances.pred_classes]  # doctest: +SKIP
        ['nucleus', 'nucleus']
    """

    image: np.ndarray
    size: tuple[int, int]
    outputs: dict[str, Any] = field(repr=False)
    names: Classes
    metadata: Metadata = field(repr=False)
    category_ids: list[int]

    @property
    def instances(self) -> Instances | None:
        """The detected objects: ``pred_boxes`` (corners in pixels), ``scores``, ``pred_classes``
        (indices into :attr:`classes`) and, of a model with masks, ``pred_masks``, which are indexed
        like a boolean tensor (N, H, W). None if the model detects no objects."""
        return self.outputs.get("instances")

    @cached_property
    def semantic(self) -> Tensor | None:
        """The class of each pixel (H, W), int64: indices into :attr:`stuff_classes`. None if the
        model does not classify pixels."""
        scores = self.outputs.get("sem_seg")
        return None if scores is None else scores.argmax(dim=0)

    @property
    def panoptic(self) -> Panoptic | None:
        """The panoptic segmentation; None if the model has none."""
        found = self.outputs.get("panoptic_seg")
        return None if found is None else Panoptic(*found)

    @property
    def classes(self) -> list[str]:
        """The names of the classes of objects; of a model that detects none, those of pixels."""
        return self.names.things or self.names.stuff

    @property
    def stuff_classes(self) -> list[str]:
        """The names of the classes of pixels; empty if the model does not classify pixels."""
        return self.names.stuff

    def draw(self, *, longest: int = 0) -> np.ndarray:
        """Return the image with the prediction drawn on it: RGB of shape (H, W, 3), uint8.

        The panoptic segmentation is drawn, or else the objects, or else the class of each pixel.

        Args:
            longest: the largest side of the picture in pixels; 0 for the size of the prediction,
                :attr:`size`. Drawing the objects of a large image at its own size takes much
                memory.

        Raises:
            UserError: the model returns nothing that can be drawn.
        """
        image, outputs, size = self.image, self.outputs, self.size
        if longest and max(size) > longest:
            size = shrunk_size(self.size, longest)
            outputs = shrunk_outputs(outputs, self.size, size)
        if image.shape[:2] != size:
            resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
            image = np.asarray(resized)
        return draw_outputs(image, outputs, self.metadata)

    def save(self, file: str | Path) -> None:
        """Write the drawing to an image file, which is complete or absent.

        Raises:
            UserError: the file cannot be written.
        """
        write_image(Path(file), self.draw())

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Return the prediction as COCO dicts.

        Each dict is both a result (``score``) and an annotation (``area``, ``iscrowd``) of COCO. A
        model with objects gives one for each object, and a semantic model one for each class that
        occurs, without a score. Objects whose mask has no pixel are left out.

        Args:
            image_id: the id of the image in the COCO file.

        Returns:
            Dicts with ``image_id``, ``category_id`` (see :attr:`category_ids`), ``bbox``
            ([x, y, width, height] in pixels), ``area``, ``iscrowd``; with ``score`` if there is
            one, and with ``segmentation`` (compressed RLE as text) if there are masks.

        Raises:
            UserError: the model has neither objects nor classes of pixels, or the prediction is not
                of the size of the image.
        """
        if self.image.shape[:2] != self.size:
            raise UserError(
                f"a prediction of {self.size[1]} x {self.size[0]} pixels for an image of "
                f"{self.image.shape[1]} x {self.image.shape[0]} cannot be written as COCO; predict "
                "without size"
            )
        if self.instances is not None:
            return objects_to_coco(self.instances, self.category_ids, image_id)
        if self.semantic is not None:
            return regions_to_coco(self.semantic, self.category_ids, image_id)
        raise UserError(
            f"the model returns {', '.join(sorted(self.outputs))}, and COCO's format needs objects "
            "or classes of pixels; use a model that has them"
        )
