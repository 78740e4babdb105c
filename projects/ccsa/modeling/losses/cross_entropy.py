"""Cross entropy over the labelled pixels, and its online hard example mining (OHEM).

OHEM is that of the official CCNet code (class ``OhemCrossEntropy2d``), consulted as reference, with
the settings that its author recommends (threshold 0.7, 100,000 kept). Let p be the softmax
probability of a pixel's own class.

1. Probabilities (linear) and labels (nearest) are sampled on a grid 8 times coarser in both axes,
   its corners on the corners of the image, round(H / 8) x round(W / 8).
2. With k = min_kept // 64: the bar is max(threshold, the k-th smallest p of the coarse grid), but 1
   if the coarse grid has no more than k labelled pixels.
3. The loss is the mean of -log p over the pixels of full size with p <= bar, over all images that
   one process holds.

Deviations: it runs on the device of the logits (there: NumPy and SciPy on the CPU), and is 0, with
a gradient of 0, where no pixel is labelled (there: nan). At some sizes, 480 and 713 but not 769,
SciPy rounds the last sample out of the image and takes 0 for it; here it is the last pixel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.errors import at_least
from ccsa.modeling.layers import at_least_float32, resize_labels

ZOOM = 8


def cross_entropy(
    logits: Tensor, labels: Tensor, ignore_value: int, weight: Tensor | None = None
) -> Tensor:
    """Mean over the labelled pixels; 0, with a gradient of 0, where there is none.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) integers; ``ignore_value`` is unlabelled.
        weight: (C,), what a pixel of each class weighs in the mean; all the same by default.
    """
    logits = at_least_float32(logits)
    weight = None if weight is None else weight.to(logits.dtype)
    total = F.cross_entropy(logits, labels, weight, ignore_index=ignore_value, reduction="sum")
    labelled = labels != ignore_value
    if weight is None:
        return total / labelled.sum().clamp(min=1)
    mass = weight[labels.where(labelled, 0)] * labelled
    return total / mass.sum().clamp(min=torch.finfo(mass.dtype).tiny)


class CrossEntropy(nn.Module):
    """:func:`cross_entropy` as a criterion, called as (logits, labels).

    Args:
        ignore_value: the label of unlabelled pixels.
        class_weights: what a pixel of each class weighs; none is all the same.

    Raises:
        ValueError: a weight that is not above 0.
    """

    def __init__(self, ignore_value: int = 255, class_weights: Sequence[float] = ()):
        super().__init__()
        self.ignore_value = ignore_value
        weight = None
        if class_weights:
            if min(class_weights) <= 0:
                raise ValueError(f"class weights must be above 0, not {list(class_weights)}")
            weight = torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weight", weight, persistent=False)  # a setting, no key of the model

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, self.ignore_value, self.weight)

    def extra_repr(self) -> str:
        return f"ignore_value={self.ignore_value}"


class OhemCrossEntropy(CrossEntropy):
    """Cross entropy over the hard pixels; see the head of this module.

    Args:
        ignore_value: the label of unlabelled pixels.
        threshold: pixels whose own class is at most this probable are hard.
        min_kept: about how many pixels count at least, however probable.
        class_weights: see :class:`CrossEntropy`; which pixels are hard does not depend on them.

    Raises:
        ValueError: a threshold outside [0, 1], a negative ``min_kept``.
    """

    def __init__(
        self,
        ignore_value: int = 255,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        class_weights: Sequence[float] = (),
    ):
        super().__init__(ignore_value, class_weights)
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold of OHEM must be in [0, 1], not {threshold!r}")
        at_least(0, min_kept=min_kept)
        self.threshold = threshold
        self.min_kept = min_kept

    @torch.no_grad()
    def bar(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """The probability above which a pixel is easy, a tensor of one number.

        Args:
            probabilities: (N, C, H, W).
            labels: (N, H, W).
        """
        size = [round(n / ZOOM) for n in labels.shape[-2:]]
        kept = self.min_kept // ZOOM**2
        if kept >= labels.shape[0] * size[0] * size[1]:
            return probabilities.new_ones(())
        coarse = F.interpolate(probabilities, size, mode="bilinear", align_corners=True)
        labels = resize_labels(labels, size, align_corners=True)
        own, labelled = self._own(coarse, labels)
        bar = own.new_tensor(self.threshold)
        if kept > 0:
            bar = own.where(labelled, own.new_tensor(2.0)).flatten().sort().values[kept - 1]
            bar = bar.clamp(min=self.threshold)
        return bar.where(labelled.sum() > kept, torch.ones_like(bar))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the hard pixels of logits (N, C, H, W) and labels (N, H, W)."""
        with torch.no_grad():
            probabilities = at_least_float32(logits).softmax(1)
            own, _ = self._own(probabilities, labels)
            easy = own > self.bar(probabilities, labels)
        return super().forward(logits, labels.masked_fill(easy, self.ignore_value))

    def _own(self, probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W) each: the probability of a pixel's own class, and whether it is labelled."""
        labelled = labels != self.ignore_value
        own = probabilities.gather(1, labels.where(labelled, 0)[:, None])[:, 0]
        return own, labelled

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, threshold={self.threshold}, min_kept={self.min_kept}"


def presence_loss(
    logits: Tensor, labels: Tensor, ignore_value: int, reduction: str = "sum"
) -> Tensor:
    """Binary cross entropy of the classes that an image holds: the categorical loss of SANet.

    Args:
        logits: (N, C), one score for each class and image.
        labels: (N, H, W); ``ignore_value`` is no class, and an image of nothing else is left out.
        reduction: over the classes, ``sum`` as the paper prints it, or ``mean``. Over images: mean.
    """
    logits = at_least_float32(logits)
    labelled = labels != ignore_value
    count = logits.shape[1]
    present = logits.new_zeros(len(logits), count + 1)  # (N, C + 1), the last one for unlabelled
    present.scatter_(1, labels.where(labelled, count).flatten(1), 1.0)
    loss = F.binary_cross_entropy_with_logits(logits, present[:, :-1], reduction="none")  # (N, C)
    loss = loss.sum(1) if reduction == "sum" else loss.mean(1)
    counted = labelled.flatten(1).any(1)
    return (loss * counted).sum() / counted.sum().clamp(min=1)
