"""What the semantic heads have in common: their contract with Detectron2, the plain FCN, auxiliary
supervision.

Fully Convolutional Networks, Long et al., CVPR 2015; auxiliary supervision of res4 with weight 0.4:
Pyramid Scene Parsing Network, Zhao et al., CVPR 2017, arXiv 1612.01105, as CCNet takes it over.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ccsa.modeling.layers import classifier, conv_norm_act, feature, resize
from ccsa.modeling.losses.cross_entropy import CrossEntropy, OhemCrossEntropy, cross_entropy

Criterion = Callable[[Tensor, Tensor], Tensor]


class FCN(nn.Module):
    """3x3 convolution, norm, activation, dropout of whole channels, 1x1 classifier.

    The convolution has a bias beside its norm, as the official CCNet code has in this place.
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
        """(N, in_channels, H, W) -> logits (N, num_classes, H, W)."""
        return self.predictor(self.dropout(self.conv(x)))


class SemanticHead(nn.Module):
    """A head as Detectron2's meta-architectures call it; subclasses give :meth:`layers` and
    :meth:`losses`.

    Args:
        stride: of the logits that :meth:`layers` returns.
        ignore_value: the label of unlabelled pixels.
        loss_weight: factor of every loss.
        align_corners: whether corners of the logits lie on corners of the image when they are
            resized: true in the official CCNet code, where sizes are 8 n + 1 pixels.
        criterion: called as (logits, labels) for the main prediction; cross entropy by default.
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
        """Logits (N, num_classes, H / stride, W / stride), given by each head."""
        raise TypeError(f"{type(self).__name__} gives no layers()")

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """The head's losses by name, before ``loss_weight``, given by each head."""
        raise TypeError(f"{type(self).__name__} gives no losses()")

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """As Detectron2's heads.

        Args:
            features: of the backbone, by name.
            targets: (N, H, W) labels, in training.

        Returns:
            In training None and the losses; else logits, upsampled by ``stride``, and no losses.

        Raises:
            ValueError: training without labels.
        """
        if not self.training:
            logits = self.layers(features)
            return self.resize(logits, [n * self.stride for n in logits.shape[-2:]]), {}
        if targets is None:
            raise ValueError("a semantic head trains on 'sem_seg' labels, but the data have none")
        losses = self.losses(features, targets)
        return None, {name: self.loss_weight * loss for name, loss in losses.items()}

    def resize(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Maps (N, C, h, w) in another size, as this head places them on the image."""
        return resize(x, size, self.align_corners)

    def main_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The criterion on logits (N, C, h, w), brought to the size of the labels."""
        return self.criterion(self.resize(logits, targets.shape[-2:]), targets)

    def plain_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy on logits (N, C, h, w), brought to the size of the labels."""
        logits = self.resize(logits, targets.shape[-2:])
        return cross_entropy(logits, targets, self.ignore_value)


def common_arguments(cfg: CfgNode) -> dict[str, Any]:
    """The arguments that every head takes, of ``MODEL.SEM_SEG_HEAD``.

    Raises:
        ValueError: class weights that are not one for each class.
    """
    keys = cfg.MODEL.SEM_SEG_HEAD
    weights = keys.CLASS_WEIGHTS
    if weights and len(weights) != keys.NUM_CLASSES:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS needs a weight for each of the {keys.NUM_CLASSES} "
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


def auxiliary_arguments(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of auxiliary supervision, of ``MODEL.SEM_SEG_HEAD.AUX``."""
    keys = cfg.MODEL.SEM_SEG_HEAD.AUX
    return {
        "aux_feature": keys.IN_FEATURE,
        "aux_channels": keys.CHANNELS,
        "aux_weight": keys.WEIGHT,
    }


def only_feature(cfg: CfgNode) -> str:
    """The one feature that ``MODEL.SEM_SEG_HEAD.IN_FEATURES`` must name.

    Raises:
        ValueError: it names none or several.
    """
    names = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
    if len(names) != 1:
        raise ValueError(
            f"{cfg.MODEL.SEM_SEG_HEAD.NAME} takes one feature: set MODEL.SEM_SEG_HEAD.IN_FEATURES "
            f'to one, such as ["res5"] of a ResNet or ["p3"] of an FPN, not {list(names)}'
        )
    return names[0]


class SupervisedHead(SemanticHead):
    """A head on one feature, with an FCN on an earlier one that helps in training only.

    Args:
        in_feature: what the head reads.
        aux_feature, aux_channels, aux_weight: what the auxiliary FCN reads, its width, and the
            factor of its loss; 0 for none.

    Raises:
        ValueError: a feature that the backbone does not give.
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
        super().__init__(stride=feature(input_shape, in_feature).stride, **common)
        self.in_feature, self.aux_feature, self.aux_weight = in_feature, aux_feature, aux_weight
        self.auxiliary = None
        if aux_weight:
            shape = feature(input_shape, aux_feature)
            layers = {"norm": norm, "activation": activation, "dropout": dropout}
            self.auxiliary = FCN(shape.channels, aux_channels, num_classes, **layers)

    def auxiliary_losses(
        self, features: Mapping[str, Tensor], targets: Tensor
    ) -> dict[str, Tensor]:
        """``loss_aux``, plain cross entropy, or nothing where there is no auxiliary FCN."""
        if self.auxiliary is None:
            return {}
        loss = self.plain_loss(self.auxiliary(features[self.aux_feature]), targets)
        return {"loss_aux": self.aux_weight * loss}


@SEM_SEG_HEADS_REGISTRY.register()
class FCNHead(SupervisedHead):
    """The plain twin of the other heads: an FCN, and an auxiliary FCN.

    Args:
        input_shape: of the backbone's features.
        num_classes: C.
        channels: width of the 3x3 convolution.
        norm: a norm of Detectron2, or "".
        activation: relu or leaky_relu (slope 0.01).
        dropout: of whole channels before the classifier.
        predictor_std: standard deviation of the classifier's weights at the start.
        The rest: see :class:`SupervisedHead` and :class:`SemanticHead`.

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
        layers = {"norm": norm, "activation": activation, "dropout": dropout}
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
            **layers,
        )
        width = input_shape[in_feature].channels
        self.fcn = FCN(width, channels, num_classes, predictor_std=predictor_std, **layers)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        return {
            "input_shape": input_shape,
            "in_feature": only_feature(cfg),
            **auxiliary_arguments(cfg),
            **common_arguments(cfg),
        }

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.fcn(features[self.in_feature])

    def losses(self, features: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        loss = self.main_loss(self.layers(features), targets)
        return {"loss_sem_seg": loss, **self.auxiliary_losses(features, targets)}
