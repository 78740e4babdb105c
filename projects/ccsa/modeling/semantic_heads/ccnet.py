"""The segmentation head of CCNet.

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., ICCV 2019 and TPAMI 2020,
arXiv 1811.11721. Official code (speedinghzl/CCNet, networks/ccnet.py) consulted as
reference:

    x: res5      a = reduction(x)      b = blocks(a), R recurrences      c = refine(b)
    logits = predictor(dropout(fusion([x, c])))      auxiliary logits = FCN(res4)

reduction, refine and fusion are 3x3 convolutions with norm and activation. The official code uses
leaky ReLU 0.01 (the default of its in-place norm), ``align_corners=True`` and 512 auxiliary
channels; MMSegmentation uses ReLU, False and 256. Each of these is a setting. The auxiliary loss is
plain cross entropy even if the main loss is OHEM, as in the official code.

Deviation: losses are 0 instead of nan if no pixel is labeled, so that training continues.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ccsa.blocks.spec import BlockSpec, build_blocks
from ccsa.errors import one_of
from ccsa.modeling.layers import classifier, conv_norm_act, feature_shape
from ccsa.modeling.losses.category_consistent import CategoryConsistentLoss
from ccsa.modeling.semantic_heads.fcn import DeeplySupervisedHead, auxiliary_arguments
from ccsa.modeling.semantic_heads.semantic_head import (
    Criterion,
    common_arguments,
    single_feature,
)

# The features that the category consistent loss takes: their index in (a, b).
CONSISTENCY_FEATURES = {"context_input": 0, "context_output": 1}


@SEM_SEG_HEADS_REGISTRY.register()
class CCNetHead(DeeplySupervisedHead):
    """CCNet's head: reduction, context blocks, and fusion with the input.

    Args:
        input_shape: the shapes of the backbone's features, by name.
        num_classes: the number of classes.
        in_feature: the feature that the head reads.
        channels: the width of the head.
        blocks: the context blocks in order, each ``{block: name, **keywords}``; see
            :func:`ccsa.blocks.spec.parse_block_spec`. An empty list is R = 0.
        norm: a norm of Detectron2, or an empty string.
        activation: a name in :data:`ccsa.blocks.layers.ACTIVATIONS`; ``leaky_relu`` has slope 0.01.
        dropout: the probability of dropping a whole channel before the classifier.
        predictor_std: the standard deviation of the classifier's initial weights.
        aux_feature, aux_channels, aux_weight: see :class:`DeeplySupervisedHead`.
        align_corners, ignore_value, loss_weight, criterion: see :class:`SemanticHead`.
        consistency: the category consistent loss, or ``None``.
        consistency_at: its features, ``context_output`` (b above) or ``context_input`` (a).

    Raises:
        UserError: an invalid setting; the message lists the valid ones.

    Example:
        >>> shapes = {name: ShapeSpec(channels=8, stride=8) for name in ("res4", "res5")}
        >>> head = CCNetHead(shapes, num_classes=19, channels=16, norm="BN")
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
        blocks: Sequence[Mapping[str, Any] | BlockSpec] = (
            {"block": "CrissCross", "recurrence": 2},
        ),
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
        consistency: CategoryConsistentLoss | None = None,
        consistency_at: str = "context_output",
    ):
        super().__init__(
            input_shape,
            in_feature=in_feature,
            num_classes=num_classes,
            aux_feature=aux_feature,
            aux_channels=aux_channels,
            aux_weight=aux_weight,
            norm=norm,
            activation=activation,
            dropout=dropout,
            align_corners=align_corners,
            ignore_value=ignore_value,
            loss_weight=loss_weight,
            criterion=criterion,
        )

        def layer(in_channels: int) -> nn.Module:
            return conv_norm_act(in_channels, channels, 3, norm=norm, activation=activation)

        width, _ = feature_shape(input_shape, in_feature)
        self.reduction = layer(width)
        self.attention = build_blocks(channels, blocks)
        self.refine = layer(channels)
        self.fusion = layer(width + channels)
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = classifier(channels, num_classes, predictor_std)
        self.consistency = consistency
        self.consistency_index = one_of(CONSISTENCY_FEATURES, consistency_at, "consistency_at")

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        keys = cfg.MODEL.SEM_SEG_HEAD
        consistency = None
        if keys.CCL.ENABLED:
            consistency = CategoryConsistentLoss(
                keys.CONVS_DIM,
                channels=keys.CCL.CHANNELS,
                weights=keys.CCL.WEIGHTS,
                deltas=keys.CCL.DELTAS,
                scope=keys.CCL.SCOPE,
                ignore_value=keys.IGNORE_VALUE,
                align_corners=keys.ALIGN_CORNERS,
            )
        return {
            "input_shape": input_shape,
            "in_feature": single_feature(cfg),
            "blocks": keys.BLOCKS,
            "consistency": consistency,
            "consistency_at": keys.CCL.AT,
            **auxiliary_arguments(cfg),
            **common_arguments(cfg),
        }

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (N, num_classes, h, w) at the stride of ``in_feature``."""
        return self._logits(features)[0]

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return ``loss_sem_seg``, with an auxiliary FCN ``loss_aux``, and with ``consistency``
        ``loss_ccl_var``, ``loss_ccl_dis`` and ``loss_ccl_reg``."""
        logits, block_features = self._logits(features)
        losses = {"loss_sem_seg": self.main_loss(logits, targets)}
        losses.update(self.auxiliary_losses(features, targets))
        if self.consistency is not None:
            losses.update(self.consistency(block_features[self.consistency_index], targets))
        return losses

    def _logits(self, features: Mapping[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the logits, and the input and output (a, b) of the context blocks."""
        x, reduced, attended = self._attend(features[self.in_feature])
        fused = self.fusion(torch.cat([x, self.refine(attended)], dim=1))
        return self.predictor(self.dropout(fused)), (reduced, attended)

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x, a, b): the features to fuse, and the blocks' input and output."""
        reduced = self.reduction(x)
        return x, reduced, self.attention(reduced)
