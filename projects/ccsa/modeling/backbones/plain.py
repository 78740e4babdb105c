"""A backbone of a few plain convolutions, whose receptive field is small and known."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor

from ccsa.errors import UserError, at_least
from ccsa.modeling.layers import conv_norm_act


@BACKBONE_REGISTRY.register()
class PlainBackbone(Backbone):
    """A sequence of 3x3 convolutions with norm and ReLU, named ``conv1``, ``conv2``, ...

    No layer is ever frozen: ``MODEL.BACKBONE.FREEZE_AT`` has no effect, because there are no
    pretrained weights.

    Args:
        input_shape: the shape of the image.
        channels: the width of each convolution.
        strides: the stride of each convolution.
        norm: a norm of Detectron2: BN, SyncBN, GN, ...

    Raises:
        UserError: the numbers of widths and strides differ, or one of them is below 1.

    Example:
        >>> PlainBackbone(ShapeSpec(channels=3), channels=[8, 16], strides=[2, 2]).output_shape()
        {'conv2': ShapeSpec(channels=16, height=None, width=None, stride=4)}
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        channels: Sequence[int] = (16, 32, 32),
        strides: Sequence[int] = (2, 2, 1),
        norm: str = "BN",
    ):
        super().__init__()
        if not channels or len(channels) != len(strides):
            raise UserError(
                "PlainBackbone needs one stride for each width, not "
                f"{list(channels)} and {list(strides)}"
            )
        width, stride = input_shape.channels or 3, 1
        for number, (out, step) in enumerate(zip(channels, strides, strict=True), 1):
            at_least(1, channels=out, strides=step)
            name = f"conv{number}"
            layer = conv_norm_act(width, out, 3, stride=step, norm=norm, activation="relu")
            self.add_module(name, layer)
            width, stride = out, stride * step
            self._out_feature_channels = {name: width}
            self._out_feature_strides = {name: stride}
        self._out_features = [name]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        keys = cfg.MODEL.PLAIN
        return {
            "input_shape": input_shape,
            "channels": keys.CHANNELS,
            "strides": keys.STRIDES,
            "norm": keys.NORM,
        }

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the feature map of the last convolution, by its name, of images (N, C, H, W)."""
        x = image
        for layer in self.children():
            x = layer(x)
        return {self._out_features[0]: x}
