"""Criss-cross attention on GPUs: how the kernels of ``triton_kernels`` are launched.

Forward is one launch per axis; each goes on from the output and log-sum-exp of the axes before, so
that neither weights nor a second output exist. Between two axes the output rests in value's type.
Backward forms dP = dO . V once per pair of positions and takes dQ and dK from it, dQ in parts that
are summed in a fixed order. Where lines are so long that the parts would take more memory than a
float32 value, dQ gets launches of its own instead.

Channels must be dense in memory. Channels-last maps and slices of them are read where they are; any
others are copied once: a column of a map with dense rows fetches 16 times the bytes that it uses.

The operators exist without Triton, which is imported when one is first called.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccsa.ops.criss_cross.layout import like
from ccsa.ops.criss_cross.tiles import Tiles, score_tiles, value_tiles


def triton_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, Ck, *S), (B, Ck, *S), (B, Cv, *S) -> (B, Cv, *S)."""
    return _forward(query, key, value)[0]


@torch.library.custom_op("ccsa::criss_cross_triton_forward", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, Cv, *S) and log-sum-exp (B, *S), float32, of the scores over each cross."""
    q, k, v = _dense(query), _dense(key), _dense(value)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    with _launching(q) as kernels:
        for line in _lines(v):
            tiles = value_tiles(q.dtype, line.length, q.shape[-1], v.shape[-1])
            # Several programs read the log-sum-exp that one of them replaces.
            after = lse if line.first else torch.empty_like(lse)
            kernels.attend[line.grid(tiles.X, v.shape[-1], tiles.V)](
                q, k, v, out, lse, after, *line.strides(q, k, v, out, lse),
                *line.sizes(kernels), q.shape[-1], v.shape[-1], line.first, **_options(tiles),
            )  # fmt: skip
            lse = after
    return like(_as(query, out), value), _as(query, lse)


@torch.library.custom_op("ccsa::criss_cross_triton_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    if not len(query):
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    g, q, k, v, o = _dense(grad), _dense(query), _dense(key), _dense(value), _dense(out)
    lse = lse.reshape(q.shape[:-1])
    with _launching(q) as kernels:
        dv = _value_gradient(kernels, g, q, k, v, lse)
        delta = _output_products(kernels, g, o)
        dq, dk = _score_gradients(kernels, g, q, k, v, lse, delta)
    return like(_as(query, dq), query), like(_as(key, dk), key), like(_as(value, dv), value)


def _value_gradient(
    kernels: Any, g: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor
) -> Tensor:
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    for line in _lines(v):
        tiles = value_tiles(q.dtype, line.length, q.shape[-1], v.shape[-1])
        kernels.value_gradient[line.grid(tiles.X, v.shape[-1], tiles.V)](
            q, k, g, lse, dv, *line.strides(q, k, g, dv, lse),
            *line.sizes(kernels), q.shape[-1], v.shape[-1], line.first, **_options(tiles),
        )  # fmt: skip
    return dv


def _output_products(kernels: Any, g: Tensor, o: Tensor) -> Tensor:
    """sum_c dO_c O_c, (B, T, H, W) float32."""
    delta = torch.empty(g.shape[:-1], dtype=torch.float32, device=g.device)
    line = next(_lines(g))
    tiles = value_tiles(g.dtype, line.length, 1, g.shape[-1])
    x = min(32, tiles.X)  # nothing is read twice: small tiles occupy more of the device
    kernels.output_products[line.grid(x)](
        g, o, delta, *line.strides(g, o, delta), *line.sizes(kernels), g.shape[-1], x, tiles.V
    )
    return delta


def _score_gradients(
    kernels: Any, g: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor]:
    """dQ and dK, (B, T, H, W, Ck) float32."""
    lines = [
        (line, score_tiles(q.dtype, line.length, q.shape[-1], v.shape[-1])) for line in _lines(v)
    ]
    widths = [math.ceil(line.length / tiles.X) for line, tiles in lines]
    parts = max(widths)
    both = parts == 1 or parts * q.shape[-1] <= v.shape[-1]
    parts = parts if both else 1
    dq = torch.empty((parts, *q.shape), dtype=torch.float32, device=q.device)
    dk = torch.empty(q.shape, dtype=torch.float32, device=q.device)
    written = 0  # parts of dQ that hold a sum
    for (line, tiles), width in zip(lines, widths, strict=True):
        launch = kernels.score_gradient[line.grid(tiles.X, q.shape[-1], tiles.K)]
        common = (*line.sizes(kernels), dq.stride(0), written, q.shape[-1], v.shape[-1])
        launch(
            k, q, v, g, lse, delta, dk, dq, *line.strides(k, q, v, g, dk, lse),
            *common, False, both, line.first, **_options(tiles),
        )  # fmt: skip
        if not both:
            launch(
                q, k, g, v, lse, delta, dq, dq, *line.strides(q, k, g, v, dk, lse),
                *common, True, False, line.first, **_options(tiles),
            )  # fmt: skip
        written = max(written, width)
    return dq[0] if parts == 1 else dq.sum(0), dk


@_forward.register_fake
def _(query, key, value):
    size = query.shape[:1] + query.shape[2:]
    return torch.empty_like(value), query.new_empty(size, dtype=torch.float32)


@_backward.register_fake
def _(grad, query, key, value, out, lse):
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad, _):
    return _backward(grad, *ctx.saved_tensors)


_forward.register_autograd(_differentiate, setup_context=_keep)


class _Line(NamedTuple):
    """The lines along one axis of (B, T, H, W, ...) maps."""

    axis: int
    size: tuple[int, ...]  # B, T, H, W
    first: bool

    @property
    def length(self) -> int:
        return self.size[self.axis]

    @property
    def rest(self) -> list[int]:
        return [i for i in (1, 2, 3) if i != self.axis]

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(self.size[i] for i in self.rest)

    def sizes(self, kernels: Any) -> tuple[Any, Any]:
        return self.others, kernels.loop_bound(self.length)

    def strides(self, *maps: Tensor) -> list[tuple[int, ...]]:
        return [tuple(x.stride(i) for i in (0, *self.rest, self.axis)) for x in maps]

    def grid(self, x: int, channels: int = 1, tile: int = 1) -> tuple[int]:
        """One program per line, tile of x positions and tile of channels."""
        lines = self.size[0] * math.prod(self.others)
        return (lines * math.ceil(self.length / x) * math.ceil(channels / tile),)


def _lines(x: Tensor) -> Iterator[_Line]:
    """The last axis first, as it has the own position; then the others that see anything else."""
    size = tuple(x.shape[:4])
    if size[0]:
        yield _Line(3, size, True)
        yield from (_Line(axis, size, False) for axis in (2, 1) if size[axis] > 1)


def _options(tiles: Tiles) -> dict[str, Any]:
    """The keywords of a launch; float32 is exact unless PyTorch's matrix products use TF32 too."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # from torch 2.9 on; mixed with the older, that raises
        tf32 = matmul.fp32_precision == "tf32"
    else:
        tf32 = matmul.allow_tf32
    return {
        **{name: getattr(tiles, name) for name in "XYKV"},
        "PRECISION": "tf32" if tf32 else "ieee",
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


@contextlib.contextmanager
def _launching(x: Tensor) -> Iterator[Any]:
    """The kernels, with x's device current."""
    from ccsa.ops.criss_cross import triton_kernels

    with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
        yield triton_kernels


def _dense(x: Tensor) -> Tensor:
    """(B, C, *S) as (B, T, H, W, C) with neighbouring channels: a view where they are."""
    while x.dim() < 5:
        x = x.unsqueeze(2)
    x = x.movedim(1, -1)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _as(template: Tensor, x: Tensor) -> Tensor:
    """(B, T, H, W, ...) with the spatial axes of ``template``, (B, C, *S)."""
    return x.reshape(template.shape[:1] + template.shape[2:] + x.shape[4:])
