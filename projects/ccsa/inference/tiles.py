"""Applying any model to tiles of large images.

One mechanism serves all models. Class scores are averaged where tiles overlap
(:class:`ScoreCanvas`, also used by :class:`SlidingWindow`), and objects are merged across seams by
the overlap of their masks (:mod:`ccsa.inference.tile_merging`). A panoptic segmentation is combined
from both for the whole image.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import PanopticFPN
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ccsa.data.tile_grid import Area, tile_areas
from ccsa.errors import UserError, shown
from ccsa.inference.tile_masks import TileMasks
from ccsa.inference.tile_merging import Found, found_in_tile, merge

logger = logging.getLogger(__name__)


def check_tiles(tile: Sequence[int], overlap: Sequence[int]) -> None:
    """Check the size and overlap of tiles.

    Raises:
        UserError: they are not pairs of integers, or tiles overlap by their whole size or more.
    """
    for name, pair, least in (("SIZE", tile, 1), ("OVERLAP", overlap, 0)):
        if len(pair) != 2 or not all(isinstance(n, int) and n >= least for n in pair):
            raise UserError(f"TEST.TILES.{name} must be [height, width], not {shown(pair)}")
    if any(o >= t for o, t in zip(overlap, tile, strict=True)):
        raise UserError(
            f"TEST.TILES.OVERLAP {list(overlap)} must be smaller than SIZE {list(tile)}"
        )


class ScoreCanvas:
    """The average of class scores that are given for overlapping areas of an image.

    Args:
        size: (height, width) of the image.
    """

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self._total = self._count = torch.zeros(0)

    def add(self, area: Area, scores: Tensor) -> None:
        """Add the scores (K, height, width) of an area."""
        if not len(self._total):
            self._total = scores.new_zeros(len(scores), *self.size)
            self._count = scores.new_zeros(self.size)
        self._total[area.selector] += scores
        self._count[area.selector] += 1

    def mean(self) -> Tensor:
        """Return the average (K, height, width)."""
        return self._total.div_(self._count)


class TiledInference(nn.Module):
    """Apply a detector or a panoptic model to overlapping tiles of each image.

    It is called as the model is. ``pred_masks`` are :class:`TileMasks`, which are indexed like a
    boolean tensor (N, H, W) and do not need its memory.

    Args:
        model: list[dict] -> list[dict] with "instances", and for a panoptic model "sem_seg".
        size: height and width of a tile, in pixels of the image that the model would receive.
        overlap: vertical and horizontal overlap of neighbors in pixels. An object that is not
            larger is complete in at least one tile.
        limit: the largest number of objects of an image.
        average: a function of the scores (K, height, width) of a tile, which are averaged.

    Raises:
        UserError: the size or the overlap is out of its range, or tiles do not overlap.
    """

    def __init__(
        self,
        model: nn.Module,
        size: Sequence[int],
        overlap: Sequence[int],
        limit: int = 100,
        average: Any = None,
    ):
        super().__init__()
        check_tiles(size, overlap)
        if min(overlap) < 1:
            raise UserError(
                f"TEST.TILES.OVERLAP {list(overlap)} must be at least 1 for a model that detects "
                "objects, which are merged where tiles overlap; a good value is the size of large "
                "objects"
            )
        self.model, self.limit, self.average = model, limit, average
        self.size, self.overlap = tuple(size), tuple(overlap)
        self._warned = False

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return "instances" of each input, and "sem_seg" and "panoptic_seg" of a panoptic model.

        Args:
            batched_inputs: "image" (C, H, W); optionally "height" and "width" of the output.
        """
        return [self._predict(x) for x in batched_inputs]

    def _predict(self, x: dict[str, Any]) -> dict[str, Any]:
        image = x["image"]
        height, width = image.shape[-2:]
        size = int(x.get("height", height)), int(x.get("width", width))
        scale = size[0] / height, size[1] / width
        found: list[Found] = []
        canvas: ScoreCanvas | None = None
        masks = False
        for number, area in enumerate(tile_areas((height, width), self.size, self.overlap)):
            target = area.scaled(*scale)  # the area in the output
            shape = {"height": target.bottom - target.top, "width": target.right - target.left}
            output = self.model([{"image": image[area.selector], **shape}])[0]
            if "instances" not in output:
                raise UserError(
                    "tiles need a model that detects objects or classifies pixels, but this one "
                    f"gives {', '.join(output)}: leave TEST.TILES disabled"
                )
            instances = output["instances"].to("cpu")
            masks = masks or instances.has("pred_masks")
            found += found_in_tile(instances, number, target, size)
            if "sem_seg" in output:
                canvas = canvas or ScoreCanvas(size)
                scores = output["sem_seg"].float()
                canvas.add(target, self.average(scores) if self.average else scores)
        result: dict[str, Any] = {"instances": self._merged(found, size, masks)}
        if canvas is not None:
            result["sem_seg"] = canvas.mean()
            if isinstance(self.model, PanopticFPN):
                result["panoptic_seg"] = self._combined(self.model, result)
        return result

    def _merged(self, found: list[Found], size: tuple[int, int], masks: bool) -> Instances:
        merged = sorted(merge(found), key=lambda item: -item.score)
        if len(merged) > self.limit and not self._warned:
            self._warned = True
            logger.warning(
                "%d objects were found in an image, and the %d with the highest scores are kept, "
                "because TEST.DETECTIONS_PER_IMAGE is %d; raise it",
                *(len(merged), self.limit, self.limit),
            )
        merged = merged[: self.limit]
        boxes = torch.tensor([item.box for item in merged], dtype=torch.float32)
        instances = Instances(
            size,
            pred_boxes=Boxes(boxes.reshape(-1, 4)),
            scores=torch.tensor([item.score for item in merged], dtype=torch.float32),
            pred_classes=torch.tensor([item.label for item in merged], dtype=torch.int64),
        )
        if masks:
            instances.pred_masks = TileMasks([item.mask for item in merged], size)
        return instances

    @staticmethod
    def _combined(model: PanopticFPN, result: dict[str, Any]) -> Any:
        labels = result["sem_seg"].argmax(dim=0).cpu()
        return combine_semantic_and_instance_outputs(
            *(result["instances"], labels, model.combine_overlap_thresh),
            *(model.combine_stuff_area_thresh, model.combine_instances_score_thresh),
        )


def resized_scores(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Return scores (K, H, W) of another size."""
    if tuple(scores.shape[-2:]) == size:
        return scores
    return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
