"""What the semantic heads share: layers, resizing, and words for wrong settings."""

from collections.abc import Mapping, Sequence

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ccsa.errors import one_of

NORMS = ("BN", "SyncBN", "FrozenBN", "GN", "LN", "naiveSyncBN", "naiveSyncBN_N", "nnSyncBN")
ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
}


def check_norm(norm: str) -> None:
    """Refuse a norm that Detectron2 does not have; "" is none."""
    if norm and norm not in NORMS:
        raise ValueError(f'norm must be "" or one of {", ".join(NORMS)}, not {norm!r}')


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
    """A convolution of the input's size (over ``stride``), its norm and activation; biased, unless
    told, where there is no norm."""
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
    """1x1 convolution to logits; its weights start at random with standard deviation ``std``."""
    conv = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=std)
    nn.init.zeros_(conv.bias)
    return conv


def feature(shapes: Mapping[str, ShapeSpec], name: str) -> ShapeSpec:
    """The shape of a feature that the backbone must give.

    Raises:
        ValueError: the backbone does not give it.
    """
    if name not in shapes:
        raise ValueError(
            f"the head needs feature '{name}', but the backbone gives {', '.join(shapes)}"
        )
    return shapes[name]


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """(N, C, H, W) -> (N, C, *size), bilinear; the same tensor where the size is right already."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def resize_labels(labels: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """(N, H, W) -> (N, *size): the label nearest to where :func:`resize` would sample."""
    rows, columns = (
        _nearest(have, want, align_corners).to(labels.device)
        for have, want in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def _nearest(have: int, want: int, align_corners: bool) -> Tensor:
    at = torch.arange(want, dtype=torch.float64)
    if align_corners:
        at = at * ((have - 1) / (want - 1) if want > 1 else 0.0) + 0.5
    else:
        at = (at + 0.5) * (have / want)
    return at.floor().long().clamp(max=have - 1)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; the rest as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
