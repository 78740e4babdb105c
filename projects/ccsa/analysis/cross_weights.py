"""Criss-cross attention weights as linear maps over positions.

The weights of one application are a matrix A with N = prod(S) rows and columns, of which a row has
only sum(S) - len(S) + 1 entries that are not 0. They are stored as (B, *S, sum(S)), see
:func:`ccsa.ops.criss_cross_weights`, and multiplied without the dense matrix.

Dimensions: B inputs, S spatial size (H, W) or (T, H, W), N = prod(S) positions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ccsa.errors import UserError


def attended_by(weights: Sequence[Tensor], positions: Tensor, gamma: float | None = None) -> Tensor:
    """Return where given positions attend to, over all applications.

    Args:
        weights: the weights (B, *S, sum(S)) of each application, the first one first.
        positions: the attending positions (B, *S), for instance 1 at one position, or 1 / n at
            each of n positions to average over them.
        gamma: the gamma of the block. With it, the result is the positional part of the output,
            (I + gamma A_R) ... (I + gamma A_1), instead of the composed attention A_R ... A_1.

    Returns:
        (B, *S): the row vector ``positions`` times the matrix.

    Raises:
        UserError: the sizes do not match.

    Example:
        >>> import torch
        >>> from ccsa.ops import criss_cross_weights
        >>> query = torch.zeros(1, 1, 2, 2)
        >>> a = criss_cross_weights(query, query)
        >>> corner = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> attended_by([a], corner)[0]  # the opposite corner is not on the cross
        tensor([[0.3333, 0.3333],
                [0.3333, 0.0000]])
        >>> attended_by([a, a], corner)[0]
        tensor([[0.3333, 0.2222],
                [0.2222, 0.2222]])
    """
    result = positions
    for each in reversed(weights):
        result = _step(result, _row_times_matrix(result, each), gamma)
    return result


def attending_to(
    weights: Sequence[Tensor], positions: Tensor, gamma: float | None = None
) -> Tensor:
    """Return how much every position attends to given positions, over all applications.

    Args:
        weights, gamma: see :func:`attended_by`.
        positions: the attended positions (B, *S), or any other values to be averaged.

    Returns:
        (B, *S): the matrix times the column vector ``positions``.

    Raises:
        UserError: the sizes do not match.
    """
    result = positions
    for each in weights:
        result = _step(result, _matrix_times_column(each, result), gamma)
    return result


def dense_matrix(weights: Tensor) -> Tensor:
    """Return weights (B, *S, sum(S)) as matrices (B, N, N); rows attend, columns are attended to.

    They need N^2 numbers: use this for small feature maps.

    Example:
        >>> from ccsa.ops import criss_cross_weights
        >>> query = torch.zeros(1, 1, 2, 3)
        >>> dense_matrix(criss_cross_weights(query, query)).shape
        torch.Size([1, 6, 6])
    """
    batch, *size = weights.shape[:-1]
    count = math.prod(size)
    identity = torch.eye(count, dtype=weights.dtype, device=weights.device)
    columns = identity.reshape(count, 1, *size).expand(-1, batch, *size)
    return torch.stack(
        [_matrix_times_column(weights, c).reshape(batch, count) for c in columns], -1
    )


def _step(before: Tensor, attended: Tensor, gamma: float | None) -> Tensor:
    return attended if gamma is None else before + gamma * attended


def _row_times_matrix(row: Tensor, weights: Tensor) -> Tensor:
    out = torch.zeros_like(weights[..., 0])
    for axis, part in _axes(weights, row):
        v = row.to(weights.dtype).movedim(axis, -1).unsqueeze(-2)  # (B, *others, 1, L)
        out = out + torch.matmul(v, part).squeeze(-2).movedim(-1, axis)
    return out


def _matrix_times_column(weights: Tensor, column: Tensor) -> Tensor:
    out = torch.zeros_like(weights[..., 0])
    for axis, part in _axes(weights, column):
        v = column.to(weights.dtype).movedim(axis, -1).unsqueeze(-1)  # (B, *others, L, 1)
        out = out + torch.matmul(part, v).squeeze(-1).movedim(-1, axis)
    return out


def _axes(weights: Tensor, vector: Tensor) -> list[tuple[int, Tensor]]:
    """Return each spatial axis with its weights (B, *others, L attending, L attended to)."""
    if weights.shape[:-1] != vector.shape or weights.shape[-1] != sum(weights.shape[1:-1]):
        raise UserError(
            "weights must be (B, *S, sum(S)) and positions (B, *S) with the same sizes, not "
            f"{tuple(weights.shape)} and {tuple(vector.shape)}"
        )
    parts = weights.split(list(weights.shape[1:-1]), -1)
    return [(axis, part.movedim(axis, -2)) for axis, part in enumerate(parts, 1)]
