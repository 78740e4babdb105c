"""The segmentation head of CCNet.

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., ICCV 2019 and TPAMI 2020,
arXiv 1811.11721. Official code (speedinghzl/CCNet, networks/ccnet.py) consulted as reference:

    x: res5      a = reduction(x)      b = context(a), R loops      c = refine(b)
    logits = predictor(dropout(fusion([x, c])))      auxiliary logits = FCN(res4)

reduction, refine and fusion are 3x3 convolutions with norm and activation. The official code has
leaky ReLU 0.01 (the default of its in-place norm), ``align_corners`` true and 512 auxiliary
channels; MMSegmentation ReLU, false (by default) and 256: each is a setting. The auxiliary loss
stays plain cross entropy where OHEM serves the main one, as in the official code.

Deviation: losses are 0 rather than nan where no pixel is labelled.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ccsa.blocks.spec import build_blocks
from ccsa.errors import one_of
from ccsa.modeling.layers import classifier, conv_norm_act
from ccsa.modeling.losses.category_consistent import CategoryConsistentLoss
from ccsa.modeling.semantic_heads.base import (
    Criterion,
    SupervisedHead,
    auxiliary_arguments,
    common_arguments,
    only_feature,
)

# Where the category consistent loss takes its features: index in (a, b).
TAPS = {"context_input": 0, "context_output": 1}


@SEM_SEG_HEADS_REGISTRY.register()
class CCNetHead(SupervisedHead):
    """Reduction, context, fusion with the input.

    Args:
        input_shape: of the backbone's features.
        num_classes: C.
        in_feature: what the head reads.
        channels: width of the head.
        context: blocks in order, ``{block: name in CONTEXT_BLOCK_REGISTRY, **keywords}`` each;
            none for R = 0.
        norm: a norm of Detectron2, or "".
        activation: relu or leaky_relu (slope 0.01).
        dropout: of whole channels before the classifier.
        predictor_std: standard deviation of the classifier's weights at the start.
        consistency: the category consistent loss, or None.
        consistency_at: ``context_output`` (b above) or ``context_input`` (a).
        The rest: see :class:`ccsa.modeling.semantic_heads.base.SupervisedHead`.

    Raises:
        ValueError: a setting that is not one of these.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        in_feature: str = "res5",
        channels: int = 512,
        context: Sequence[Mapping[str, Any]] = ({"block": "CrissCross", "recurrence": 2},),
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
        layer = {"norm": norm, "activation": activation}
        width = input_shape[in_feature].channels
        self.reduction = conv_norm_act(width, channels, 3, **layer)
        self.attention = build_blocks(channels, context)
        self.refine = conv_norm_act(channels, channels, 3, **layer)
        self.fusion = conv_norm_act(width + channels, channels, 3, **layer)
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = classifier(channels, num_classes, predictor_std)
        self.consistency = consistency
        self.tap = one_of(TAPS, consistency_at, "consistency_at")

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
            "in_feature": only_feature(cfg),
            "context": keys.BLOCKS,
            "consistency": consistency,
            "consistency_at": keys.CCL.AT,
            **auxiliary_arguments(cfg),
            **common_arguments(cfg),
        }

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Logits (N, num_classes, h, w) at the stride of ``in_feature``."""
        return self._logits(features)[0]

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """``loss_sem_seg``, ``loss_aux`` and, with ``consistency``, ``loss_ccl_{var,dis,reg}``."""
        logits, taps = self._logits(features)
        losses = {"loss_sem_seg": self.main_loss(logits, targets)}
        losses.update(self.auxiliary_losses(features, targets))
        if self.consistency is not None:
            losses.update(self.consistency(taps[self.tap], targets))
        return losses

    def _logits(self, features: Mapping[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The logits, and what goes into the context blocks and comes out of them."""
        x, reduced, attended = self._attend(features[self.in_feature])
        fused = self.fusion(torch.cat([x, self.refine(attended)], dim=1))
        return self.predictor(self.dropout(fused)), (reduced, attended)

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is fused and what the losses tap, (x, a, b), of the feature x."""
        reduced = self.reduction(x)
        return x, reduced, self.attention(reduced)
