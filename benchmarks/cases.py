"""Operands, calls and floors of one shape."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Call = Callable[[], object]

# (B, C, *S): maps of CCNet at output stride 8, of a detector's res4 and FPN levels, a strip and a
# clip.
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


def random_map(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Of a size at which softmax neither flattens nor picks one position."""
    return (torch.randn(shape, device=device) * 0.5).to(dtype)


def channels_last(x: Tensor) -> Tensor:
    """The same map (B, C, *S) in channels-last memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def forward(function: Callable[..., Tensor], *inputs: Tensor) -> Call:
    """A call without gradients."""

    def call() -> None:
        with torch.no_grad():
            function(*inputs)

    return call


def step(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> Call:
    """A forward and backward call that leaves no gradient behind."""
    weights = list(function.parameters()) if isinstance(function, nn.Module) else []

    def call() -> None:
        leaves = [x.detach().requires_grad_() for x in inputs]
        function(*leaves).backward(grad)
        for weight in weights:
            weight.grad = None

    return call


Sizes = list[tuple[int, int, int, int]]  # of matrix products: batch, rows, inner, columns


def operator_products(shape: tuple[int, ...], backward: bool) -> Sizes:
    """The products that criss-cross attention cannot do without: scores and values along each axis;
    backward twice as many. Forming the scores again, which saves memory, is not among them."""
    batch, channels, *size = shape
    sizes = []
    for length in size:
        lines = batch * math.prod(size) // length
        for c in (channels // REDUCTION, channels):
            sizes.append((lines, length, c, length))
            if backward:
                sizes += [(lines, length, length, c)] * 2
    return sizes


def block_products(shape: tuple[int, ...], backward: bool, loops: int) -> Sizes:
    """Those of the operator and the projections, ``loops`` times."""
    batch, channels, *size = shape
    positions = batch * math.prod(size)
    sizes = operator_products(shape, backward)
    for c in (2 * channels // REDUCTION, channels):  # query and key; value
        sizes.append((1, positions, channels, c))
        if backward:
            sizes += [(1, positions, c, channels), (1, c, positions, channels)]
    return sizes * loops


def multiply_adds(sizes: Sizes) -> int:
    return sum(map(math.prod, sizes))


def products(sizes: Sizes, like: Tensor) -> Call:
    """These products on contiguous operands, results included: the floor."""
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
    """Seconds that memory or arithmetic take at least, whichever is slower: operands, result and
    gradients moved once, and the multiply-adds of :func:`operator_products`.

    Args:
        bandwidth: bytes per second.
        rate: floating point operations per second, two for one multiply-add.
    """
    batch, channels, *size = shape
    positions = batch * math.prod(size)
    moved = positions * channels * (2 + 2 / REDUCTION)  # query, key, value; result
    if backward:  # the same again, with the result's gradient; three gradients
        moved += positions * channels * (3 + 4 / REDUCTION)
    flops = 2 * multiply_adds(operator_products(shape, backward))
    return max(moved * like.element_size() / bandwidth, flops / rate)


def device_rates(like: Tensor, seconds: Callable[[Call], float]) -> tuple[float, float]:
    """Bytes per second of a copy and operations per second of a large matrix product, measured."""
    side = 8192 if like.is_cuda else 2048
    a = like.new_ones(side, side)
    b = torch.empty_like(a)
    bandwidth = 2 * a.numel() * a.element_size() / seconds(partial(b.copy_, a))
    rate = 2 * side**3 / seconds(partial(torch.mm, a, a, out=b))
    return bandwidth, rate
