"""The category consistent loss of CCNet.

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., TPAMI 2020, arXiv
1811.11721v2. The official code does not contain this loss.

Let C be the set of classes that are present, N_c the number of pixels of class c, h_i the feature
of pixel i, mu_c the mean feature of class c, d = |mu_c - h_i| and D = |mu_a - mu_b|. Then

    l_var = 1/|C| sum_c 1/N_c sum_i phi_var(d)
    l_dis = 1/(|C| (|C| - 1)) sum_{a != b} phi_dis(D)
    l_reg = 1/|C| sum_c |mu_c|

    phi_var(d) = 0 up to delta_v, (d - delta_v)^2 up to delta_d,
                 then d - delta_d + (delta_d - delta_v)^2
    phi_dis(D) = (2 delta_d - D)^2 up to 2 delta_d, then 0

phi_var is continuous at delta_d, but its slope drops there from 2 (delta_d - delta_v) to 1.

The paper leaves three points open, and each is a setting: whether "16" is a number of channels (the
default) or a ratio, whether the classes are those of the batch of one process (the default) or of
each image, and which features are used (see :class:`ccsa.modeling.CCNetHead`). Labels are resized
to the features by nearest neighbor.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ccsa.errors import UserError, at_least, one_of, shown
from ccsa.modeling.layers import at_least_float32, resize_labels

PARTS = ("var", "dis", "reg")


def consistency_terms(
    features: Tensor, labels: Tensor, delta_v: float = 0.5, delta_d: float = 1.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return l_var, l_dis and l_reg of labeled features.

    Args:
        features: shape (P, D), one row for each labeled pixel.
        labels: shape (P,), integers.
        delta_v, delta_d: the distances delta_v and delta_d of the equations above.

    Returns:
        Three scalars. A term that is undefined is 0 with a gradient of 0: all terms if there is no
        pixel, and l_dis if there is only one class.

    Example:
        >>> features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 2.0]])
        >>> [term.item() for term in consistency_terms(features, torch.tensor([0, 0, 1]))]
        [0.125, 1.0, 1.6180340051651]
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


Terms = Callable[[Tensor, Tensor, Tensor, Sequence[float]], list[Tensor]]


def _over_batch(
    features: Tensor, labels: Tensor, valid: Tensor, deltas: Sequence[float]
) -> list[Tensor]:
    rows = features.permute(0, 2, 3, 1)[valid]  # (P, D)
    return list(consistency_terms(rows, labels[valid], *deltas))


def _over_images(
    features: Tensor, labels: Tensor, valid: Tensor, deltas: Sequence[float]
) -> list[Tensor]:
    terms = [
        torch.stack(_over_batch(features[i, None], labels[i, None], valid[i, None], deltas))
        for i in range(len(features))
    ]
    if not terms:
        return [features.sum() * 0] * len(PARTS)
    labeled_images = valid.flatten(1).any(1).sum().clamp(min=1)
    return list(torch.stack(terms).sum(0) / labeled_images)


SCOPES: dict[str, Terms] = {"batch": _over_batch, "image": _over_images}


class CategoryConsistentLoss(nn.Module):
    """The category consistent loss: a 1x1 convolution, then the three terms.

    Args:
        in_channels: the channels of the features.
        channels: the channels after the 1x1 convolution; 0 for no convolution.
        weights: factors for l_var, l_dis and l_reg.
        deltas: delta_v and delta_d.
        scope: ``batch`` for the classes of the batch, ``image`` for the classes of each image; the
            terms are then averaged over images.
        ignore_value: the label of unlabeled pixels.
        align_corners: how the features are aligned with the image; see
            :func:`ccsa.modeling.layers.resize`.

    Raises:
        UserError: a value out of its range.

    Example:
        >>> loss = CategoryConsistentLoss(8, channels=4)
        >>> sorted(loss(torch.randn(2, 8, 5, 5), torch.zeros(2, 33, 33, dtype=torch.long)))
        ['loss_ccl_dis', 'loss_ccl_reg', 'loss_ccl_var']
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
            raise UserError(
                f"weights must be three numbers, none below 0, not {shown(list(weights))}"
            )
        if len(deltas) != 2 or not 0 <= deltas[0] <= deltas[1]:
            raise UserError(f"deltas must be 0 <= delta_v <= delta_d, not {shown(list(deltas))}")
        self.terms = one_of(SCOPES, scope, "scope")
        self.reduction = nn.Conv2d(in_channels, channels, 1) if channels else nn.Identity()
        self.weights, self.deltas = tuple(weights), tuple(deltas)
        self.ignore_value = ignore_value
        self.align_corners = align_corners

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``loss_ccl_var``, ``loss_ccl_dis`` and ``loss_ccl_reg``.

        Args:
            features: shape (N, in_channels, h, w).
            labels: shape (N, H, W), integers.
        """
        features = at_least_float32(self.reduction(features))
        labels = resize_labels(labels, features.shape[-2:], self.align_corners)
        terms = self.terms(features, labels, labels != self.ignore_value, self.deltas)
        weighted = zip(PARTS, self.weights, terms, strict=True)
        return {f"loss_ccl_{part}": weight * term for part, weight, term in weighted}
