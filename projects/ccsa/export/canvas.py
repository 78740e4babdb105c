"""The image of a program: resized, normalized and padded as Detectron2 does, at any size.

H, W: size of the image; h, w: size after resizing (shortest edge and largest size, as Detectron2's
ResizeShortestEdge); the canvas is the resized image padded with zeros to multiples of the
divisibility of the backbone.

The resize is Pillow's, which Detectron2 uses: a bilinear filter that becomes wider by the factor by
which the image shrinks, first along the rows, then along the columns, with values rounded to
integers after each. As in Pillow, the weights are integers in units of 2^-22. They are split into
two numbers of 11 bits, whose sums are exact in float32 unless an image shrinks to less than a
fifteenth, so that every runtime rounds alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ccsa.errors import UserError

_UNIT = 2**22  # 1 / the unit of the weights of the resize
_HALF_UNIT = 2**11

Size = Any  # an int, or in a trace a tensor of no dimensions


def sizes(x: Tensor) -> Tensor:
    """Return the shape of x as a tensor, which a trace records as a function of x."""
    if torch.jit.is_tracing():
        return torch._shape_as_tensor(x)
    return torch.stack([torch.scalar_tensor(n, dtype=torch.int64) for n in x.shape])


def as_size(n: Tensor) -> Size:
    """Return an integer tensor as a size: itself in a trace, otherwise an int of at least 1."""
    if torch.jit.is_tracing():
        return n
    value = n.item()
    torch._check(value >= 1)
    torch._check(value <= 2**16)
    return value


class Canvas(NamedTuple):
    """What the network sees.

    Attributes:
        pixels: (1, 3, rows, columns), or (T, 3, rows, columns) for a clip.
        used: (h, w) as a tensor of int64: the part of ``pixels`` that is not padding.
        image: (H, W) as a tensor of int64.
    """

    pixels: Tensor
    used: Tensor
    image: Tensor

    @property
    def scale(self) -> Tensor:
        """The factors (H / h, W / w) from the canvas to the image, float32."""
        return self.image.float() / self.used.float()


class Preparation(nn.Module):
    """Turn uint8 RGB images (H, W, 3), or clips (T, H, W, 3), into the input of the network.

    Args:
        cfg: ``INPUT`` states the size and the order of channels.
        model: a Detectron2 model with ``pixel_mean``, ``pixel_std`` and ``backbone``.

    Raises:
        UserError: the backbone needs square images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: CfgNode, model: Any):
        super().__init__()
        self.shortest, self.largest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        self.reverse = cfg.INPUT.FORMAT == "BGR"
        constraints = model.backbone.padding_constraints or {}
        if constraints.get("square_size", 0):
            raise UserError(
                f"a {type(model.backbone).__name__} that needs square images cannot be exported; "
                "set its square padding to 0"
            )
        self.multiple = max(1, model.backbone.size_divisibility)
        self.register_buffer("mean", model.pixel_mean.clone())
        self.register_buffer("std", model.pixel_std.clone())

    def forward(self, image: Tensor) -> Canvas:
        """Return the canvas of an image (H, W, 3) or a clip (T, H, W, 3)."""
        raw, used, full = self.resized(image)
        rows, columns = (
            torch.arange(raw.shape[axis], device=raw.device) < used[axis - 2] for axis in (2, 3)
        )
        pixels = (raw - self.mean) / self.std
        return Canvas(pixels * (rows[:, None] & columns).float(), used, full)

    def resized(self, image: Tensor) -> Canvas:
        """Return the canvas before normalization: values from 0 to 255, any in the padding."""
        frames = image if image.dim() == 4 else image.unsqueeze(0)
        frames = frames.permute(0, 3, 1, 2).float()  # (T, 3, H, W)
        if self.reverse:
            frames = frames.flip(1)
        full = sizes(frames)[2:]
        used = self.used_size(full)
        padded = (used + self.multiple - 1) // self.multiple * self.multiple
        # The order of Pillow: the width, then the height.
        turned = frames.transpose(2, 3).contiguous()
        turned = _resized_rows(turned, as_size(padded[1]), full[1], used[1])
        frames = turned.transpose(2, 3).contiguous()
        frames = _resized_rows(frames, as_size(padded[0]), full[0], used[0])
        return Canvas(frames, used, full)

    def used_size(self, full: Tensor) -> Tensor:
        """Return (h, w) of (H, W), both int64, by the rule of ResizeShortestEdge; at least 1."""
        if self.shortest == 0:
            return full
        exact = full.double()
        shorter, longer = exact.min(), exact.max()
        size = exact * (self.shortest / shorter)
        # The shorter side is exact in Detectron2, and so it is here.
        size = torch.where(exact == shorter, torch.full_like(exact, float(self.shortest)), size)
        largest = longer * (self.shortest / shorter)
        shrink = torch.where(
            largest > self.largest, self.largest / largest, torch.ones_like(largest)
        )
        return (size * shrink + 0.5).floor().clamp(min=1).long()


def _resized_rows(x: Tensor, length: Size, full: Tensor, used: Tensor) -> Tensor:
    """Resize axis 2 of x (N, C, full, W) to ``used`` rows, followed by any values to fill it.

    Each row is a weighted sum of the T rows that the filter can reach from its center.

    Returns:
        (N, C, length, W), rounded to integers.
    """
    # The exporter to ONNX computes quotients of tensors without dimensions in float32.
    scale = full.reshape(1).double() / used.reshape(1).double()
    support = scale.clamp(min=1)  # half the width of the filter, in rows of x
    centers = (torch.arange(length, device=x.device).double() + 0.5) * scale
    taps = as_size(2 * support.ceil().long()[0] + 1)
    first = (centers - support + 0.5).floor().long()
    at = first[:, None] + torch.arange(taps, device=x.device)  # (length, T)
    distance = (at.double() + 0.5 - centers[:, None]).abs() / support
    weight = (1 - distance).clamp(min=0) * ((at >= 0) & (at < full)).double()
    # Rows beyond ``used`` can be out of reach of all rows of x.
    weight = (weight / weight.sum(1, keepdim=True).clamp(min=1e-6) * _UNIT + 0.5).floor()
    upper = (weight / _HALF_UNIT).floor()
    halves = torch.stack((upper, weight - upper * _HALF_UNIT), 1).float()  # (length, 2, T)
    at = torch.minimum(at.clamp(min=0), full - 1)
    rows = x.index_select(2, at.reshape(-1))
    rows = rows.reshape(x.shape[0], x.shape[1], length, taps, x.shape[3])
    sums = torch.matmul(halves, rows).double()  # (N, C, length, 2, W)
    total = sums[:, :, :, 0] * _HALF_UNIT + sums[:, :, :, 1]
    return ((total + _UNIT // 2) / _UNIT).floor().float()


def eager_inputs(part: Any, images: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Return the inputs of the eager model for images (H, W, 3), resized as the program does.

    Args:
        part: a part with a ``preparation``.
        images: uint8 RGB.
    """
    preparation: Preparation = part.preparation
    inputs = []
    for image in images:
        canvas = preparation.resized(image)
        h, w = (int(n) for n in canvas.used)
        pixels = canvas.pixels[:, :, :h, :w]
        height, width = (int(n) for n in canvas.image)
        pixels = pixels if image.dim() == 4 else pixels[0]
        inputs.append({"image": pixels, "height": height, "width": width})
    return inputs
