"""Backbones from timm (PyTorch Image Models, Ross Wightman): EfficientNet, ConvNeXt, ResNet-D, ...

Any of its models that gives feature maps (``features_only``) becomes a backbone whose maps are
named as a ResNet's: ``res5`` is the last level, ``res4`` the one before, and so on, so heads and
FPN take them as they are. timm does not call them so: in a dilated network several levels have one
stride, and some networks have a level of stride 2, ``res1``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from ccsa.errors import one_of
from ccsa.modeling.backbones.timm_models import check_name, import_timm
from ccsa.modeling.pixels import check_pixels

LEVELS = tuple(f"res{i}" for i in range(6))
OUTPUT_STRIDES = (8, 16, 32)
NORMS = ("", "SyncBN", "FrozenBN")
_REFUSALS = (TypeError, AssertionError, RuntimeError, ValueError, LookupError)


class TimmBackbone(Backbone):
    """A timm model's feature maps.

    Args:
        name: a model of ``timm.list_models()``, with a tag of its weights or without.
        output_stride: of the last level: 32, or 8 or 16 where the model can be dilated.
        out_features: among res1 (where the model has it), ..., res5, in that order.
        norm: "" for the model's own; its batch norms made "SyncBN" or "FrozenBN".
        freeze_at: as in Detectron2, stages from the stem (1) on that do not train: 2 is res2.
        in_channels: of the image.
        arguments: more keywords for ``timm.create_model``.

    Raises:
        UserError: timm is not installed.
        ValueError: an unknown model, or a setting that it cannot be built with.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 32,
        out_features: Sequence[str] = LEVELS[2:],
        norm: str = "",
        freeze_at: int = 0,
        in_channels: int = 3,
        arguments: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        one_of(dict.fromkeys(OUTPUT_STRIDES), output_stride, "output_stride")
        one_of(dict.fromkeys(NORMS), norm, "norm of a backbone from timm")
        if not out_features or list(out_features) != [n for n in LEVELS if n in out_features]:
            listed = ", ".join(LEVELS[1:])
            raise ValueError(f"out_features must be of {listed}, in order, not {out_features}")
        self.name, self._out_features = name, list(out_features)
        self._arguments = {
            "features_only": True,
            # Counted from the end: models differ in how many levels they have.
            "out_indices": tuple(LEVELS.index(n) - len(LEVELS) for n in out_features),
            "in_chans": in_channels,
            **({"output_stride": output_stride} if output_stride != 32 else {}),
            **(arguments or {}),
        }
        with torch.device("meta"):
            probe = self.create_network()
        kind = type(probe).__name__
        if kind == "EfficientNetFeatures" or (
            kind == "MobileNetV3Features" and output_stride == 32
        ):
            # timm's classes of their own build the stages that nobody asked for, in one piece that
            # cannot be frozen in part; but MobileNetV3 is dilated in its own class alone.
            self._arguments["feature_cfg"] = {"flatten_sequential": True}
            with torch.device("meta"):
                probe = self.create_network()
        info = probe.feature_info
        self._out_feature_channels = dict(zip(out_features, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(out_features, info.reduction(), strict=True))
        if max(info.reduction()) > output_stride:
            raise ValueError(
                f"timm's {name} cannot be dilated: MODEL.TIMM.OUTPUT_STRIDE must be 32"
            )
        self._channels_last = getattr(probe, "output_fmt", None) == "NHWC"
        self._size_divisibility = self._divisor(probe, in_channels)
        self.net = self.create_network()
        self._fixed: list[nn.Module] = []  # what is frozen, without blocks that come later
        self._set_norm(norm, freeze_at)

    @property
    def size_divisibility(self) -> int:
        """0 where an incomplete stride at the border gives a position, as with the padding of a
        ResNet; else images are padded so that the network cuts nothing off."""
        return self._size_divisibility

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image (N, C, H, W) -> maps by name, finest first."""
        return dict(zip(self._out_features, self._maps(self.net, image), strict=True))

    def train(self, mode: bool = True) -> "TimmBackbone":
        """As of any module, but frozen stages stay as at test time: they drop nothing."""
        super().train(mode)
        for module in self._fixed:
            module.training = False
        return self

    def create_network(self, **more: Any) -> nn.Module:
        timm = import_timm()
        check_name(self.name)
        try:
            return timm.create_model(self.name, **self._arguments, **more)
        except _REFUSALS as error:
            if more:
                raise
            raise ValueError(
                f"timm's {self.name} cannot be built with {', '.join(self._out_features)} and "
                f"{self._arguments}: {error or type(error).__name__}; MODEL.TIMM.OUTPUT_STRIDE 32 "
                "and no ARGUMENTS suit every model"
            ) from error

    def _maps(self, net: nn.Module, image: Tensor) -> list[Tensor]:
        maps = net(image)
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else maps

    def _divisor(self, probe: nn.Module, in_channels: int) -> int:
        """What sizes must divide by, found by sizes of maps; 0 for nothing."""
        divisor, reason = max(self._out_feature_strides.values()), ""
        for size, answer in ((97, 0), (96, divisor)):
            wanted = [
                (1, shape.channels, *[-(-size // shape.stride)] * 2)
                for shape in self.output_shape().values()
            ]
            try:
                maps = self._maps(probe, torch.zeros(1, in_channels, size, size, device="meta"))
            except _REFUSALS as error:
                reason = str(error)
                continue
            shapes = [tuple(x.shape) for x in maps]
            if shapes == wanted:
                return answer
            reason = f"maps of {shapes}, not {wanted}"
        raise ValueError(
            f"timm's {self.name} does not take images of any size ({reason}); a transformer may "
            "with MODEL.TIMM.ARGUMENTS [{dynamic_img_size: true}] or [{strict_img_size: false}]"
        )

    def _set_norm(self, norm: str, freeze_at: int) -> None:
        from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d

        if norm == "SyncBN":
            self.net = convert_sync_batchnorm(self.net)
        elif norm == "FrozenBN":
            self.net = freeze_batch_norm_2d(self.net)
        for name in self._frozen(freeze_at):
            # timm's batch norms may hold the activation, which Detectron2's conversion would lose.
            child = freeze_batch_norm_2d(self.net.get_submodule(name))
            self.net.add_module(name, child.requires_grad_(False))
            self._fixed += child.modules()
        self.train()

    def _frozen(self, freeze_at: int) -> list[str]:
        """Children of the network, which run in their order, that stages up to ``freeze_at``
        have."""
        if freeze_at < 1:
            return []
        children = [name for name, _ in self.net.named_children()]
        modules = [level["module"].replace(".", "_") for level in self.net.feature_info.info]
        ends = dict(zip(reversed(LEVELS), reversed(modules), strict=False))
        last, res2 = ends.get(LEVELS[min(freeze_at, 5)]), ends.get("res2")
        if last in children:
            return children[: children.index(last) + 1]
        if freeze_at == 1 and res2 in children:
            return children[: children.index(res2)]
        raise ValueError(
            f"timm's {self.name} has no stages that could be frozen up to "
            f"MODEL.BACKBONE.FREEZE_AT {freeze_at}, or ends before: make that 0"
        )


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The timm model that ``MODEL.TIMM`` describes; see :class:`TimmBackbone`.

    Raises:
        ValueError: see there; or pixels that would be scaled as for another network.
    """
    check_pixels(cfg)
    keys = cfg.MODEL.TIMM
    return TimmBackbone(
        keys.NAME,
        output_stride=keys.OUTPUT_STRIDE,
        out_features=keys.OUT_FEATURES,
        norm=keys.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        arguments={key: value for line in keys.ARGUMENTS for key, value in line.items()},
    )


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """An FPN, as ``MODEL.FPN`` describes it, on the timm model.

    Raises:
        ValueError: a dilated model, whose levels do not halve.
    """
    if cfg.MODEL.TIMM.OUTPUT_STRIDE != 32:
        raise ValueError("an FPN needs levels that halve: MODEL.TIMM.OUTPUT_STRIDE must be 32")
    return FPN(
        bottom_up=build_timm_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
