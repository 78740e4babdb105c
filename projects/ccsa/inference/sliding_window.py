"""Sliding-window inference for any model that returns "sem_seg".

The official CCNet code (evaluate.py) was consulted as reference: windows of one size step over the
image, the last window of each row and column is shifted to end at the border, and logits are
averaged where windows overlap.

Deviation: an image that is smaller than the window along an axis is not padded. The window gets the
size of the image instead, so that no prediction depends on padding.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.errors import UserError, shown
from ccsa.inference.averaging import AveragedInference


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Return the start of each window along one axis; the last window ends at ``size``.

    Example:
        >>> window_starts(size=10, crop=4, stride=4)
        [0, 4, 6]
    """
    last = max(size - crop, 0)
    return [*range(0, last, stride), last]


class SlidingWindow(AveragedInference):
    """Run a model on overlapping windows and average its predictions.

    It is called as the model is, and returns "sem_seg" only.

    Args:
        model: list[dict] -> list[dict] with "sem_seg" (K, height, width), as Detectron2's models.
        crop: height and width of a window, in pixels of the image that the model would receive.
        stride: vertical and horizontal distance of windows in pixels, at most ``crop``.
        average: ``logits`` averages what the model returns, ``softmax`` its softmax over classes.

    Raises:
        UserError: a size is not a pair of positive integers, the stride exceeds the crop (pixels
            between windows would have no prediction), or the average is unknown.

    Example:
        >>> import torch
        >>> class Identity(nn.Module):
        ...     def forward(self, inputs):
        ...         return [{"sem_seg": x["image"]} for x in inputs]
        >>> windows = SlidingWindow(Identity(), crop=(4, 4), stride=(2, 2))
        >>> windows([{"image": torch.ones(3, 6, 9)}])[0]["sem_seg"].shape
        torch.Size([3, 6, 9])
    """

    def __init__(
        self,
        model: nn.Module,
        crop: Sequence[int],
        stride: Sequence[int],
        average: str = "logits",
    ):
        super().__init__(model, average)
        for name, pair in (("crop", crop), ("stride", stride)):
            if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
                raise UserError(f"the window's {name} must be [height, width], not {shown(pair)}")
        if any(s > c for s, c in zip(stride, crop, strict=True)):
            raise UserError(
                f"the window's stride {list(stride)} must be at most its crop {list(crop)}"
            )
        self.crop, self.stride = tuple(crop), tuple(stride)

    def predict(self, x: dict[str, Any]) -> Tensor:
        """Return the scores (K, height, width) of one input, averaged over its windows."""
        image = x["image"]  # (C, H, W) or (T, C, H, W)
        height, width = image.shape[-2:]
        rows, columns = map(window_starts, (height, width), self.crop, self.stride)
        total = count = image.new_zeros(0)
        for top in rows:
            for left in columns:
                area = (..., slice(top, top + self.crop[0]), slice(left, left + self.crop[1]))
                window = image[area]
                size = {"height": window.shape[-2], "width": window.shape[-1]}
                scores = self.scores({"image": window, **size})
                if not len(total):
                    total = scores.new_zeros(len(scores), height, width)
                    count = scores.new_zeros(height, width)
                total[area] += scores
                count[area] += 1
        mean = total / count
        output = x.get("height", height), x.get("width", width)
        if output == (height, width):
            return mean
        return F.interpolate(mean[None], output, mode="bilinear", align_corners=False)[0]
