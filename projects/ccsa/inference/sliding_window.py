"""Semantic inference on overlapping windows, for any model that returns "sem_seg".

As in the official CCNet code (evaluate.py), consulted as reference: windows of one size step over
the image, the last ones of a row or column shifted inside, and logits are averaged where windows
overlap.

Deviation: an image smaller than the window along an axis is not padded; the window gets its size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.errors import UserError, one_of

AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda scores: scores,
    "softmax": lambda scores: scores.softmax(0),
}


def sem_seg_of(model: nn.Module, view: dict[str, Any]) -> Tensor:
    """(K, height, width) float32, what ``model`` predicts for one input.

    Raises:
        UserError: it predicts no "sem_seg".
    """
    output = model([view])[0]
    if "sem_seg" not in output:
        raise UserError(
            f"windows, scales and flips need a model with a 'sem_seg' output, but this one gives "
            f"{', '.join(output)}: leave TEST.SLIDING_WINDOW and TEST.SEM_SEG_AUG disabled"
        )
    return output["sem_seg"].float()


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Where windows start along one axis: every ``stride``, the last shifted to end at ``size``."""
    last = max(size - crop, 0)
    return [*range(0, last, stride), last]


class SlidingWindow(nn.Module):
    """A model run on windows, called as the model is; it returns "sem_seg" alone.

    Args:
        model: list[dict] -> list[dict] with "sem_seg" (K, height, width), as Detectron2's models.
        crop: height and width of a window, in pixels of the image that the model would get.
        stride: steps down and right, at most the crop.
        average: ``logits``, whatever the model returns, or ``softmax`` of it.

    Raises:
        ValueError: sizes that are not two positive integers, a stride beyond the crop (pixels
            between windows would have no prediction), an unknown average.
    """

    def __init__(
        self,
        model: nn.Module,
        crop: Sequence[int],
        stride: Sequence[int],
        average: str = "logits",
    ):
        super().__init__()
        for name, pair in (("crop", crop), ("stride", stride)):
            if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
                raise ValueError(f"the window's {name} must be [height, width], not {pair!r}")
        if any(s > c for s, c in zip(stride, crop, strict=True)):
            raise ValueError(
                f"the window's stride {list(stride)} must be at most its crop {list(crop)}"
            )
        self.model = model
        self.crop, self.stride = tuple(crop), tuple(stride)
        self.transform = one_of(AVERAGES, average, "average")

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """One ``{"sem_seg": (K, height, width)}`` for each input, of the size that the input asks
        for, by default the image's."""
        return [{"sem_seg": self._image(x)} for x in batched_inputs]

    def _image(self, x: dict[str, Any]) -> Tensor:
        image = x["image"]  # (C, H, W), or (T, C, H, W) of a video model
        size = image.shape[-2:]
        rows, columns = map(window_starts, size, self.crop, self.stride)
        total = count = None
        for top in rows:
            for left in columns:
                area = (..., slice(top, top + self.crop[0]), slice(left, left + self.crop[1]))
                scores = self._window(image[area])
                if total is None:
                    total = scores.new_zeros(len(scores), *size)
                    count = scores.new_zeros(size)
                total[area] += scores
                count[area] += 1
        mean = total / count
        output = x.get("height", size[0]), x.get("width", size[1])
        if output == tuple(size):
            return mean
        return F.interpolate(mean[None], output, mode="bilinear", align_corners=False)[0]

    def _window(self, image: Tensor) -> Tensor:
        """(K, h, w) of one window, float32."""
        height, width = image.shape[-2:]
        view = {"image": image, "height": height, "width": width}
        return self.transform(sem_seg_of(self.model, view))
