"""The base class of the semantic heads: the interface that Detectron2's meta-architectures call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from ccsa.errors import UserError, shown
from ccsa.modeling.layers import resize
from ccsa.modeling.losses.cross_entropy import CrossEntropy, OhemCrossEntropy, cross_entropy

Criterion = Callable[[Tensor, Tensor], Tensor]


class SemanticHead(nn.Module):
    """Base class of the semantic heads. Subclasses define :meth:`layers` and :meth:`losses`.

    Args:
        stride: the stride of the logits that :meth:`layers` returns.
        ignore_value: the label of unlabeled pixels.
        loss_weight: a factor for every loss.
        align_corners: whether the corners of the logits coincide with the corners of the image when
            they are resized. True in the official CCNet code, where images have 8 n + 1 pixels.
        criterion: the main loss, called with (logits, labels); cross entropy by default.
    """

    def __init__(
        self,
        *,
        stride: int,
        ignore_value: int,
        loss_weight: float,
        align_corners: bool,
        criterion: Criterion | None,
    ):
        super().__init__()
        self.stride = stride
        self.ignore_value = ignore_value
        self.loss_weight = loss_weight
        self.align_corners = align_corners
        self.criterion = CrossEntropy(ignore_value) if criterion is None else criterion

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits of shape (N, num_classes, H / stride, W / stride).

        Args:
            features: the feature maps of the backbone, by name.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define layers()")

    def class_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the class scores of every output, including those that only training uses.

        Args:
            features: the feature maps of the backbone, by name.

        Returns:
            Logits (N, num_classes, h, w) by name; ``prediction`` is what :meth:`layers` returns.
        """
        return {"prediction": self.layers(features)}

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return the losses of the head by name, before multiplication with ``loss_weight``.

        Args:
            features: the feature maps of the backbone, by name.
            targets: labels of shape (N, H, W).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define losses()")

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Run the head as Detectron2's meta-architectures do.

        Args:
            features: the feature maps of the backbone, by name.
            targets: labels of shape (N, H, W), needed in training.

        Returns:
            In training, ``None`` and the losses by name; otherwise the logits, upsampled by
            ``stride`` to (N, num_classes, H, W), and an empty dictionary.

        Raises:
            UserError: training without labels.
        """
        if not self.training:
            logits = self.layers(features)
            return self.resize(logits, [n * self.stride for n in logits.shape[-2:]]), {}
        if targets is None:
            raise UserError(
                "a semantic head is trained on 'sem_seg' labels, but the data have none"
            )
        losses = self.losses(features, targets)
        return None, {name: self.loss_weight * loss for name, loss in losses.items()}

    def resize(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Resize (N, C, h, w) to (N, C, *size), with the ``align_corners`` of this head."""
        return resize(x, size, self.align_corners)

    def main_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the criterion of logits (N, C, h, w), resized to the labels (N, H, W)."""
        return self.criterion(self.resize(logits, targets.shape[-2:]), targets)

    def plain_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of logits (N, C, h, w), resized to the labels (N, H, W)."""
        logits = self.resize(logits, targets.shape[-2:])
        return cross_entropy(logits, targets, self.ignore_value)


def common_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Return the constructor arguments that all heads share, from ``MODEL.SEM_SEG_HEAD``.

    Raises:
        UserError: the number of class weights is not the number of classes.
    """
    keys = cfg.MODEL.SEM_SEG_HEAD
    weights = keys.CLASS_WEIGHTS
    if weights and len(weights) != keys.NUM_CLASSES:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS needs one weight for each of the {keys.NUM_CLASSES} "
            f"classes, or none; not {len(weights)}"
        )
    criterion = CrossEntropy(keys.IGNORE_VALUE, weights)
    if keys.OHEM.ENABLED:
        criterion = OhemCrossEntropy(
            keys.IGNORE_VALUE, keys.OHEM.THRESHOLD, keys.OHEM.MIN_KEPT, weights
        )
    return {
        "num_classes": keys.NUM_CLASSES,
        "channels": keys.CONVS_DIM,
        "norm": keys.NORM,
        "activation": keys.ACTIVATION,
        "dropout": keys.DROPOUT,
        "predictor_std": keys.PREDICTOR_STD,
        "align_corners": keys.ALIGN_CORNERS,
        "ignore_value": keys.IGNORE_VALUE,
        "loss_weight": keys.LOSS_WEIGHT,
        "criterion": criterion,
    }


def single_feature(cfg: CfgNode) -> str:
    """Return the only feature that ``MODEL.SEM_SEG_HEAD.IN_FEATURES`` names.

    Raises:
        UserError: it names none or several.
    """
    names = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
    if len(names) != 1:
        raise UserError(
            f"{cfg.MODEL.SEM_SEG_HEAD.NAME} takes one feature: set MODEL.SEM_SEG_HEAD.IN_FEATURES "
            f'to one, such as ["res5"] of a ResNet or ["p3"] of an FPN, not {shown(list(names))}'
        )
    return names[0]
