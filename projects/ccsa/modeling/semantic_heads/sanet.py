"""The segmentation head of SANet, with its three losses.

Squeeze-and-Attention Networks for Semantic Segmentation, Zhong et al., CVPR 2020, arXiv 1909.03402,
sections 3.2 and 3.3. There is no official code.

    s_i = head_i(res_i), i = 2..5        all resized to res5 and concatenated: S
    mask = 1x1 convolution of S          cross entropy
    categories = linear(mean(S))         binary cross entropy of the classes present in an image
    dense = FCN(res5) + project(s_5)     cross entropy
    loss = mask + 0.2 categories + 0.8 dense

The paper leaves several points open; this is what is implemented. head_i is a 1x1 convolution with
norm and activation to a common width, followed by the context block, so that SA, SE and the
baseline differ only in the block. Feature maps are resized bilinearly. s_5 is added to the dense
prediction through a 1x1 convolution to the classes. The final prediction is the dense one, because
the paper describes the masks as its guidance. The losses are printed without their minus signs, and
the categorical loss as a sum over classes; the sum is the default.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ccsa.blocks.spec import BlockSpec, build_blocks
from ccsa.errors import UserError, one_of
from ccsa.modeling.layers import classifier, conv_norm_act, feature_shape
from ccsa.modeling.losses.cross_entropy import presence_loss
from ccsa.modeling.semantic_heads.fcn import FCN
from ccsa.modeling.semantic_heads.semantic_head import Criterion, SemanticHead, common_arguments

# The outputs whose logits are added, by name of the final prediction.
PREDICTIONS = {"dense": ("dense",), "mask": ("mask",), "sum": ("dense", "mask")}
REDUCTIONS = ("sum", "mean")


@SEM_SEG_HEADS_REGISTRY.register()
class SANetHead(SemanticHead):
    """SANet's head: SA heads on the stages, and mask, categorical and dense predictions from them.

    An output whose weight is 0 is not built. With no ``blocks`` and with the weights of mask and
    categories 0, the head is the plain FCN on the last feature.

    Args:
        input_shape: the shapes of the backbone's features, by name.
        num_classes: the number of classes.
        in_features: the stages; the last one also feeds the dense FCN.
        channels: the width of the dense FCN.
        stage_channels: the width of the head of each stage.
        blocks: the context blocks of each stage's head in order, each ``{block: name,
            **keywords}``; see :func:`ccsa.blocks.spec.parse_block_spec`. The list may be empty.
        norm: a norm of Detectron2, or an empty string.
        activation: a name in :data:`ccsa.blocks.layers.ACTIVATIONS`; ``leaky_relu`` has slope 0.01.
        dropout: the probability of dropping a whole channel before the classifiers.
        predictor_std: the standard deviation of the classifiers' initial weights.
        mask_weight, category_weight, dense_weight: factors for the three losses.
        category_reduction: over classes, ``sum`` as printed in the paper, or ``mean``.
        prediction: ``dense``, ``mask``, or their ``sum``.
        align_corners, ignore_value, loss_weight, criterion: see :class:`SemanticHead`.

    Raises:
        UserError: an invalid setting, or a prediction from an output of weight 0.

    Example:
        >>> shapes = {f"res{i}": ShapeSpec(channels=8, stride=8) for i in range(2, 6)}
        >>> head = SANetHead(shapes, num_classes=19, channels=16, stage_channels=16, norm="BN")
        >>> head.layers({name: torch.zeros(2, 8, 33, 41) for name in shapes}).shape
        torch.Size([2, 19, 33, 41])
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
        blocks: Sequence[Mapping[str, Any] | BlockSpec] = (
            {"block": "SqueezeAttention", "residual": False},
        ),
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
            raise UserError("SANetHead needs at least one feature, e.g. [res2, res3, res4, res5]")
        shapes = {name: feature_shape(input_shape, name) for name in in_features}
        last_channels, last_stride = shapes[in_features[-1]]
        super().__init__(
            stride=last_stride,
            align_corners=align_corners,
            ignore_value=ignore_value,
            loss_weight=loss_weight,
            criterion=criterion,
        )
        self.weights = {"mask": mask_weight, "category": category_weight, "dense": dense_weight}
        self.parts = one_of(PREDICTIONS, prediction, "prediction")
        if min(self.weights.values()) < 0 or not all(self.weights[part] for part in self.parts):
            raise UserError(
                f"prediction '{prediction}' needs weights above 0 of {' and '.join(self.parts)}, "
                f"and none may be below 0; they are {self.weights}"
            )
        self.category_reduction = one_of(REDUCTIONS, category_reduction, "category_reduction")

        # Build only the heads of stages that are used: masks and categories need all of them, the
        # dense prediction only the last one, and only if it has a block.
        self.in_features = list(in_features)
        uses_all_stages = bool(mask_weight or category_weight)
        adds_last_stage = bool(dense_weight and blocks)
        if uses_all_stages:
            used = self.in_features
        else:
            used = self.in_features[-1:] if adds_last_stage else []
        self.stages = nn.ModuleDict()
        for name in used:
            project = conv_norm_act(
                shapes[name][0], stage_channels, 1, norm=norm, activation=activation
            )
            self.stages[name] = nn.Sequential(project, build_blocks(stage_channels, blocks))

        total = stage_channels * len(used)
        self.dropout = nn.Dropout2d(dropout)
        self.mask = classifier(total, num_classes, predictor_std) if mask_weight else None
        self.category = nn.Linear(total, num_classes) if category_weight else None
        self.dense = self.dense_stage = None
        if dense_weight:
            self.dense = FCN(
                last_channels,
                channels,
                num_classes,
                norm=norm,
                activation=activation,
                dropout=dropout,
                predictor_std=predictor_std,
            )
        if adds_last_stage:
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
        """Return the final logits (N, num_classes, h, w) at the stride of the last feature."""
        outputs = self._outputs(features, self.parts)
        return torch.stack([outputs[part] for part in self.parts]).sum(0)

    def class_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of every output and the part of every stage in those of the masks.

        Args:
            features: the feature maps of the backbone, by name.

        Returns:
            ``prediction`` (see :meth:`layers`), and as far as they are built ``mask``, ``dense``
            (N, num_classes, h, w), ``category`` (N, num_classes), and for the name of each stage
            (N, num_classes, h, w): what the stage adds to ``mask``, whose classifier is a 1x1
            convolution. Their sum plus the bias is ``mask``.
        """
        names = [part for part, weight in self.weights.items() if weight]
        stages = self._stages(features, names)
        outputs = self._outputs(features, names, stages)
        scores = {"prediction": torch.stack([outputs[part] for part in self.parts]).sum(0)}
        if self.mask is not None:
            size = features[self.in_features[-1]].shape[-2:]
            weights = self.mask.weight.chunk(len(self.stages), dim=1)
            for (name, stage), weight in zip(stages.items(), weights, strict=True):
                scores[name] = F.conv2d(self.resize(stage, size), weight)
        return {**scores, **outputs}

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return ``loss_mask_sem_seg``, ``loss_dense_sem_seg`` and ``loss_category``, as far as
        their weights are above 0."""
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

    def _stages(self, features: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of the stages that the named outputs need, (N, C, h_i, w_i)."""
        all_stages = _need_all_stages(parts)
        last = self.in_features[-1]
        return {
            name: head(features[name])
            for name, head in self.stages.items()
            if all_stages or (name == last and self.dense_stage is not None)
        }

    def _outputs(
        self,
        features: Mapping[str, Tensor],
        parts: Sequence[str],
        stages: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the named outputs: mask and dense (N, C, h, w), category (N, C)."""
        last = self.in_features[-1]
        size = features[last].shape[-2:]
        if stages is None:
            stages = self._stages(features, parts)
        outputs: dict[str, Tensor] = {}
        if _need_all_stages(parts):
            joined = torch.cat([self.resize(s, size) for s in stages.values()], dim=1)
            if "mask" in parts and self.mask is not None:
                outputs["mask"] = self.mask(self.dropout(joined))
            if "category" in parts and self.category is not None:
                outputs["category"] = self.category(joined.mean((2, 3)))
        if "dense" in parts and self.dense is not None:
            outputs["dense"] = self.dense(features[last])
            if self.dense_stage is not None:
                outputs["dense"] = outputs["dense"] + self.dense_stage(self.dropout(stages[last]))
        return outputs


def _need_all_stages(parts: Sequence[str]) -> bool:
    return "mask" in parts or "category" in parts
