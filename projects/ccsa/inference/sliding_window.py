"""Sliding-window inference for any model that returns "sem_seg".

The official CCNet code (evaluate.py) was consulted as reference: windows of one size step over the
image, the last window of each row and column is shifted to end at the border, and logits are
averaged where windows overlap.

Deviation: an image that is smaller than the window along an axis is not padded. The window gets the
size of the image instead, so that no prediction depends on padding.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ccsa.data.tile_grid import tile_areas
from ccsa.inference.averaging import AveragedInference
from ccsa.inference.tiles import ScoreCanvas, check_tiles, resized_scores


class SlidingWindow(AveragedInference):
    """Run a model on overlapping windows and average its predictions.

    It is called as the model is, and returns "sem_seg" only.

    Args:
        model: list[dict] -> list[dict] with "sem_seg" (K, height, width), as Detectron2's models.
        size: height and width of a window, in pixels of the image that the model would receive.
        overlap: vertical and horizontal overlap of neighbors in pixels, less than ``size``.
        average: ``logits`` averages what the model returns, ``softmax`` its softmax over classes.

    Raises:
        UserError: the size or the overlap is out of its range, or the average is unknown.

    Example:
        >>> import torch
        >>> class Identity(nn.Module):
        ...     def forward(self, inputs):
        ...         return [{"sem_seg": x["image"]} for x in inputs]
        >>> windows = SlidingWindow(Identity(), size=(4, 4), overlap=(2, 2))
        >>> windows([{"image": torch.ones(3, 6, 9)}])[0]["sem_seg"].shape
        torch.Size([3, 6, 9])
    """

    def __init__(
        self,
        model: nn.Module,
        size: Sequence[int],
        overlap: Sequence[int],
        average: str = "logits",
    ):
        super().__init__(model, average)
        check_tiles(size, overlap)
        self.size, self.overlap = tuple(size), tuple(overlap)

    def predict(self, x: dict[str, Any]) -> Tensor:
        """Return the scores (K, height, width) of one input, averaged over its windows."""
        image = x["image"]  # (C, H, W) or (T, C, H, W)
        height, width = image.shape[-2:]
        canvas = ScoreCanvas((height, width))
        for area in tile_areas((height, width), self.size, self.overlap):
            window = image[area.selector]
            size = {"height": window.shape[-2], "width": window.shape[-1]}
            canvas.add(area, self.scores({"image": window, **size}))
        output = int(x.get("height", height)), int(x.get("width", width))
        return resized_scores(canvas.mean(), output)
