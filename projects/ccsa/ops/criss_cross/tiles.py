"""Sizes of the tiles of the Triton kernels, from type and shape alone.

They are chosen by a rule instead of by timing: the same call gives the same bits in every process,
and a detector, whose every image has another size, never stops to tune. The rule was reasoned from
the registers and the shared memory that the compiler reports for sm_90, not from timings.
"""

from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    """Sizes are powers of two of at least 16, as tensor cores need.

    X: positions of a program's own tile; Y: of the tiles that it meets; K: channels of query and
    key; V: channels of value; warps, stages: of a program.
    """

    X: int
    Y: int
    K: int
    V: int
    warps: int
    stages: int


def power(n: int, most: int) -> int:
    """The power of two that covers n, in 16 ... most."""
    return min(most, max(16, 1 << (n - 1).bit_length()))


def value_tiles(dtype: torch.dtype, length: int, ck: int, cv: int) -> Tiles:
    """For products with value or its gradient: X x V sums stay in registers."""
    if dtype == torch.float32:  # no tensor cores at full precision; operands lie in registers
        return Tiles(power(length, 32), power(length, 32), power(ck, 32), power(cv, 64), 4, 1)
    # A line of up to 128 fills one or two tiles of 64; on longer ones, tiles of 128 halve what is
    # read again of the line.
    x = power(length, 128 if length > 128 else 64)
    return Tiles(x, power(length, 64), power(ck, 128), power(cv, 128), 8 if x > 64 else 4, 2)


def score_tiles(dtype: torch.dtype, length: int, ck: int, cv: int) -> Tiles:
    """For gradients of scores: X x Y scores and their gradients, X x K sums stay in registers."""
    if dtype == torch.float32:
        return Tiles(power(length, 32), power(length, 32), power(ck, 32), power(cv, 32), 4, 1)
    x = power(length, 128)
    return Tiles(x, power(length, 64), power(ck, 128), power(cv, 64), 8 if x > 64 else 4, 3)
