"""Attention weights in the form that the attention explorer stores them in.

The weights of one application are written as 16-bit integers, the high bytes before the low bytes,
and compressed. The page multiplies them; the dense matrix is never stored.

Dimensions: H and W of a feature map, K = H + W weights per position: first those of its column,
from top to bottom, then those of its row, of which its own is 0. Of clips with T frames, K is
T + H + W, and those of the same position in all frames come first.
"""

import base64
import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccsa.errors import UserError

STEPS = 65535  # the weight 1


def encoded_weights(weights: Tensor) -> str:
    """Return values from 0 to 1 as compressed 16-bit integers in base64.

    An error of at most 1 / (2 * 65535) per value remains.

    Args:
        weights: (H, W, K), (T, H, W, K), or any other shape.

    Raises:
        UserError: a value is not between 0 and 1.

    Example:
        >>> decoded_weights(encoded_weights(torch.tensor([0.0, 1.0])), (2,)).tolist()
        [0.0, 1.0]
    """
    values = weights.detach().double().cpu().numpy()
    if not ((values >= 0) & (values <= 1 + 1e-5)).all():  # NaN fails too
        raise UserError(
            "attention weights must be between 0 and 1, and some are not; check the weights of the "
            "model, which may have diverged"
        )
    steps = np.rint(values.clip(0, 1) * STEPS).astype("<u2").reshape(-1)
    planes = np.concatenate([steps >> 8, steps & 255]).astype(np.uint8)
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


def decoded_weights(text: str, shape: tuple[int, ...]) -> Tensor:
    """Return the values of :func:`encoded_weights` as float64 of the given shape."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(np.float64)
    high, low = planes.reshape(2, -1)
    return torch.from_numpy((high * 256 + low) / STEPS).reshape(shape)


def encoded_map(values: Tensor) -> dict[str, Any]:
    """Return values of any shape that are not negative as ``{"scale": largest, "values": text}``.

    Example:
        >>> encoded_map(torch.tensor([[0.0, 3.0]]))["scale"]
        3.0
    """
    scale = float(values.max())
    return {"scale": scale, "values": encoded_weights(values / scale if scale else values)}


def reduction_factor(size: tuple[int, int], limit: int) -> int:
    """Return how many rows and columns become one so that neither side exceeds ``limit``.

    Example:
        >>> reduction_factor((97, 193), 97)
        2
    """
    return math.ceil(max(size) / limit)


def reduced_weights(weights: Tensor, factor: int) -> Tensor:
    """Return the weights between squares of ``factor`` x ``factor`` positions, (h, w, h + w) or
    (T, h, w, T + h + w).

    The weight of a square is the mean over the attending positions and the sum over the attended
    ones, so that the weights of a square still sum to 1. Composing reduced weights approximates the
    reduction of the composed weights. Squares at the lower and the right border may be smaller.

    Args:
        weights: (H, W, H + W), or (T, H, W, T + H + W), whose frames are not reduced.
        factor: 1 returns the weights unchanged.

    Example:
        >>> from ccsa.ops import criss_cross_weights
        >>> query = torch.zeros(1, 1, 4, 5)
        >>> small = reduced_weights(criss_cross_weights(query, query)[0], 2)
        >>> small.shape, round(float(small[0, 0].sum()), 6)
        (torch.Size([2, 3, 5]), 1.0)
    """
    if factor == 1:
        return weights
    *frames, column, row = weights.split(list(weights.shape[:-1]), -1)
    attended = torch.cat([*frames, _squares(column, -1, factor), _squares(row, -1, factor)], -1)
    return reduced_map(attended.movedim(-1, 0), factor).movedim(0, -1)


def reduced_map(values: Tensor, factor: int) -> Tensor:
    """Return the means (..., h, w) of values (..., H, W) over squares of positions."""
    if factor == 1:
        return values
    counts = _squares(_squares(values.new_ones(values.shape[-2:]), -2, factor), -1, factor)
    return _squares(_squares(values, -2, factor), -1, factor) / counts


def _squares(values: Tensor, axis: int, factor: int) -> Tensor:
    """Return the sums of ``factor`` neighbors along an axis."""
    size = list(values.shape)
    size[axis] = math.ceil(size[axis] / factor)
    index = torch.arange(values.shape[axis]) // factor
    return values.new_zeros(size).index_add(axis, index, values)
