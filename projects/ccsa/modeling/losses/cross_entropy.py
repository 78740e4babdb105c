"""Cross entropy over labeled pixels, and its online hard example mining (OHEM).

OHEM follows the official CCNet code (class ``OhemCrossEntropy2d``), consulted as reference, with
the settings that its author recommends (threshold 0.7, 100,000 pixels kept). Let p be the softmax
probability of a pixel's own class.

1. Probabilities (bilinear) and labels (nearest) are sampled on a coarse grid of round(H / 8) x
   round(W / 8) points, whose corners coincide with the corners of the image.
2. With k = min_kept // 64, the cutoff is max(threshold, the k-th smallest p of the coarse grid),
   but 1 if the coarse grid has at most k labeled pixels.
3. The loss is the mean of -log p over the pixels at full resolution with p <= cutoff, over all
   images of one process.

Deviations: the loss runs on the device of the logits (the official code uses NumPy and SciPy on the
CPU), and it is 0 with a gradient of 0 if no pixel is labeled (official code: nan). At some sizes
(480 and 713, but not 769) SciPy rounds the last sample out of the image and takes 0 for it; here it
is the last pixel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.errors import UserError, at_least, shown
from ccsa.modeling.layers import at_least_float32, resize_labels

COARSENESS = 8  # ratio of the image size and the size of the coarse grid


def cross_entropy(
    logits: Tensor, labels: Tensor, ignore_value: int, weight: Tensor | None = None
) -> Tensor:
    """Return the mean cross entropy over labeled pixels; 0 with a gradient of 0 if there is none.

    Args:
        logits: shape (N, C, H, W); half precision is converted to float32.
        labels: shape (N, H, W), integers.
        ignore_value: the label of unlabeled pixels.
        weight: shape (C,), the weight of each class in the mean; equal weights by default.

    Example:
        >>> cross_entropy(torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.long), 255)
        tensor(0.6931)
    """
    logits = at_least_float32(logits)
    weight = None if weight is None else weight.to(logits.dtype)
    total = F.cross_entropy(logits, labels, weight, ignore_index=ignore_value, reduction="sum")
    labeled = labels != ignore_value
    if weight is None:
        return total / labeled.sum().clamp(min=1)
    mass = weight[labels.where(labeled, 0)] * labeled
    return total / mass.sum().clamp(min=torch.finfo(mass.dtype).tiny)


class CrossEntropy(nn.Module):
    """:func:`cross_entropy` as a module, called with (logits, labels).

    Args:
        ignore_value: the label of unlabeled pixels.
        class_weights: the weight of each class in the mean; empty for equal weights.

    Raises:
        UserError: a weight that is not above 0.
    """

    weight: Tensor | None

    def __init__(self, ignore_value: int = 255, class_weights: Sequence[float] = ()):
        super().__init__()
        self.ignore_value = ignore_value
        weight = None
        if class_weights:
            if min(class_weights) <= 0:
                raise UserError(f"class weights must be above 0, not {shown(list(class_weights))}")
            weight = torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer(
            "weight", weight, persistent=False
        )  # not in the state dict: it is a setting

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the labeled pixels of logits (N, C, H, W) and labels (N, H, W)."""
        return cross_entropy(logits, labels, self.ignore_value, self.weight)

    def extra_repr(self) -> str:
        return f"ignore_value={self.ignore_value}"


class OhemCrossEntropy(CrossEntropy):
    """Cross entropy over hard pixels, called with (logits, labels). The algorithm is described in
    the docstring of this module.

    Args:
        ignore_value: the label of unlabeled pixels.
        threshold: a pixel is hard if the probability of its own class is at most this value.
        min_kept: the approximate minimum number of pixels that are kept, whatever their
            probability.
        class_weights: see :class:`CrossEntropy`; they do not affect which pixels are hard.

    Raises:
        UserError: the threshold is outside [0, 1], or ``min_kept`` is negative.
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
            raise UserError(f"the threshold of OHEM must be in [0, 1], not {shown(threshold)}")
        at_least(0, min_kept=min_kept)
        self.threshold = threshold
        self.min_kept = min_kept

    @torch.no_grad()
    def cutoff(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Return the probability above which a pixel is easy, as a scalar tensor.

        Args:
            probabilities: shape (N, C, H, W).
            labels: shape (N, H, W), integers.
        """
        size = [round(n / COARSENESS) for n in labels.shape[-2:]]
        kept = self.min_kept // COARSENESS**2
        if kept >= labels.shape[0] * size[0] * size[1]:
            return probabilities.new_ones(())
        coarse = F.interpolate(probabilities, size, mode="bilinear", align_corners=True)
        labels = resize_labels(labels, size, align_corners=True)
        own, labeled = self._own_probabilities(coarse, labels)
        cutoff = own.new_tensor(self.threshold)
        if kept > 0:
            # 2 sorts unlabeled pixels behind all probabilities.
            cutoff = own.where(labeled, own.new_tensor(2.0)).flatten().sort().values[kept - 1]
            cutoff = cutoff.clamp(min=self.threshold)
        return cutoff.where(labeled.sum() > kept, torch.ones_like(cutoff))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the hard pixels of logits (N, C, H, W) and labels (N, H, W)."""
        with torch.no_grad():
            probabilities = at_least_float32(logits).softmax(1)
            own, _ = self._own_probabilities(probabilities, labels)
            easy = own > self.cutoff(probabilities, labels)
        return super().forward(logits, labels.masked_fill(easy, self.ignore_value))

    def _own_probabilities(self, probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability of each pixel's own class and whether the pixel is labeled, both
        of shape (N, H, W)."""
        labeled = labels != self.ignore_value
        own = probabilities.gather(1, labels.where(labeled, 0)[:, None])[:, 0]
        return own, labeled

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, threshold={self.threshold}, min_kept={self.min_kept}"


def presence_loss(
    logits: Tensor, labels: Tensor, ignore_value: int, reduction: str = "sum"
) -> Tensor:
    """Return the binary cross entropy of the classes present in an image: SANet's categorical loss.

    Args:
        logits: shape (N, C), one score for each class and image.
        labels: shape (N, H, W), integers.
        ignore_value: the label of unlabeled pixels; an image of only such pixels is left out.
        reduction: over classes, ``sum`` as printed in the paper, or ``mean``. The result is the
            mean over images.
    """
    logits = at_least_float32(logits)
    labeled = labels != ignore_value
    count = logits.shape[1]
    present = logits.new_zeros(len(logits), count + 1)  # (N, C + 1), the last class for unlabeled
    present.scatter_(1, labels.where(labeled, count).flatten(1), 1.0)
    loss = F.binary_cross_entropy_with_logits(logits, present[:, :-1], reduction="none")  # (N, C)
    loss = loss.sum(1) if reduction == "sum" else loss.mean(1)
    has_labels = labeled.flatten(1).any(1)
    return (loss * has_labels).sum() / has_labels.sum().clamp(min=1)
