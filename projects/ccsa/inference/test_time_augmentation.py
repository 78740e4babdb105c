"""Test-time augmentation with scales and horizontal flips, for any model that returns "sem_seg".

Every prediction is resized to the size of the output before it is averaged. Predictions for a
flipped image are flipped back along the width, and the classes of left and right are swapped back
(``flip_pairs``, LIP).

Deviation: the official CCNet code (evaluate.py) flips predictions along the wrong axis and adds
predictions of different sizes. Both are errors and are not reproduced.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.data.transforms.flips import check_pairs, flip_permutation
from ccsa.errors import UserError, shown
from ccsa.inference.averaging import AveragedInference


class SemanticTTA(AveragedInference):
    """Average the predictions of a model over scales and horizontal flips.

    It is called as the model is, and returns "sem_seg" only.

    Args:
        model: list[dict] -> list[dict] with "sem_seg" (K, height, width), as Detectron2's models.
        scales: factors on the size of the image that the model would receive.
        flip: also use each scaled image flipped horizontally.
        flip_pairs: pairs of class indices that a horizontal flip exchanges.
        average: ``logits`` averages what the model returns, ``softmax`` its softmax over classes.

    Raises:
        UserError: there is no scale or a scale is not positive, a class is in two pairs, or the
            average is unknown.

    Example:
        >>> import torch
        >>> class Identity(nn.Module):
        ...     def forward(self, inputs):
        ...         size = [inputs[0]["height"], inputs[0]["width"]]
        ...         return [{"sem_seg": F.interpolate(inputs[0]["image"][None], size)[0]}]
        >>> tta = SemanticTTA(Identity(), scales=(0.5, 1.0, 2.0))
        >>> tta([{"image": torch.ones(3, 6, 8)}])[0]["sem_seg"].shape
        torch.Size([3, 6, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        flip_pairs: Sequence[Sequence[int]] = (),
        average: str = "logits",
    ):
        super().__init__(model, average)
        if not scales or min(scales) <= 0:
            raise UserError(
                f"scales must be one or more factors above 0, not {shown(list(scales))}"
            )
        self.scales, self.flips = tuple(scales), (False, True) if flip else (False,)
        self.flip_pairs = list(check_pairs(flip_pairs))

    def predict(self, x: dict[str, Any]) -> Tensor:
        """Return the scores (K, height, width) of one input, averaged over scales and flips."""
        predictions = self._predictions(x)
        mean = next(predictions).clone()
        for count, scores in enumerate(predictions, start=2):
            # A running mean reproduces exactly the values on which all views agree.
            mean.add_((scores - mean) / count)
        return mean

    def _predictions(self, x: dict[str, Any]) -> Iterator[Tensor]:
        """Yield the scores (K, height, width) of each scale and flip."""
        image = x["image"]  # (C, H, W) or (T, C, H, W)
        size = {
            "height": x.get("height", image.shape[-2]),
            "width": x.get("width", image.shape[-1]),
        }
        for scale in self.scales:
            scaled = rescale(image, scale)
            for flip in self.flips:
                view = {"image": scaled.flip(-1) if flip else scaled, **size}
                scores = self.scores(view)
                yield self._flip_back(scores) if flip else scores

    def _flip_back(self, scores: Tensor) -> Tensor:
        """Return the scores (K, H, W) of a flipped image as scores of the original image."""
        return scores[flip_permutation(len(scores), self.flip_pairs)].flip(-1)


def rescale(image: Tensor, scale: float) -> Tensor:
    """Resize an image (C, H, W) or a clip (T, C, H, W) to ``scale`` times its size.

    The size is at least one pixel. Downscaling is antialiased, as Detectron2's resizing is.

    Returns:
        A float32 tensor; for a scale of 1 the same tensor.
    """
    if scale == 1:
        return image
    size = [max(1, round(n * scale)) for n in image.shape[-2:]]
    frames = image.float().reshape(-1, *image.shape[-3:])
    resized = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.reshape(*image.shape[:-2], *size)
