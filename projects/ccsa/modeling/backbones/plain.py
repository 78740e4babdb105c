"""A backbone of plain convolutions, whose receptive field is small and known."""

from collections.abc import Sequence

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor

from ccsa.errors import at_least
from ccsa.modeling.layers import conv_norm_act


@BACKBONE_REGISTRY.register()
class PlainBackbone(Backbone):
    """3x3 convolutions with norm and ReLU, one after the other: ``conv1``, ``conv2``, ... None
    is ever frozen (``MODEL.BACKBONE.FREEZE_AT`` has no effect): there are no weights to keep.

    Args:
        input_shape: of the image.
        channels: width of each convolution.
        strides: of each convolution.
        norm: a norm of Detectron2: BN, SyncBN, GN, ...

    Raises:
        ValueError: not one stride for each width, or one below 1.
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
            raise ValueError(
                "a plain backbone needs one stride for each width, not "
                f"{list(channels)} and {list(strides)}"
            )
        width, stride = input_shape.channels, 1
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
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        keys = cfg.MODEL.PLAIN
        return {
            "input_shape": input_shape,
            "channels": keys.CHANNELS,
            "strides": keys.STRIDES,
            "norm": keys.NORM,
        }

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image (N, C, H, W) -> the last convolution's map, under its name."""
        x = image
        for layer in self.children():
            x = layer(x)
        return {self._out_features[0]: x}
