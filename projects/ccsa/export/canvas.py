"""The image of a program: resized, normalized and padded as Detectron2 does, at any size.

H, W: size of the image; h, w: size after resizing (shortest edge and largest size, as Detectron2's
ResizeShortestEdge); the canvas is the resized image padded with zeros to multiples of the
divisibility of the backbone.

Deviation: the interpolation is bilinear between the nearest two pixels of each axis, where Pillow
averages over all pixels if the image shrinks. Every runtime computes it alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ccsa.errors import UserError

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
        for axis in (2, 3):
            length, inside = as_size(padded[axis - 2]), used[axis - 2]
            frames = _resized(frames, axis, length, full[axis - 2], inside)
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


def _resized(x: Tensor, axis: int, length: Size, full: Tensor, used: Tensor) -> Tensor:
    """Resize an axis of x from ``full`` to ``used`` positions, followed by any values to fill it.

    The result has ``length`` positions along the axis.
    """
    at = (torch.arange(length, device=x.device).float() + 0.5) * (full.float() / used.float()) - 0.5
    last = full - 1
    at = torch.minimum(at.clamp(min=0), last.float())
    low = at.floor().long()
    high = torch.minimum(low + 1, last)
    weight = (at - low.float()).reshape([-1] + [1] * (3 - axis))
    below, above = x.index_select(axis, low), x.index_select(axis, high)
    return below * (1 - weight) + above * weight


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
