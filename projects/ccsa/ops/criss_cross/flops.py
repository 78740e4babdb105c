"""The number of operations of criss-cross attention, registered with torch's FLOP counter.

``torch.utils.flop_counter`` counts two FLOPs for a multiply-add; fvcore, which
``ccsa.analysis`` uses, counts one.
"""

import math
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

# These imports register the operators that are counted below.
from ccsa.ops.criss_cross import tiled, triton_ops  # noqa: F401

Shape = Sequence[int]


def pairs(query: Shape) -> int:
    """Return the number of pairs of positions that attend to each other.

    For a query (B, Ck, *S) this is B * prod(S) * (sum(S) - len(S) + 1).

    Example:
        >>> pairs((2, 64, 3, 4))
        144
    """
    batch, _, *size = query
    return batch * math.prod(size) * (sum(size) - len(size) + 1)


def multiply_adds(query: Shape, value: Shape) -> int:
    """Return the multiply-adds of a forward pass: for each pair, Ck for its score and Cv for the
    output.

    Example:
        >>> multiply_adds((1, 64, 97, 97), (1, 512, 97, 97))
        1045979712
    """
    return pairs(query) * (query[1] + value[1])


@register_flop_formula(
    [torch.ops.ccsa.criss_cross_forward, torch.ops.ccsa.criss_cross_triton_forward]
)
def _forward_flops(query: Shape, key: Shape, value: Shape, *args, **kwargs) -> int:
    return 2 * multiply_adds(query, value)


@register_flop_formula(
    [torch.ops.ccsa.criss_cross_backward, torch.ops.ccsa.criss_cross_triton_backward]
)
def _backward_flops(grad: Shape, query: Shape, key: Shape, value: Shape, *args, **kwargs) -> int:
    """Count the scores, which are computed again, and the gradients of weights, value, query and
    key."""
    return 2 * pairs(query) * (3 * query[1] + 2 * value[1])
