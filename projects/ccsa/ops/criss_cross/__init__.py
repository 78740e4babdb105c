"""Criss-cross attention (CCNet, Huang et al., ICCV 2019 and TPAMI 2020, section 3.2).

    out_u = sum_{i in cross(u)} softmax_i(q_u . k_i) v_i

cross(u) contains the positions that share all coordinates with u but one: the row and the column of
u in a feature map of size (H, W), and the positions along all three axes for size (T, H, W). The
position u itself counts once. Scores are not scaled, as in the official code.

Deviations from the official code: the own position is masked in the dtype and on the device of the
scores (the official code uses float32 on CUDA only), and feature maps may have any number of axes
(the official 3D version counts the own position twice and scrambles an axis).
"""

import torch
from torch import Tensor

from ccsa.errors import UserError
from ccsa.ops.criss_cross import flops  # noqa: F401  registers the operators with torch's counter
from ccsa.ops.criss_cross.dispatch import (
    BACKENDS,
    can_run_export,
    can_run_reference,
    can_run_tiled,
    can_run_torch,
    can_run_triton,
    choose,
    use_backend,
)
from ccsa.ops.criss_cross.export import cross_weights
from ccsa.ops.criss_cross.precision import needs_float64, without_autocast

__all__ = [
    "BACKENDS",
    "can_run_export",
    "can_run_reference",
    "can_run_tiled",
    "can_run_torch",
    "can_run_triton",
    "criss_cross_attention",
    "criss_cross_weights",
    "use_backend",
]


def criss_cross_attention(
    query: Tensor, key: Tensor, value: Tensor, *, backend: str | None = None
) -> Tensor:
    """Compute criss-cross attention: each position attends to its row and column.

    Args:
        query: (B, Ck, *S), where S is (H, W) or (T, H, W).
        key: (B, Ck, *S).
        value: (B, Cv, *S).
        backend: ``triton`` (kernels for GPUs, no weights in memory), ``tiled`` (any device, the
            weights of a few rows in memory at a time), ``export`` (standard tensor operations,
            all weights of the crosses in memory) or ``reference`` (the dense definition, for
            tests). Default: the backend of :func:`use_backend` or of the environment variable
            CCSA_BACKEND, otherwise the first of these that can run; ``export`` while a program is
            exported.

    Returns:
        The output (B, Cv, *S), with the dtype and the memory format of ``value``. Under autocast
        the operands are cast to the dtype of autocast. Scores and softmax are float32 for
        half-precision operands, and everything is float64 if scores may exceed 256; see
        :func:`ccsa.ops.criss_cross.precision.needs_float64`.

    Raises:
        UserError: the shapes, dtypes or devices do not match, or the requested backend is unknown
            or cannot run.

    Example:
        >>> import torch
        >>> from ccsa.ops import criss_cross_attention
        >>> query, key, value = (torch.randn(1, channels, 5, 7) for channels in (2, 2, 16))
        >>> criss_cross_attention(query, key, value).shape
        torch.Size([1, 16, 5, 7])

        With equal scores, the output is the mean over the row and the column:

        >>> zeros, value = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
        >>> criss_cross_attention(zeros, zeros, value)
        tensor([[[[3., 4.],
                  [5., 6.]]]])
    """
    _check(query, key, value)
    if not _autocast(query):
        _check_one_dtype(query, key, value)
    if needs_float64(query, key):
        operands = query.double(), key.double(), value.double()
        return attention(*operands, backend=backend).to(value.dtype)
    return attention(query, key, value, backend=backend)


def attention(query: Tensor, key: Tensor, value: Tensor, *, backend: str | None = None) -> Tensor:
    """Compute :func:`criss_cross_attention` in the dtype of the operands, whatever the scores."""
    _check(query, key, value)
    if _autocast(query):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    _check_one_dtype(query, key, value)
    return choose(backend, query, key, value)(query, key, value)


def _autocast(query: Tensor) -> bool:
    """Return whether autocast casts the operands, which it does unless they are float64."""
    device = query.device.type  # meta has no autocast
    return device != "meta" and torch.is_autocast_enabled(device) and query.dtype != torch.float64


def _check_one_dtype(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise a UserError unless the operands have one dtype."""
    if not query.dtype == key.dtype == value.dtype:
        raise UserError(
            f"query, key and value must have one dtype, not {query.dtype}, {key.dtype} and "
            f"{value.dtype}; convert them"
        )


def criss_cross_weights(query: Tensor, key: Tensor) -> Tensor:
    """Return the attention weights, for visualization. No gradient is recorded.

    Args:
        query: (B, Ck, *S), where S is (H, W) or (T, H, W).
        key: (B, Ck, *S).

    Returns:
        Weights (B, *S, sum(S)) of at least float32. For each position they list the weights along
        the first axis, then along the second, and so on; they sum to 1. The own position has its
        weight on the last axis, and 0 on the other axes.

    Raises:
        UserError: the shapes, dtypes or devices do not match.

    Example:
        >>> import torch
        >>> from ccsa.ops import criss_cross_weights
        >>> query = key = torch.zeros(1, 1, 2, 2)
        >>> criss_cross_weights(query, key)[0, 0, 0]  # column: itself, below; row: itself, right
        tensor([0.0000, 0.3333, 0.3333, 0.3333])
    """
    _check(query, key, key)
    with torch.no_grad(), without_autocast(query):
        return cross_weights(query, key)


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise a UserError unless the operands have matching shapes, devices and dtypes."""
    for name, operand in (("query", query), ("key", key), ("value", value)):
        if not isinstance(operand, Tensor):
            raise UserError(f"{name} must be a tensor (B, C, *S), not a {type(operand).__name__}")
        if operand.dim() < 3:
            raise UserError(
                f"{name} must be (B, C, *S) with a spatial size S of at least one axis, "
                f"not {tuple(operand.shape)}"
            )
    shapes = [tuple(x.shape) for x in (query, key, value)]
    (batch, _, *size), (value_batch, _, *value_size) = shapes[0], shapes[2]
    if shapes[0] != shapes[1] or (batch, size) != (value_batch, value_size):
        raise UserError(
            "query and key must be (B, Ck, *S) and value (B, Cv, *S) with one batch size B and "
            f"one spatial size S, not {shapes}"
        )
    if 0 in shapes[0][1:] + shapes[2][1:]:
        raise UserError(f"only the batch may be empty, not {shapes}")
    if not query.device == key.device == value.device:
        raise UserError(
            f"query, key and value must be on one device, not {query.device}, {key.device}, "
            f"{value.device}"
        )
    if not all(x.is_floating_point() for x in (query, key, value)):
        raise UserError(
            f"query, key and value must be floating point, not {query.dtype}, {key.dtype} and "
            f"{value.dtype}; convert them, for instance by query.float()"
        )
