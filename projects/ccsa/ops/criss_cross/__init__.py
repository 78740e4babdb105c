"""Criss-cross attention (CCNet, Huang et al., ICCV 2019 and TPAMI 2020, section 3.2).

    out_u = sum_{i in cross(u)} softmax_i(q_u . k_i) v_i

cross(u) are the positions that share all coordinates with u but one: row and column of a (H, W)
map, three lines of a (T, H, W) map; u itself counts once. Scores are not scaled, as in the official
code.

Deviations from the official code: the own position is taken out by a mask of the scores' own type
and device (there: float32, CUDA only), and maps may have any number of axes (its 3D version counts
the own position twice and scrambles an axis).
"""

import torch
from torch import Tensor

from ccsa.ops.criss_cross import flops  # noqa: F401  torch's FLOP counter knows the operators
from ccsa.ops.criss_cross.dispatch import (
    BACKENDS,
    can_run_reference,
    can_run_torch,
    can_run_triton,
    choose,
    use_backend,
)
from ccsa.ops.criss_cross.plain import plain_weights, without_autocast

__all__ = [
    "BACKENDS",
    "can_run_reference",
    "can_run_torch",
    "can_run_triton",
    "criss_cross_attention",
    "criss_cross_weights",
    "use_backend",
]


def criss_cross_attention(
    query: Tensor, key: Tensor, value: Tensor, *, backend: str | None = None
) -> Tensor:
    """Each position attends to its cross.

    Args:
        query, key: (B, Ck, *S), S being (H, W) or (T, H, W).
        value: (B, Cv, *S).
        backend: ``triton`` (GPUs; no weights in memory), ``torch`` (memory O(sum(S)) per position,
            no permuted copies of channels-last maps) or ``reference`` (dense over all positions,
            for tests). None: the one of ``use_backend`` around the call, else that of the
            environment variable CCSA_BACKEND, else the first of these that can run.

    Returns:
        (B, Cv, *S), of value's type and memory format. Under autocast the operands are cast to its
        type; scores and their log-sum-exp are float32 for half precision.

    Raises:
        ValueError: shapes, types or devices that do not go together; a backend that is unknown, or
            was asked for and cannot run.
    """
    _check(query, key, value)
    device = query.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)  # it has none
    if autocast and query.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            f"query, key and value must have one type, not {query.dtype}, {key.dtype} and "
            f"{value.dtype}"
        )
    return choose(backend, query, key, value)(query, key, value)


def criss_cross_weights(query: Tensor, key: Tensor) -> Tensor:
    """The attention weights, for drawing: no gradient.

    Args:
        query, key: (B, Ck, *S).

    Returns:
        (B, *S, sum(S)), for each position its weights along the first axis, then the next, ...;
        they sum to 1. The own position has its weight in the last axis and 0 in the others.

    Raises:
        ValueError: shapes, types or devices that do not go together.
    """
    _check(query, key, key)
    with torch.no_grad(), without_autocast(query):
        return plain_weights(query, key)


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = [tuple(x.shape) for x in (query, key, value)]
    (batch, _, *size), (value_batch, _, *value_size) = shapes[0], shapes[2]
    if shapes[0] != shapes[1] or (batch, size) != (value_batch, value_size) or not size:
        raise ValueError(
            "query and key must be (B, Ck, *S) and value (B, Cv, *S) with one batch B and one "
            f"spatial size S, not {shapes}"
        )
    if 0 in shapes[0][1:] + shapes[2][1:]:
        raise ValueError(f"only the batch may be empty, not {shapes}")
    if not query.device == key.device == value.device:
        raise ValueError(
            f"query, key and value must be on one device, not {query.device}, {key.device}, "
            f"{value.device}"
        )
    if not (query.is_floating_point() and value.is_floating_point()):
        raise ValueError(
            f"query and value must be floating point, not {query.dtype}, {value.dtype}"
        )
