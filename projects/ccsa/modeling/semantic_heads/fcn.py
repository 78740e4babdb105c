"""The FCN head, and auxiliary supervision, which CCNet's head shares.

Fully Convolutional Networks, Long et al., CVPR 2015. Auxiliary supervision of res4 with weight 0.4:
Pyramid Scene Parsing Network, Zhao et al., CVPR 2017, arXiv 1612.01105, adopted by CCNet.
"""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ccsa.modeling.layers import classifier, conv_norm_act, feature_shape
from ccsa.modeling.semantic_heads.semantic_head import (
    Criterion,
    SemanticHead,
    common_arguments,
    single_feature,
)


class FCN(nn.Module):
    """3x3 convolution, norm, activation, channel dropout, and a 1x1 classifier.

    The convolution has a bias in addition to its norm, as in the official CCNet code.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        norm: str,
        activation: str,
        dropout: float,
        predictor_std: float = 0.01,
    ):
        super().__init__()
        self.conv = conv_norm_act(
            in_channels, channels, 3, norm=norm, activation=activation, bias=True
        )
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = classifier(channels, num_classes, predictor_std)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W) of a feature map (N, in_channels, H, W)."""
        return self.predictor(self.dropout(self.conv(x)))


class DeeplySupervisedHead(SemanticHead):
    """A head on one feature, with an auxiliary FCN on an earlier feature during training.

    Args:
        input_shape: the shapes of the backbone's features, by name.
        in_feature: the feature that the head reads.
        num_classes: the number of classes.
        aux_feature: the feature that the auxiliary FCN reads.
        aux_channels: the width of the auxiliary FCN.
        aux_weight: a factor for the auxiliary loss; 0 for no auxiliary FCN.
        norm, activation, dropout: of the auxiliary FCN.
        common: the arguments of :class:`SemanticHead`, except ``stride``.

    Raises:
        UserError: the backbone does not return a feature that is needed.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_feature: str,
        num_classes: int,
        aux_feature: str,
        aux_channels: int,
        aux_weight: float,
        norm: str,
        activation: str,
        dropout: float,
        **common: Any,
    ):
        super().__init__(stride=feature_shape(input_shape, in_feature)[1], **common)
        self.in_feature, self.aux_feature, self.aux_weight = in_feature, aux_feature, aux_weight
        self.auxiliary = None
        if aux_weight:
            self.auxiliary = FCN(
                feature_shape(input_shape, aux_feature)[0],
                aux_channels,
                num_classes,
                norm=norm,
                activation=activation,
                dropout=dropout,
            )

    def class_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``prediction`` and, with an auxiliary FCN, ``auxiliary``: (N, C, h, w) each."""
        scores = super().class_scores(features)
        if self.auxiliary is not None:
            scores["auxiliary"] = self._auxiliary_logits(self.auxiliary, features)
        return scores

    def auxiliary_losses(
        self, features: Mapping[str, Tensor], targets: Tensor
    ) -> dict[str, Tensor]:
        """Return ``loss_aux``, a cross entropy, or nothing if there is no auxiliary FCN."""
        if self.auxiliary is None:
            return {}
        loss = self.plain_loss(self._auxiliary_logits(self.auxiliary, features), targets)
        return {"loss_aux": self.aux_weight * loss}

    def _auxiliary_logits(self, auxiliary: FCN, features: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of the auxiliary FCN, (N, num_classes, h, w)."""
        return auxiliary(features[self.aux_feature])


@SEM_SEG_HEADS_REGISTRY.register()
class FCNHead(DeeplySupervisedHead):
    """The baseline of the other heads: an FCN, and an auxiliary FCN during training.

    Args:
        input_shape: the shapes of the backbone's features, by name.
        num_classes: the number of classes.
        in_feature: the feature that the head reads.
        channels: the width of the 3x3 convolution.
        norm: a norm of Detectron2, or an empty string.
        activation: a name in :data:`ccsa.blocks.layers.ACTIVATIONS`; ``leaky_relu`` has slope 0.01.
        dropout: the probability of dropping a whole channel before the classifier.
        predictor_std: the standard deviation of the classifier's initial weights.
        aux_feature, aux_channels, aux_weight: see :class:`DeeplySupervisedHead`.
        align_corners, ignore_value, loss_weight, criterion: see :class:`SemanticHead`.

    Raises:
        UserError: an invalid setting; the message lists the valid ones.

    Example:
        >>> import torch
        >>> shapes = {name: ShapeSpec(channels=8, stride=8) for name in ("res4", "res5")}
        >>> head = FCNHead(shapes, num_classes=19, channels=16, norm="BN")
        >>> head.layers({"res5": torch.zeros(2, 8, 33, 41)}).shape
        torch.Size([2, 19, 33, 41])
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        in_feature: str = "res5",
        channels: int = 512,
        norm: str = "SyncBN",
        activation: str = "relu",
        dropout: float = 0.1,
        predictor_std: float = 0.01,
        aux_feature: str = "res4",
        aux_channels: int = 256,
        aux_weight: float = 0.4,
        align_corners: bool = False,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        criterion: Criterion | None = None,
    ):
        super().__init__(
            input_shape,
            in_feature=in_feature,
            num_classes=num_classes,
            aux_feature=aux_feature,
            aux_channels=aux_channels,
            aux_weight=aux_weight,
            align_corners=align_corners,
            ignore_value=ignore_value,
            loss_weight=loss_weight,
            criterion=criterion,
            norm=norm,
            activation=activation,
            dropout=dropout,
        )
        self.fcn = FCN(
            feature_shape(input_shape, in_feature)[0],
            channels,
            num_classes,
            norm=norm,
            activation=activation,
            dropout=dropout,
            predictor_std=predictor_std,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        return {
            "input_shape": input_shape,
            "in_feature": single_feature(cfg),
            **auxiliary_arguments(cfg),
            **common_arguments(cfg),
        }

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (N, num_classes, h, w) at the stride of ``in_feature``."""
        return self.fcn(features[self.in_feature])

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return ``loss_sem_seg`` and, with an auxiliary FCN, ``loss_aux``."""
        loss = self.main_loss(self.layers(features), targets)
        return {"loss_sem_seg": loss, **self.auxiliary_losses(features, targets)}


def auxiliary_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Return the constructor arguments of the auxiliary FCN, from ``MODEL.SEM_SEG_HEAD.AUX``."""
    keys = cfg.MODEL.SEM_SEG_HEAD.AUX
    return {
        "aux_feature": keys.IN_FEATURE,
        "aux_channels": keys.CHANNELS,
        "aux_weight": keys.WEIGHT,
    }
