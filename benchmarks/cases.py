"""Operands, calls and lower bounds of the time for one shape."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Call = Callable[[], object]

# (B, C, *S): feature maps of CCNet at output stride 8, of a detector's res4 and FPN levels, a
# narrow strip, and a video clip.
SHAPES = [
    (1, 512, 97, 97),
    (2, 512, 97, 97),
    (1, 512, 128, 256),
    (1, 1024, 50, 84),
    (2, 256, 50, 84),
    (1, 256, 200, 336),
    (1, 512, 7, 200),
    (1, 256, 5, 45, 60),
]
REDUCTION = 8


def random_features(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return random features whose attention weights are neither uniform nor one-hot."""
    return (torch.randn(shape, device=device) * 0.5).to(dtype)


def channels_last(x: Tensor) -> Tensor:
    """Return a channels-last copy of a feature map (B, C, *S)."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def forward(function: Callable[..., Tensor], *inputs: Tensor) -> Call:
    """Return a call of ``function`` without gradients."""

    def call() -> None:
        with torch.no_grad():
            function(*inputs)

    return call


def step(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> Call:
    """Return a call of a forward and backward pass that leaves no gradients behind."""
    weights = list(function.parameters()) if isinstance(function, nn.Module) else []

    def call() -> None:
        leaves = [x.detach().requires_grad_() for x in inputs]
        function(*leaves).backward(grad)
        for weight in weights:
            weight.grad = None

    return call


Sizes = list[tuple[int, int, int, int]]  # of batched matmuls: batch, rows, inner, columns


def operator_matmuls(shape: tuple[int, ...], backward: bool) -> Sizes:
    """Return the sizes of the matrix multiplications that criss-cross attention needs.

    They are the scores and the weighted values along each axis, and twice as many in backward.
    Computing the scores again in backward, which saves memory, is not included.
    """
    batch, channels, *size = shape
    sizes = []
    for length in size:
        rows = batch * math.prod(size) // length
        for c in (channels // REDUCTION, channels):
            sizes.append((rows, length, c, length))
            if backward:
                sizes += [(rows, length, length, c)] * 2
    return sizes


def block_matmuls(shape: tuple[int, ...], backward: bool, recurrence: int) -> Sizes:
    """Return the sizes of the matmuls of the operator and the projections, ``recurrence`` times."""
    batch, channels, *size = shape
    positions = batch * math.prod(size)
    sizes = operator_matmuls(shape, backward)
    for c in (2 * channels // REDUCTION, channels):  # query and key; value
        sizes.append((1, positions, channels, c))
        if backward:
            sizes += [(1, positions, c, channels), (1, c, positions, channels)]
    return sizes * recurrence


def multiply_adds(sizes: Sizes) -> int:
    """Return the number of multiply-adds of matrix multiplications."""
    return sum(map(math.prod, sizes))


def matmuls(sizes: Sizes, like: Tensor) -> Call:
    """Return a call of these matrix multiplications on contiguous operands, a lower bound."""
    operands = []
    for batch, rows, inner, columns in sizes:
        a, b = like.new_ones(batch, rows, inner), like.new_ones(batch, inner, columns)
        operands.append((a, b, like.new_empty(batch, rows, columns)))

    def call() -> None:
        for a, b, out in operands:
            torch.bmm(a, b, out=out)

    return call


def roofline(
    shape: tuple[int, ...], backward: bool, like: Tensor, bandwidth: float, rate: float
) -> float:
    """Return the seconds that memory traffic or arithmetic take at least, whichever is slower.

    Operands, result and gradients are moved once, and the multiply-adds are those of
    :func:`operator_matmuls`.

    Args:
        shape: (B, C, *S).
        backward: whether to include the backward pass.
        like: a tensor of the dtype.
        bandwidth: bytes per second.
        rate: floating point operations per second, two per multiply-add.
    """
    batch, channels, *size = shape
    positions = batch * math.prod(size)
    moved = positions * channels * (2 + 2 / REDUCTION)  # query, key, value; result
    if backward:  # the same again with the gradient of the result, and three gradients
        moved += positions * channels * (3 + 4 / REDUCTION)
    flops = 2 * multiply_adds(operator_matmuls(shape, backward))
    return max(moved * like.element_size() / bandwidth, flops / rate)


def device_rates(like: Tensor, seconds: Callable[[Call], float]) -> tuple[float, float]:
    """Measure the bytes per second of a copy and the operations per second of a large matmul."""
    side = 8192 if like.is_cuda else 2048
    a = like.new_ones(side, side)
    b = torch.empty_like(a)
    bandwidth = 2 * a.numel() * a.element_size() / seconds(partial(b.copy_, a))
    rate = 2 * side**3 / seconds(partial(torch.mm, a, a, out=b))
    return bandwidth, rate
