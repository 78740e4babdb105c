"""Dilated ResNet: Detectron2's ResNet, with dilation instead of stride in its last stages.

Dilated convolution follows DeepLab (Chen et al., arXiv 1606.00915), MultiGrid follows DeepLabv3
(arXiv 1706.05587). The blocks, their keys and the stems are Detectron2's, so its ImageNet weights
load unchanged.

Two layouts are in use at output stride 8. The official CCNet code dilates every block of res4 by 2
and of res5 by 4; with ``contract_dilation``, as in MMSegmentation, the first block of a dilated
stage has the dilation of the previous stage (res4: 1, 2, 2, ...; res5: 2, 4, 4).
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from detectron2.projects.deeplab.resnet import DeepLabStem
from torch import Tensor

from ccsa.errors import UserError, one_of, shown
from ccsa.modeling.layers import check_norm

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# (stride of the first block, dilation) of res2 to res5, by output stride.
STAGES = {
    8: ((1, 1), (2, 1), (1, 2), (1, 4)),
    16: ((1, 1), (2, 1), (2, 1), (1, 2)),
    32: ((1, 1), (2, 1), (2, 1), (2, 1)),
}
STEMS = {"basic": BasicStem, "deeplab": DeepLabStem}


class DilatedBasicBlock(BasicBlock):
    """Detectron2's block of ResNet-18 and 34, with dilation in both 3x3 convolutions."""

    def __init__(self, *args: Any, dilation: int = 1, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for conv in (self.conv1, self.conv2):
            conv.padding = conv.dilation = (dilation, dilation)


class CeilStem(DeepLabStem):
    """The deep stem with a max-pooling that rounds up, as in the official CCNet code.

    It only matters for even sizes: 768 pixels give 193 positions at stride 4, like 769 pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1, ceil_mode=True)


def stage_dilations(
    depth: int,
    output_stride: int,
    contract_dilation: bool = False,
    multi_grid: Sequence[int] = (),
) -> list[list[int]]:
    """Return the dilation of each block of res2 to res5.

    Args:
        depth: 18, 34, 50 or 101.
        output_stride: the stride of res5: 8, 16, or 32 for no dilation.
        contract_dilation: whether the first block of a dilated stage has the dilation of the
            previous stage.
        multi_grid: one factor for each block of res5; empty for none.

    Raises:
        UserError: a value that is not one of these.

    Example:
        >>> stage_dilations(50, 8, contract_dilation=True)
        [[1, 1, 1], [1, 1, 1, 1], [1, 2, 2, 2, 2, 2], [2, 4, 4]]
    """
    counts = one_of(BLOCKS, depth, "depth")
    dilations, previous = [], 1
    for count, (_, dilation) in zip(
        counts, one_of(STAGES, output_stride, "output_stride"), strict=True
    ):
        first = previous if contract_dilation else dilation
        dilations.append([first] + [dilation] * (count - 1))
        previous = dilation
    if multi_grid:
        if len(multi_grid) != counts[-1] or min(multi_grid) < 1:
            raise UserError(
                f"multi_grid needs {counts[-1]} factors of at least 1, one for each block of res5 "
                f"of a ResNet-{depth}, or none; not {shown(list(multi_grid))}"
            )
        dilations[-1] = [d * factor for d, factor in zip(dilations[-1], multi_grid, strict=True)]
    return dilations


def dilated_resnet(
    depth: int = 50,
    *,
    output_stride: int = 8,
    contract_dilation: bool = False,
    multi_grid: Sequence[int] = (),
    stem: str = "deeplab",
    stem_channels: int = 128,
    stem_ceil_mode: bool = False,
    res2_channels: int = 256,
    bottleneck_channels: int = 64,
    groups: int = 1,
    stride_in_1x1: bool = False,
    norm: str = "SyncBN",
    in_channels: int = 3,
    out_features: Sequence[str] = ("res4", "res5"),
    freeze_at: int = 0,
) -> ResNet:
    """Build a dilated ResNet without a configuration.

    Args:
        depth, output_stride, contract_dilation, multi_grid: see :func:`stage_dilations`.
        stem: ``basic`` (one 7x7 convolution) or ``deeplab`` (three 3x3 convolutions).
        stem_channels: the channels of the stem's output. A deep stem with 128 channels has widths
            64, 64, 128 (as in CCNet); one with 64 has 32, 32, 64 (ResNetV1c).
        stem_ceil_mode: see :class:`CeilStem`; only for the deep stem.
        res2_channels: the channels of res2's output, doubled from stage to stage; usually 64 for
            depth 18 and 34.
        bottleneck_channels, groups, stride_in_1x1: of bottleneck blocks (depth 50 and 101).
        norm: a norm of Detectron2: BN, SyncBN, FrozenBN, GN, ...
        in_channels: the channels of the image.
        out_features: the features to return, among stem, res2, ..., res5.
        freeze_at: the number of stages, counted from the stem, that are not trained, as in
            Detectron2.

    Returns:
        A backbone from images (N, C, H, W) to feature maps by name.

    Raises:
        UserError: a value out of its range.

    Example:
        >>> backbone = dilated_resnet(18, res2_channels=64, norm="BN")
        >>> backbone.output_shape()["res5"].stride
        8
    """
    counts, strides = one_of(BLOCKS, depth, "depth"), one_of(STAGES, output_stride, "output_stride")
    make_stem = one_of(STEMS, stem, "stem")
    if stem_ceil_mode:
        make_stem = one_of({"deeplab": CeilStem}, stem, "with stem_ceil_mode, stem")
    names = ["stem", *(f"res{i}" for i in range(2, 6))]
    if not out_features or set(out_features) - set(names):
        raise UserError(
            f"out_features must be among {', '.join(names)}, not {shown(list(out_features))}"
        )
    check_norm(norm)
    basic = depth < 50
    if basic and groups != 1:
        raise UserError(f"a ResNet-{depth} has groups 1, not {groups}")

    stages = []
    dilations = stage_dilations(depth, output_stride, contract_dilation, multi_grid)
    previous = stem_channels
    for i, (count, (stride, _), dilation) in enumerate(
        zip(counts, strides, dilations, strict=True)
    ):
        bottleneck = {
            "bottleneck_channels": groups * bottleneck_channels * 2**i,
            "num_groups": groups,
            "stride_in_1x1": stride_in_1x1,
        }
        channels = res2_channels * 2**i
        stages.append(
            ResNet.make_stage(
                DilatedBasicBlock if basic else BottleneckBlock,
                count,
                in_channels=previous,
                out_channels=channels,
                stride_per_block=[stride] + [1] * (count - 1),
                dilation_per_block=dilation,
                norm=norm,
                **({} if basic else bottleneck),
            )
        )
        previous = channels
    first = make_stem(in_channels, stem_channels, norm)
    return ResNet(first, stages, out_features=list(out_features), freeze_at=freeze_at)


@BACKBONE_REGISTRY.register()
def build_dilated_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build the dilated ResNet that ``MODEL.RESNETS`` describes; see :func:`dilated_resnet`.

    Raises:
        UserError: a value is out of its range, or a setting of Detectron2's ResNet has no effect.
    """
    keys = cfg.MODEL.RESNETS
    if keys.RES5_DILATION != 1 or any(keys.DEFORM_ON_PER_STAGE):
        raise UserError(
            "build_dilated_resnet_backbone takes its dilation from MODEL.RESNETS.OUTPUT_STRIDE and "
            "has no deformable convolution: leave RES5_DILATION at 1 and DEFORM_ON_PER_STAGE False"
        )
    return dilated_resnet(
        keys.DEPTH,
        output_stride=keys.OUTPUT_STRIDE,
        contract_dilation=keys.CONTRACT_DILATION,
        multi_grid=keys.RES5_MULTI_GRID,
        stem=keys.STEM_TYPE,
        stem_channels=keys.STEM_OUT_CHANNELS,
        stem_ceil_mode=keys.STEM_CEIL_MODE,
        res2_channels=keys.RES2_OUT_CHANNELS,
        bottleneck_channels=keys.WIDTH_PER_GROUP,
        groups=keys.NUM_GROUPS,
        stride_in_1x1=keys.STRIDE_IN_1X1,
        norm=keys.NORM,
        in_channels=input_shape.channels,
        out_features=keys.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
