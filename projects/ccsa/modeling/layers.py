"""Layers and resizing functions shared by the backbones, semantic heads and losses."""

from collections.abc import Mapping, Sequence

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ccsa.blocks.layers import ACTIVATIONS
from ccsa.errors import UserError, one_of, shown

# The names that Detectron2's get_norm knows. Backbones and heads use its norms, so that frozen and
# synchronized norms are those of Detectron2's models.
DETECTRON2_NORMS = (
    "BN",
    "SyncBN",
    "FrozenBN",
    "GN",
    "LN",
    "naiveSyncBN",
    "naiveSyncBN_N",
    "nnSyncBN",
)


def check_norm(norm: str) -> None:
    """Check that Detectron2 has a norm of this name; an empty string means no norm.

    Raises:
        UserError: it does not.
    """
    if norm and norm not in DETECTRON2_NORMS:
        raise UserError(
            f'norm must be "" or one of {", ".join(DETECTRON2_NORMS)}, not {shown(norm)}'
        )


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    norm: str,
    activation: str,
    stride: int = 1,
    bias: bool | None = None,
) -> Conv2d:
    """Return a convolution with norm and activation, (N, in_channels, H, W) -> (N, out_channels,
    ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels, out_channels, kernel_size, stride: as in ``nn.Conv2d``; the kernel size is odd.
        norm: a norm of Detectron2, or an empty string.
        activation: a name in :data:`ccsa.blocks.layers.ACTIVATIONS`.
        bias: whether the convolution has a bias; by default only if there is no norm.

    Raises:
        UserError: an unknown norm or activation.
    """
    check_norm(norm)
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=not norm if bias is None else bias,
        norm=get_norm(norm, out_channels),
        activation=one_of(ACTIVATIONS, activation, "activation")(),
    )
    weight_init.c2_msra_fill(conv)
    return conv


def classifier(in_channels: int, num_classes: int, std: float = 0.01) -> nn.Conv2d:
    """Return a 1x1 convolution to logits whose weights start with standard deviation ``std``."""
    conv = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=std)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # the bias exists by default
    return conv


def feature_shape(shapes: Mapping[str, ShapeSpec], name: str) -> tuple[int, int]:
    """Return the channels and the stride of a backbone feature that a head needs.

    Raises:
        UserError: the backbone does not return this feature.
    """
    if name not in shapes:
        raise UserError(
            f"the head needs feature '{name}', but the backbone returns {', '.join(shapes)}"
        )
    shape = shapes[name]
    assert shape.channels is not None and shape.stride is not None  # backbones always state them
    return shape.channels, shape.stride


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resize (N, C, H, W) to (N, C, *size) bilinearly; return ``x`` itself if it has that size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def resize_labels(labels: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Resize (N, H, W) to (N, *size): take the label nearest to where :func:`resize` samples."""
    rows, columns = (
        _nearest_indices(length, target, align_corners).to(labels.device)
        for length, target in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def _nearest_indices(length: int, target: int, align_corners: bool) -> Tensor:
    """Return the ``target`` indices into an axis of ``length`` that resizing it samples."""
    positions = torch.arange(target, dtype=torch.float64)
    if align_corners:
        positions = positions * ((length - 1) / (target - 1) if target > 1 else 0.0) + 0.5
    else:
        positions = (positions + 0.5) * (length / target)
    return positions.floor().long().clamp(max=length - 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; return other types unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
