"""Backbones from timm (PyTorch Image Models, Ross Wightman): EfficientNet, ConvNeXt, ResNet-D, ...

Every timm model that returns feature maps (``features_only``) can be a backbone. Its feature maps
are named like those of a ResNet, so that heads and FPN need no change: ``res5`` is the last level,
``res4`` the one before it, and so on. timm has no such names: several levels of a dilated network
have the same stride, and some networks have a level of stride 2, ``res1``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from ccsa.errors import UserError, one_of, shown
from ccsa.modeling.backbones.timm_models import check_name, import_timm
from ccsa.modeling.pixel_normalization import check_pixel_constants

LEVELS = tuple(f"res{i}" for i in range(6))
OUTPUT_STRIDES = (8, 16, 32)
TIMM_NORMS = ("", "SyncBN", "FrozenBN")

# What timm raises for arguments and image sizes that a model does not support.
_TIMM_ERRORS = (TypeError, AssertionError, RuntimeError, ValueError, LookupError)


class TimmBackbone(Backbone):
    """A timm model that returns feature maps.

    Args:
        name: a model of ``timm.list_models()``, with or without the tag of its weights.
        output_stride: the stride of the last level: 32; also 8 or 16 if the model can be dilated.
        out_features: the levels to return, in order, among res1 (if the model has it), ..., res5.
        norm: an empty string for the model's own norms; ``SyncBN`` or ``FrozenBN`` converts its
            batch norms.
        freeze_at: the number of stages that are not trained, as in Detectron2: 1 is the stem, 2
            also res2.
        in_channels: the channels of the image.
        arguments: further keywords for ``timm.create_model``.

    Attributes:
        net: timm's network.

    Raises:
        UserError: timm is not installed, does not have the model, or cannot build it so.

    Example:
        >>> backbone = TimmBackbone("test_resnet", out_features=["res4", "res5"])
        >>> {name: x.shape[2:] for name, x in backbone(torch.zeros(1, 3, 64, 96)).items()}
        {'res4': torch.Size([4, 6]), 'res5': torch.Size([2, 3])}
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
        one_of(OUTPUT_STRIDES, output_stride, "output_stride")
        one_of(TIMM_NORMS, norm, "the norm of a timm backbone")
        if not out_features or list(out_features) != [n for n in LEVELS if n in out_features]:
            listed = ", ".join(LEVELS[1:])
            raise UserError(
                f"out_features must be among {listed}, in order, not {shown(out_features)}"
            )
        check_name(name)
        self.name, self._out_features = name, list(out_features)
        self._arguments = {
            "features_only": True,
            # Negative, because models differ in their number of levels.
            "out_indices": tuple(LEVELS.index(n) - len(LEVELS) for n in out_features),
            "in_chans": in_channels,
            **({"output_stride": output_stride} if output_stride != 32 else {}),
            **(arguments or {}),
        }
        with torch.device("meta"):
            probe = self._create_network()
        kind = type(probe).__name__
        if kind == "EfficientNetFeatures" or (
            kind == "MobileNetV3Features" and output_stride == 32
        ):
            # These classes also build unused stages, as one module that cannot be frozen in part:
            # use the generic class. But MobileNetV3 can only be dilated by its own class.
            self._arguments["feature_cfg"] = {"flatten_sequential": True}
            with torch.device("meta"):
                probe = self._create_network()
        info: Any = probe.feature_info
        self._out_feature_channels = dict(zip(out_features, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(out_features, info.reduction(), strict=True))
        if max(info.reduction()) > output_stride:
            raise UserError(f"timm's {name} cannot be dilated: MODEL.TIMM.OUTPUT_STRIDE must be 32")
        self._channels_last = getattr(probe, "output_fmt", None) == "NHWC"
        self._size_divisibility = self._find_size_divisibility(probe, in_channels)
        self.net = self._create_network()
        # The frozen modules, without context blocks that are attached to them later.
        self._frozen: list[nn.Module] = []
        self._set_norm(norm, freeze_at)

    @property
    def size_divisibility(self) -> int:
        """Return the number that image sizes must be divisible by; Detectron2 pads images to it.

        It is 0 if an incomplete stride at the border gives a position, as with the padding of a
        ResNet. Otherwise padding keeps the network from cutting off the border.
        """
        return self._size_divisibility

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return feature maps by name, the finest first, of images (N, C, H, W)."""
        return dict(zip(self._out_features, self._channels_first(self.net(image)), strict=True))

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Set the mode; frozen stages stay in evaluation mode and therefore drop nothing."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def create_network(self, **keywords: Any) -> nn.Module:
        """Return a new network with the arguments of this backbone, as timm builds it.

        Args:
            keywords: further keywords for ``timm.create_model``, such as ``pretrained``.

        Raises:
            Exception: whatever timm raises.
        """
        return import_timm().create_model(self.name, **self._arguments, **keywords)

    def _create_network(self) -> nn.Module:
        try:
            return self.create_network()
        except UserError:
            raise
        except _TIMM_ERRORS as error:
            raise UserError(
                f"timm's {self.name} cannot be built with {', '.join(self._out_features)} and "
                f"{self._arguments}: {error or type(error).__name__}; MODEL.TIMM.OUTPUT_STRIDE 32 "
                "and no ARGUMENTS work for every model"
            ) from error

    def _channels_first(self, maps: list[Tensor]) -> list[Tensor]:
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else maps

    def _find_size_divisibility(self, probe: nn.Module, in_channels: int) -> int:
        """Return the number that image sizes must be divisible by, or 0 if any size works.

        Args:
            probe: a network on the meta device, which computes shapes only.
            in_channels: the channels of the image.

        Raises:
            UserError: the network does not even accept multiples of its largest stride.
        """
        divisor, reason = max(self._out_feature_strides.values()), ""
        for size, result in ((97, 0), (96, divisor)):
            expected = [
                (1, channels, *[-(-size // self._out_feature_strides[name])] * 2)
                for name, channels in self._out_feature_channels.items()
            ]
            image = torch.zeros(1, in_channels, size, size, device="meta")
            try:
                maps = probe(image)
            except UserError:
                raise
            except _TIMM_ERRORS as error:
                reason = str(error)
                continue
            shapes = [tuple(x.shape) for x in self._channels_first(maps)]
            if shapes == expected:
                return result
            reason = f"feature maps of {shapes}, not {expected}"
        raise UserError(
            f"timm's {self.name} does not accept images of any size ({reason}); a transformer may "
            "with MODEL.TIMM.ARGUMENTS [{dynamic_img_size: true}] or [{strict_img_size: false}]"
        )

    def _set_norm(self, norm: str, freeze_at: int) -> None:
        from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d

        if norm == "SyncBN":
            self.net = convert_sync_batchnorm(self.net)
        elif norm == "FrozenBN":
            self.net = freeze_batch_norm_2d(self.net)
        for name in self._frozen_children(freeze_at):
            # timm's batch norms may contain the activation, which Detectron2's conversion loses.
            child = freeze_batch_norm_2d(self.net.get_submodule(name))
            self.net.add_module(name, child.requires_grad_(False))
            self._frozen += child.modules()
        self.train()

    def _frozen_children(self, freeze_at: int) -> list[str]:
        """Return the children of the network that belong to the stages up to ``freeze_at``.

        Raises:
            UserError: the children do not correspond to stages, or there are fewer stages.
        """
        if freeze_at < 1:
            return []
        children = [name for name, _ in self.net.named_children()]
        feature_info: Any = self.net.feature_info
        modules = [level["module"].replace(".", "_") for level in feature_info.info]
        ends = dict(zip(reversed(LEVELS), reversed(modules), strict=False))
        last, res2 = ends.get(LEVELS[min(freeze_at, 5)]), ends.get("res2")
        if last in children:
            return children[: children.index(last) + 1]
        if freeze_at == 1 and res2 in children:
            return children[: children.index(res2)]
        raise UserError(
            f"timm's {self.name} has no stages that can be frozen up to "
            f"MODEL.BACKBONE.FREEZE_AT {freeze_at}, or has fewer stages: set it to 0"
        )


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build the timm model that ``MODEL.TIMM`` describes; see :class:`TimmBackbone`.

    Raises:
        UserError: see there; also if the pixel constants are those of another network.
    """
    check_pixel_constants(cfg)
    keys = cfg.MODEL.TIMM
    return TimmBackbone(
        keys.NAME,
        output_stride=keys.OUTPUT_STRIDE,
        out_features=keys.OUT_FEATURES,
        norm=keys.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        arguments={key: value for entry in keys.ARGUMENTS for key, value in entry.items()},
    )


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build an FPN, described by ``MODEL.FPN``, on the timm model.

    Raises:
        UserError: see :class:`TimmBackbone`; also for a dilated model, whose strides do not double.
    """
    if cfg.MODEL.TIMM.OUTPUT_STRIDE != 32:
        raise UserError(
            "an FPN needs strides that double from level to level: MODEL.TIMM.OUTPUT_STRIDE must "
            "be 32"
        )
    return FPN(
        bottom_up=build_timm_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
