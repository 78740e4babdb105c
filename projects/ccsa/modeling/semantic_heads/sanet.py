"""The segmentation head of SANet, with its three losses.

Squeeze-and-Attention Networks for Semantic Segmentation, Zhong et al., CVPR 2020, arXiv 1909.03402,
sections 3.2 and 3.3. There is no official code.

    s_i = head_i(res_i), i = 2..5        all resized to res5 and concatenated: S
    mask = 1x1 convolution of S          cross entropy
    categories = linear(mean(S))         binary cross entropy on the classes an image holds
    dense = FCN(res5) + project(s_5)     cross entropy
    loss = mask + 0.2 categories + 0.8 dense

What the paper leaves open, and what is taken here: head_i is a 1x1 convolution with norm and
activation to a common width, then the context block, so that SA, SE and no block differ by the
block alone; maps are resized bilinearly; s_5 joins the dense prediction through a 1x1 convolution
to the classes; the final prediction is dense, as the masks are said to guide it. The losses are
printed without their minus signs, and that of the categories as a sum over classes: the sum is the
default.
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
from ccsa.modeling.layers import classifier, conv_norm_act, feature
from ccsa.modeling.losses.cross_entropy import presence_loss
from ccsa.modeling.semantic_heads.base import FCN, Criterion, SemanticHead, common_arguments

# By name of the prediction: the parts that are summed.
PREDICTIONS = {"dense": ("dense",), "mask": ("mask",), "sum": ("dense", "mask")}
REDUCTIONS = {"sum": "sum", "mean": "mean"}


@SEM_SEG_HEADS_REGISTRY.register()
class SANetHead(SemanticHead):
    """SA heads on the stages, and mask, categorical and dense predictions from them.

    A part whose weight is 0 is not built. With ``blocks`` empty and the weights of mask and
    categories 0, what is left is the plain FCN on the last feature.

    Args:
        input_shape: of the backbone's features.
        num_classes: C.
        in_features: the stages, the last one with the dense FCN.
        channels: width of the dense FCN.
        stage_channels: width of each stage's head.
        blocks: the context block of each stage's head, ``{block: name in CONTEXT_BLOCK_REGISTRY,
            **keywords}``; several run in order, none is none.
        norm: a norm of Detectron2, or "".
        activation: relu or leaky_relu (slope 0.01).
        dropout: of whole channels before the classifiers.
        mask_weight, category_weight, dense_weight: of the losses.
        category_reduction: over classes, ``sum`` as printed or ``mean``.
        prediction: ``dense``, ``mask`` or their ``sum``.
        The rest: see :class:`ccsa.modeling.semantic_heads.base.SemanticHead`.

    Raises:
        ValueError: a setting that is not one of these, or a prediction from a part of weight 0.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        in_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        channels: int = 512,
        stage_channels: int = 256,
        blocks: Sequence[Mapping[str, Any]] = ({"block": "SqueezeAttention", "residual": False},),
        norm: str = "SyncBN",
        activation: str = "relu",
        dropout: float = 0.1,
        predictor_std: float = 0.01,
        mask_weight: float = 1.0,
        category_weight: float = 0.2,
        dense_weight: float = 0.8,
        category_reduction: str = "sum",
        prediction: str = "dense",
        align_corners: bool = False,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        criterion: Criterion | None = None,
    ):
        if not in_features:
            raise ValueError("SANetHead needs at least one feature, e.g. [res2, res3, res4, res5]")
        shapes = [feature(input_shape, name) for name in in_features]
        super().__init__(
            stride=shapes[-1].stride,
            align_corners=align_corners,
            ignore_value=ignore_value,
            loss_weight=loss_weight,
            criterion=criterion,
        )
        self.weights = {"mask": mask_weight, "category": category_weight, "dense": dense_weight}
        self.parts = one_of(PREDICTIONS, prediction, "prediction")
        if min(self.weights.values()) < 0 or not all(self.weights[part] for part in self.parts):
            raise ValueError(
                f"prediction '{prediction}' needs weights above 0 of {' and '.join(self.parts)}, "
                f"and none may be below 0; they are {self.weights}"
            )
        self.category_reduction = one_of(REDUCTIONS, category_reduction, "category_reduction")

        # Stages that some part reads: all for masks and categories, the last one for a block's
        # share in the dense prediction.
        self.in_features = list(in_features)
        concatenated = bool(mask_weight or category_weight)
        added = bool(dense_weight and blocks)
        used = self.in_features if concatenated else self.in_features[-1:] if added else []
        self.stages = nn.ModuleDict()
        for name in used:
            project = conv_norm_act(
                input_shape[name].channels, stage_channels, 1, norm=norm, activation=activation
            )
            self.stages[name] = nn.Sequential(project, build_blocks(stage_channels, blocks))

        total = stage_channels * len(used)
        self.dropout = nn.Dropout2d(dropout)
        self.mask = classifier(total, num_classes, predictor_std) if mask_weight else None
        self.category = nn.Linear(total, num_classes) if category_weight else None
        self.dense = self.dense_stage = None
        if dense_weight:
            layers = {"norm": norm, "activation": activation, "dropout": dropout}
            width = shapes[-1].channels
            self.dense = FCN(width, channels, num_classes, predictor_std=predictor_std, **layers)
        if added:
            self.dense_stage = classifier(stage_channels, num_classes, predictor_std)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        keys = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "in_features": keys.IN_FEATURES,
            "stage_channels": keys.SANET.CHANNELS,
            "blocks": keys.SANET.BLOCKS,
            "mask_weight": keys.SANET.MASK_WEIGHT,
            "category_weight": keys.SANET.CATEGORY_WEIGHT,
            "dense_weight": keys.SANET.DENSE_WEIGHT,
            "category_reduction": keys.SANET.CATEGORY_REDUCTION,
            "prediction": keys.SANET.PREDICTION,
            **common_arguments(cfg),
        }

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Logits (N, num_classes, h, w) of the final prediction, of the last feature's stride."""
        outputs = self._outputs(features, self.parts)
        return torch.stack([outputs[part] for part in self.parts]).sum(0)

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """``loss_mask_sem_seg``, ``loss_dense_sem_seg``, ``loss_category``: those of weight above
        0."""
        outputs = self._outputs(features, [part for part, w in self.weights.items() if w])
        losses = {
            f"loss_{part}_sem_seg": self.weights[part] * self.main_loss(outputs[part], targets)
            for part in ("mask", "dense")
            if part in outputs
        }
        if "category" in outputs:
            loss = presence_loss(
                outputs["category"], targets, self.ignore_value, self.category_reduction
            )
            losses["loss_category"] = self.weights["category"] * loss
        return losses

    def _outputs(self, features: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
        """What the named parts predict: mask and dense (N, C, h, w), category (N, C)."""
        last = self.in_features[-1]
        size = features[last].shape[-2:]
        joining = "mask" in parts or "category" in parts
        stages = {
            name: head(features[name])
            for name, head in self.stages.items()
            if joining or (name == last and self.dense_stage is not None)
        }
        outputs = {}
        if joining:
            joined = torch.cat([self.resize(s, size) for s in stages.values()], dim=1)
            if "mask" in parts:
                outputs["mask"] = self.mask(self.dropout(joined))
            if "category" in parts:
                outputs["category"] = self.category(joined.mean((2, 3)))
        if "dense" in parts:
            outputs["dense"] = self.dense(features[last])
            if self.dense_stage is not None:
                outputs["dense"] = outputs["dense"] + self.dense_stage(self.dropout(stages[last]))
        return outputs
