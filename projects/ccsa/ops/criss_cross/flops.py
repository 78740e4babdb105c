"""The work of criss-cross attention, from shapes; torch's FLOP counter is told of it here.

``torch.utils.flop_counter`` counts two FLOPs for a multiply-add, fvcore one (``ccsa.analysis``).
"""

import math
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

# Registers the operators.
from ccsa.ops.criss_cross import torch_ops, triton_ops  # noqa: F401

Shape = Sequence[int]


def pairs(query: Shape) -> int:
    """Of positions that see each other, in (B, C, *S): B * prod(S) * (sum(S) - len(S) + 1)."""
    batch, _, *size = query
    return batch * math.prod(size) * (sum(size) - len(size) + 1)


def multiply_adds(query: Shape, value: Shape) -> int:
    """Of forward: each pair has a product of Ck channels for its score and one of Cv for the
    output."""
    return pairs(query) * (query[1] + value[1])


@register_flop_formula(
    [torch.ops.ccsa.criss_cross_forward, torch.ops.ccsa.criss_cross_triton_forward]
)
def _forward(query: Shape, key: Shape, value: Shape, *args, **kwargs) -> int:
    return 2 * multiply_adds(query, value)


@register_flop_formula(
    [torch.ops.ccsa.criss_cross_backward, torch.ops.ccsa.criss_cross_triton_backward]
)
def _backward(grad: Shape, query: Shape, key: Shape, value: Shape, *args, **kwargs) -> int:
    """The scores again, then the gradients of weights and value, of query and key."""
    return 2 * pairs(query) * (3 * query[1] + 2 * value[1])
