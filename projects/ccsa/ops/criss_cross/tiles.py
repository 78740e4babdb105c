"""Tile sizes of the Triton kernels, computed from dtype and shape.

A rule chooses them instead of timings (autotuning). So the same call gives the same bits in every
process, and a detector, which sees a new image size at every step, never stops to tune. The rule
was derived from the registers and the shared memory that the compiler reports for sm_90, not from
measured times.
"""

from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    """Tile sizes of one kernel launch: powers of two of at least 16, as tensor cores require.

    Attributes:
        BLOCK_M: positions of a program's own tile.
        BLOCK_N: positions of the tiles that a program iterates over.
        BLOCK_K: channels of query and key per tile.
        BLOCK_V: channels of value per tile.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
    """

    BLOCK_M: int
    BLOCK_N: int
    BLOCK_K: int
    BLOCK_V: int
    num_warps: int
    num_stages: int


def next_power(n: int, most: int) -> int:
    """Return the smallest power of two from 16 to ``most`` that is at least ``n``, or ``most``.

    Example:
        >>> [next_power(n, 128) for n in (3, 97, 1000)]
        [16, 128, 128]
    """
    return min(most, max(16, 1 << (n - 1).bit_length()))


def value_tiles(dtype: torch.dtype, length: int, ck: int, cv: int) -> Tiles:
    """Return the tiles of the kernels whose accumulator is BLOCK_M x BLOCK_V.

    These are the forward kernel and the gradient of value.

    Args:
        dtype: data type of the operands.
        length: number of positions along the axis.
        ck: channels of query and key.
        cv: channels of value.
    """
    if dtype in (torch.float32, torch.float64):  # operands in full precision are in registers
        sizes = (next_power(length, 32), next_power(length, 32))
        return Tiles(*sizes, next_power(ck, 32), next_power(cv, 64), 4, 1)
    # Up to 128 positions fill one or two tiles of 64. With more, tiles of 128 halve the number of
    # times that the axis is read again.
    m = next_power(length, 128 if length > 128 else 64)
    n = next_power(length, 64)
    return Tiles(m, n, next_power(ck, 128), next_power(cv, 128), 8 if m > 64 else 4, 2)


def score_tiles(dtype: torch.dtype, length: int, ck: int, cv: int) -> Tiles:
    """Return the tiles of the kernel for the gradients of query and key.

    It keeps the scores and their gradients, BLOCK_M x BLOCK_N, and an accumulator, BLOCK_M x
    BLOCK_K, in registers. The arguments are those of :func:`value_tiles`.
    """
    if dtype in (torch.float32, torch.float64):
        sizes = (next_power(length, 32), next_power(length, 32))
        return Tiles(*sizes, next_power(ck, 32), next_power(cv, 32), 4, 1)
    m, n = next_power(length, 128), next_power(length, 64)
    return Tiles(m, n, next_power(ck, 128), next_power(cv, 64), 8 if m > 64 else 4, 3)
