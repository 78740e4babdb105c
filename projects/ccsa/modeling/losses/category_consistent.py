"""The category consistent loss of CCNet (TPAMI 2020, arXiv 1811.11721v2; not in the official code).

With C the classes present, N_c the pixels of class c, h_i the feature of pixel i, mu_c their mean,
d = |mu_c - h_i| and D = |mu_a - mu_b|:

    l_var = 1/|C| sum_c 1/N_c sum_i phi_var(d)
    l_dis = 1/(|C| (|C| - 1)) sum_{a != b} phi_dis(D)
    l_reg = 1/|C| sum_c |mu_c|

    phi_var(d) = 0 up to delta_v, (d - delta_v)^2 up to delta_d,
                 then d - delta_d + (delta_d - delta_v)^2
    phi_dis(D) = (2 delta_d - D)^2 up to 2 delta_d, then 0

phi_var has no jump at delta_d, but its slope drops there from 2 (delta_d - delta_v) to 1.

What no source at hand settles is a setting: whether "16" is a number of channels (here) or a ratio,
whether classes are those of the batch (here; of one process) or of each image, and which features
are taken (see :class:`ccsa.modeling.CCNetHead`). Labels go to the size of the features by nearest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ccsa.errors import at_least, one_of
from ccsa.modeling.layers import at_least_float32, resize_labels

PARTS = ("var", "dis", "reg")


def consistency_terms(
    features: Tensor, labels: Tensor, delta_v: float = 0.5, delta_d: float = 1.5
) -> tuple[Tensor, Tensor, Tensor]:
    """l_var, l_dis and l_reg of labelled features.

    Args:
        features: (P, D), one row for each labelled pixel.
        labels: (P,) integers.

    Returns:
        Three scalars; 0, with a gradient of 0, for what does not exist: all of them without a
        pixel, l_dis with a single class.
    """
    zero = features.sum() * 0
    if len(labels) == 0:
        return zero, zero, zero
    classes, index, counts = labels.unique(return_inverse=True, return_counts=True)
    number = len(classes)
    means = features.new_zeros(number, features.shape[1]).index_add(0, index, features)
    means = means / counts[:, None]  # (|C|, D)

    d = torch.linalg.vector_norm(means[index] - features, dim=1)  # (P,)
    near = (d - delta_v).clamp(min=0) ** 2
    far = d - delta_d + (delta_d - delta_v) ** 2
    phi_var = torch.where(d > delta_d, far, near)
    l_var = (phi_var / counts[index]).sum() / number

    l_dis = zero
    if number > 1:
        a, b = torch.triu_indices(number, number, offset=1, device=features.device)
        apart = torch.linalg.vector_norm(means[a] - means[b], dim=1)  # each pair once
        l_dis = ((2 * delta_d - apart).clamp(min=0) ** 2).mean()
    l_reg = torch.linalg.vector_norm(means, dim=1).mean()
    return l_var, l_dis, l_reg


def _over_batch(features: Tensor, labels: Tensor, valid: Tensor, deltas: Sequence[float]) -> list:
    rows = features.permute(0, 2, 3, 1)[valid]  # (P, D)
    return list(consistency_terms(rows, labels[valid], *deltas))


def _over_images(features: Tensor, labels: Tensor, valid: Tensor, deltas: Sequence[float]) -> list:
    terms = [
        torch.stack(_over_batch(features[i, None], labels[i, None], valid[i, None], deltas))
        for i in range(len(features))
    ]
    if not terms:
        return [features.sum() * 0] * len(PARTS)
    labelled = valid.flatten(1).any(1).sum().clamp(min=1)
    return list(torch.stack(terms).sum(0) / labelled)


SCOPES = {"batch": _over_batch, "image": _over_images}


class CategoryConsistentLoss(nn.Module):
    """A 1x1 convolution and the three terms on what it returns, each under its own name.

    Args:
        in_channels: of the features.
        channels: after the 1x1 convolution; 0 for the features as they are.
        weights: of l_var, l_dis and l_reg.
        deltas: delta_v and delta_d.
        scope: classes of the ``batch``, or of each ``image``, then averaged over images.
        ignore_value: the label of unlabelled pixels.
        align_corners: how features lie on the image; see :func:`ccsa.modeling.layers.resize`.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int = 16,
        weights: Sequence[float] = (1.0, 1.0, 0.001),
        deltas: Sequence[float] = (0.5, 1.5),
        scope: str = "batch",
        ignore_value: int = 255,
        align_corners: bool = False,
    ):
        super().__init__()
        at_least(0, channels=channels)
        if len(weights) != len(PARTS) or min(weights) < 0:
            raise ValueError(f"weights must be three, none below 0, not {list(weights)}")
        if len(deltas) != 2 or not 0 <= deltas[0] <= deltas[1]:
            raise ValueError(f"deltas must be 0 <= delta_v <= delta_d, not {list(deltas)}")
        self.terms = one_of(SCOPES, scope, "scope")
        self.reduction = nn.Conv2d(in_channels, channels, 1) if channels else nn.Identity()
        self.weights, self.deltas = tuple(weights), tuple(deltas)
        self.ignore_value = ignore_value
        self.align_corners = align_corners

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """features (N, C, h, w), labels (N, H, W) -> loss_ccl_var, loss_ccl_dis, loss_ccl_reg."""
        features = at_least_float32(self.reduction(features))
        labels = resize_labels(labels, features.shape[-2:], self.align_corners)
        terms = self.terms(features, labels, labels != self.ignore_value, self.deltas)
        weighted = zip(PARTS, self.weights, terms, strict=True)
        return {f"loss_ccl_{part}": weight * term for part, weight, term in weighted}
