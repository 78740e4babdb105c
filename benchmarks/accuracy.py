"""Measure the error of every block against float64: by data type, scale, size and backend.

    python -m benchmarks.accuracy                          # all errors: 2 minutes
    python -m benchmarks.accuracy --bounds                 # the table of docs/OPS.md
    python -m benchmarks.accuracy --blocks CrissCross --dtypes float32 --backends tiled
    TRITON_INTERPRET=1 python -m benchmarks.accuracy --backends triton --scales 1 1e4
    python -m benchmarks.accuracy --device cuda --backends triton tiled

A block with gamma = 1 and otherwise new weights gets x = scale * N(0, 1), and its output the
gradient N(0, 1). The same block in float64, with the backend ``reference``, gives the true values;
it gets the rounded weights and the rounded x. The error of a tensor is the norm of the difference
relative to the norm of the true values. The table shows the largest error over the sizes for the
output, the gradient of x, and the gradients of the layers; weight and bias are one tensor, because
the true gradient of the bias of the key is 0. A layer whose true gradient is less than 1e-3 of the
largest one, for instance that of the query where all weights are 0 or 1, is compared with that.
"""

import argparse
import contextlib
import copy
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor, nn

from ccsa.blocks import build_block
from ccsa.errors import UserError, reports_user_errors
from ccsa.ops import use_backend

CHANNELS = 32
BLOCKS: dict[str, dict] = {
    "CrissCross R=1": {"name": "CrissCross", "recurrence": 1},
    "CrissCross R=2": {"name": "CrissCross", "recurrence": 2},
    "NonLocal": {"name": "NonLocal"},
    "SqueezeAttention": {"name": "SqueezeAttention"},
    "SqueezeExcitation": {"name": "SqueezeExcitation"},
}
SIZES = [(33, 17), (16, 16), (1, 9), (9, 1), (1, 1), (3, 5, 4)]
SCALES = [1.0, 10.0, 1e2, 3e2, 1e3, 1e4, 6e4]
BACKENDS = ["tiled", "export", "reference"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NEGLIGIBLE = 1e-3


class Errors(NamedTuple):
    """The relative errors of one block on one feature map.

    Attributes:
        output: the error of the output.
        dx: the error of the gradient of the feature map.
        layers: the largest error of the gradient of a layer.
        overflow: whether a value is beyond the range of the data type in float64 as well, so that
            infinite values are right. These values are left out of the errors.
    """

    output: float
    dx: float
    layers: float
    overflow: bool = False

    def largest(self, other: "Errors") -> "Errors":
        """Return the larger one of each pair of errors."""
        return Errors(
            worse(self.output, other.output),
            worse(self.dx, other.dx),
            worse(self.layers, other.layers),
            self.overflow or other.overflow,
        )


class Bound(NamedTuple):
    """The largest errors that the tests accept, at every size and with every backend.

    Attributes:
        block: the name of the block.
        dtype: the data type of weights and features.
        scale: the largest scale of the features.
        output: the largest error of the output.
        dx: the largest error of the gradient of the features; None if there is no bound.
        layers: the same for the gradients of the layers.
    """

    block: str
    dtype: str
    scale: float
    output: float
    dx: float | None
    layers: float | None

    def broken_by(self, errors: Errors, positions: int) -> bool:
        """Return whether errors on a feature map of so many positions are larger.

        On tiny feature maps, true gradients vanish, and what is computed is rounding noise: those
        of query and key on one position, and those of SqueezeAttention before a norm that gets the
        values of two channels at one pooled position.
        """
        tiny = positions < 5 if self.block == "SqueezeAttention" else False
        gradients = [
            (errors.dx, None if tiny else self.dx),
            (errors.layers, None if tiny or positions < 2 else self.layers),
        ]
        pairs = [(errors.output, self.output), *gradients]
        return any(most is not None and not error <= most for error, most in pairs)


BOUNDS = [
    Bound("CrissCross", "float32", 1e4, 1e-6, 2e-5, 1e-4),
    Bound("CrissCross", "float32", 6e4, 1e-6, 2e-5, 1e-2),
    Bound("CrissCross", "bfloat16", 6e4, 0.02, 0.5, 1.0),
    Bound("CrissCross", "float16", 3.0, 2e-3, 0.05, 0.2),
    Bound("CrissCross", "float16", 1e3, 2e-3, 0.1, None),
    Bound("NonLocal", "float32", 6e4, 1e-6, 1e-5, 2e-4),
    Bound("NonLocal", "bfloat16", 6e4, 0.02, 0.1, 2.0),
    Bound("NonLocal", "float16", 1e3, 2e-3, 0.01, 0.2),
    Bound("SqueezeAttention", "float32", 6e4, 5e-6, 1e-4, 1e-3),
    Bound("SqueezeAttention", "bfloat16", 6e4, 0.03, 0.3, None),
    Bound("SqueezeAttention", "float16", 1e4, 5e-3, 0.1, None),
    Bound("SqueezeExcitation", "float32", 6e4, 5e-6, 1e-4, 0.03),
    Bound("SqueezeExcitation", "bfloat16", 1e2, 0.01, 0.05, None),
    Bound("SqueezeExcitation", "bfloat16", 6e4, 0.1, None, None),
    Bound("SqueezeExcitation", "float16", 3e2, 3e-3, 0.02, None),
    Bound("SqueezeExcitation", "float16", 1e3, 5e-3, None, None),
]


def bound(block: str, dtype: str, scale: float) -> Bound | None:
    """Return the bound of a block at a scale, or None if there is none.

    Example:
        >>> bound("NonLocal", "float16", 10.0).output
        0.001
    """
    rows = (b for b in BOUNDS if (b.block, b.dtype) == (block, dtype) and scale <= b.scale)
    return next(rows, None)


def bounds_table() -> str:
    """Return the table of docs/OPS.md."""
    headers = ["block", "data type", "scale up to", "output", "dx", "layers"]
    rows = [[b.block, b.dtype, *("-" if x is None else f"{x:g}" for x in b[2:])] for b in BOUNDS]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def worse(a: float, b: float) -> float:
    """Return the larger one of two errors; NaN is larger than any number."""
    return a if a != a or a > b else b


def measure(
    spec: dict,
    size: tuple[int, ...],
    dtype: torch.dtype,
    scale: float,
    backend: str | None = None,
    autocast: bool = False,
    seed: int = 0,
    transform: Callable[[nn.Module], nn.Module] = lambda block: block,
    device: str = "cpu",
) -> Errors:
    """Return the errors of a block against float64.

    Args:
        spec: arguments of :func:`ccsa.blocks.build_block` without the number of channels.
        size: the spatial size S of the feature map (2, CHANNELS, *S).
        dtype: data type of weights and features, or of autocast.
        scale: the standard deviation of the features.
        backend: of criss-cross attention; by default the one that is chosen automatically.
        autocast: whether weights and features are float32, and ``dtype`` is that of autocast.
        seed: of the weights and the features.
        transform: what is done to the block before it is run, for instance torch.compile.
        device: on which the block runs; weights and features are drawn on the CPU.

    Example:
        >>> errors = measure({"name": "CrissCross"}, (5, 7), torch.float32, 1.0)
        >>> max(errors) < 1e-5
        True
    """
    torch.manual_seed(seed)
    dims = {"dims": len(size)} if spec["name"] in ("CrissCross", "NonLocal") else {}
    block = build_block(**{"channels": CHANNELS, **spec, **dims})
    nn.init.ones_(block.get_parameter("gamma"))
    x, grad = scale * torch.randn(2, CHANNELS, *size), torch.randn(2, CHANNELS, *size)
    block, x, grad = block.to(device), x.to(device), grad.to(device)
    if not autocast:
        block, x, grad = block.to(dtype), x.to(dtype), grad.to(dtype)
    exact = copy.deepcopy(block).double()
    with use_backend("reference"):
        expected = _results(exact, x.double(), grad.double())
    chosen = use_backend(backend) if backend else contextlib.nullcontext()
    with chosen, torch.autocast(x.device.type, dtype=dtype, enabled=autocast):
        got = _results(transform(block), x, grad)
    most = torch.finfo(x.dtype).max
    pairs = [(a.double(), b, b.abs() <= most) for a, b in zip(got, expected, strict=True)]
    overflow = any(not inside.all() for _, _, inside in pairs)
    differences = [((a - b)[inside], b[inside]) for a, b, inside in pairs]
    norms = [(float(d.norm()), float(b.norm())) for d, b in differences]
    least = NEGLIGIBLE * max((norm for _, norm in norms[2:]), default=0.0)
    output, dx = (_ratio(d, b) for d, b in norms[:2])
    layers = 0.0
    for difference, norm in norms[2:]:
        layers = worse(layers, _ratio(difference, max(norm, least)))
    return Errors(output, dx, layers, overflow)


def _results(block: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Return the output, the gradient of x, and the gradient of each layer and of gamma, flat."""
    x = x.detach().requires_grad_()
    y = block(x)
    y.backward(grad.to(y.dtype))
    layers: dict[str, list[Tensor]] = {}
    for name, weight in block.named_parameters():
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        layers.setdefault(name.rpartition(".")[0], []).append(gradient.flatten())
    return [y.detach(), x.grad, *map(torch.cat, layers.values())]


def _ratio(difference: float, norm: float) -> float:
    return difference / norm if norm else (0.0 if difference == 0 else float("inf"))


def sweep(
    blocks: Iterable[str],
    dtypes: Iterable[str],
    scales: list[float],
    sizes: Iterable[tuple[int, ...]] = SIZES,
    backends: Iterable[str] = tuple(BACKENDS),
    device: str = "cpu",
) -> Iterator[tuple[str, str, str, list[Errors | None]]]:
    """Yield (block, dtype, backend, largest errors per scale).

    The errors are None where the dtype cannot hold the features. Blocks without backends have the
    backend ``-``; those without a 3D form leave out 3D sizes.
    """
    for name, dtype in itertools.product(blocks, dtypes):
        spec = BLOCKS[name]
        for backend in backends if spec["name"] == "CrissCross" else ["-"]:
            row: list[Errors | None] = []
            for scale in scales:
                if 5 * scale > torch.finfo(DTYPES[dtype]).max:
                    row.append(None)
                    continue
                errors = Errors(0.0, 0.0, 0.0)
                for size in sizes:
                    if len(size) == 2 or spec["name"] in ("CrissCross", "NonLocal"):
                        chosen = None if backend == "-" else backend
                        found = measure(spec, size, DTYPES[dtype], scale, chosen, device=device)
                        errors = errors.largest(found)
                row.append(errors)
            yield name, dtype, backend, row


def _cell(errors: Errors | None) -> str:
    if errors is None:
        return "-"
    text = " / ".join(f"{error:.0e}".replace("e-0", "e-") for error in errors[:3])
    return text + (" *" if errors.overflow else "")


def parse_args() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", nargs="+", choices=list(BLOCKS), default=list(BLOCKS))
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--scales", nargs="+", type=float, default=SCALES)
    backends = [*BACKENDS, "triton"]
    parser.add_argument("--backends", nargs="+", choices=backends, default=BACKENDS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="default: cpu")
    parser.add_argument("--small", action="store_true", help="only sizes of up to 60 positions")
    parser.add_argument("--bounds", action="store_true", help="print the bounds only")
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    if args.bounds:
        return print(bounds_table())
    logging.disable(logging.WARNING)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; omit the option")
    if "triton" in args.backends and args.device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")
    sizes = [size for size in SIZES if torch.Size(size).numel() <= 60 or not args.small]
    rows = [
        [name, dtype, backend, *map(_cell, row)]
        for name, dtype, backend, row in sweep(
            args.blocks, args.dtypes, args.scales, sizes, args.backends, args.device
        )
    ]
    headers = ["block", "data type", "backend", *(f"{scale:g}" for scale in args.scales)]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    print("\noutput / dx / layers; * the true values exceed the range of the data type")


if __name__ == "__main__":
    main()
