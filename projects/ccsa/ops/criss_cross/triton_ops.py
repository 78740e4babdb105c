"""The ``triton`` backend: launches of the kernels in ``triton_kernels``.

Forward is one launch per axis. Each launch continues from the output and the log-sum-exp of the
axes before, so that neither weights nor a second output exist; between two axes the output is
stored in the dtype of value. Backward forms dP = dO . v once per pair of positions and computes dQ
and dK from it, dQ in parts that are summed in a fixed order. If an axis is so long that these parts
would take more memory than value in float32, dQ gets launches of its own instead.

Channels must be dense in memory. Channels-last tensors and slices of their channels are read where
they are; any others are copied once, because reading a column of a tensor with dense rows fetches
16 times as many bytes as it uses.

The operators are registered without Triton, which is imported when one of them is first called.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccsa.ops.criss_cross.layout import to_layout_of
from ccsa.ops.criss_cross.precision import HALF, cannot_resolve, score_dtype
from ccsa.ops.criss_cross.tiled import float64_gradients, no_second_derivative
from ccsa.ops.criss_cross.tiles import Tiles, score_tiles, value_tiles


def triton_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the output (B, Cv, *S) of query and key (B, Ck, *S) and value (B, Cv, *S)."""
    return _forward(query, key, value)[0]


@torch.library.custom_op("ccsa::criss_cross_triton_forward", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output (B, Cv, *S) and the log-sum-exp (B, *S) of the scores over each cross, of
    at least float32."""
    q, k, v = _dense_channels(query), _dense_channels(key), _dense_channels(value)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    lse = torch.empty(q.shape[:-1], dtype=score_dtype(q.dtype), device=q.device)
    with _launching(q) as kernels:
        for axis in _axes(v):
            tiles = value_tiles(q.dtype, axis.length, q.shape[-1], v.shape[-1])
            # Several programs read the log-sum-exp that one of them replaces.
            lse_out = lse if axis.first else torch.empty_like(lse)
            kernels.attention_forward[axis.grid(tiles.BLOCK_M, v.shape[-1], tiles.BLOCK_V)](
                q, k, v, out, lse, lse_out, *axis.strides(q, k, v, out, lse),
                *axis.sizes(kernels), q.shape[-1], v.shape[-1], axis.first, **_options(tiles),
            )  # fmt: skip
            lse = lse_out
    return to_layout_of(_with_spatial_size_of(query, out), value), _with_spatial_size_of(query, lse)


@torch.library.custom_op("ccsa::criss_cross_triton_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    if not len(query):
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    # On a GPU, a look at the values waits for the device: half precision relies on the warning.
    if (query.dtype == torch.float32 or query.device.type == "cpu") and cannot_resolve(lse):
        return float64_gradients(grad, query, key, value)
    do, q, k, v, o = (_dense_channels(x) for x in (grad, query, key, value, out))
    lse = lse.reshape(q.shape[:-1])
    with _launching(q) as kernels:
        dv = _value_gradient(kernels, do, q, k, v, lse)
        delta = _delta(kernels, do, o)
        dq, dk = _query_key_gradients(kernels, do, q, k, v, lse, delta)
    gradients = ((dq, query), (dk, key), (dv, value))
    dq, dk, dv = (to_layout_of(_with_spatial_size_of(x, dx), x) for dx, x in gradients)
    return dq, dk, dv


def _value_gradient(
    kernels: Any, do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor
) -> Tensor:
    """Return dV (B, T, H, W, Cv) in the dtype of value."""
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    for axis in _axes(v):
        tiles = value_tiles(q.dtype, axis.length, q.shape[-1], v.shape[-1])
        kernels.value_gradient[axis.grid(tiles.BLOCK_M, v.shape[-1], tiles.BLOCK_V)](
            q, k, do, lse, dv, *axis.strides(q, k, do, dv, lse),
            *axis.sizes(kernels), q.shape[-1], v.shape[-1], axis.first, **_options(tiles),
        )  # fmt: skip
    return dv


def _delta(kernels: Any, do: Tensor, o: Tensor) -> Tensor:
    """Return delta (B, T, H, W) of at least float32, the sum of dO * O over the channels."""
    delta = torch.empty(do.shape[:-1], dtype=score_dtype(do.dtype), device=do.device)
    axis = next(_axes(do))
    tiles = value_tiles(do.dtype, axis.length, 1, do.shape[-1])
    block_m = min(32, tiles.BLOCK_M)  # nothing is read twice: small tiles use more of the device
    kernels.compute_delta[axis.grid(block_m)](
        do, o, delta, *axis.strides(do, o, delta), *axis.sizes(kernels), do.shape[-1], block_m,
        tiles.BLOCK_V,
    )  # fmt: skip
    return delta


def _query_key_gradients(
    kernels: Any, do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor
) -> tuple[Tensor, Tensor]:
    """Return dQ and dK (B, T, H, W, Ck) of at least float32."""
    channels = q.shape[-1]
    do, q, k, v = (_aligned(x) for x in (do, q, k, v))
    axes = [
        (axis, score_tiles(q.dtype, axis.length, q.shape[-1], v.shape[-1])) for axis in _axes(v)
    ]
    tiles_per_row = [math.ceil(axis.length / tiles.BLOCK_M) for axis, tiles in axes]
    parts = max(tiles_per_row)
    both = parts == 1 or parts * q.shape[-1] <= v.shape[-1]
    parts = parts if both else 1
    dq = torch.empty((parts, *q.shape), dtype=lse.dtype, device=q.device)
    dk = torch.empty(q.shape, dtype=lse.dtype, device=q.device)
    written = 0  # number of parts of dQ that contain a sum
    for (axis, tiles), row_tiles in zip(axes, tiles_per_row, strict=True):
        launch = kernels.query_key_gradient[axis.grid(tiles.BLOCK_M, q.shape[-1], tiles.BLOCK_K)]
        common = (*axis.sizes(kernels), dq.stride(0), written, q.shape[-1], v.shape[-1])
        launch(
            k, q, v, do, lse, delta, dk, dq, *axis.strides(k, q, v, do, dk, lse),
            *common, False, both, axis.first, **_options(tiles),
        )  # fmt: skip
        if not both:
            launch(
                q, k, do, v, lse, delta, dq, dq, *axis.strides(q, k, do, v, dk, lse),
                *common, True, False, axis.first, **_options(tiles),
            )  # fmt: skip
        written = max(written, row_tiles)
    dq = dq[0] if parts == 1 else dq.sum(0)
    return dq[..., :channels], dk[..., :channels]


@_forward.register_fake
def _(query, key, value):
    size = query.shape[:1] + query.shape[2:]
    return torch.empty_like(value), query.new_empty(size, dtype=score_dtype(query.dtype))


@_backward.register_fake
def _(grad, query, key, value, out, lse):
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad, _):
    return _backward(grad, *ctx.saved_tensors)


_backward.register_autograd(no_second_derivative)
_forward.register_autograd(_differentiate, setup_context=_setup_context)


class _Axis(NamedTuple):
    """The rows along one axis of tensors (B, T, H, W, ...)."""

    dim: int
    size: tuple[int, ...]  # B, T, H, W
    first: bool

    @property
    def length(self) -> int:
        """Return the size of the axis."""
        return self.size[self.dim]

    @property
    def others(self) -> list[int]:
        """Return the two other spatial axes."""
        return [i for i in (1, 2, 3) if i != self.dim]

    def sizes(self, kernels: Any) -> tuple[Any, Any]:
        """Return the kernel arguments ``others`` and ``length``."""
        return tuple(self.size[i] for i in self.others), kernels.loop_bound(self.length)

    def strides(self, *tensors: Tensor) -> list[tuple[int, ...]]:
        """Return the kernel arguments ``*_strides``."""
        dims = (0, *self.others, self.dim)
        # An axis of one position is never stepped along, and its stride may be any number.
        return [tuple(x.stride(i) if x.shape[i] > 1 else 0 for i in dims) for x in tensors]

    def grid(self, block_m: int, channels: int = 1, block_d: int = 1) -> tuple[int]:
        """Return the grid: one program per row, tile of positions and tile of channels."""
        rows = self.size[0] * math.prod(self.size[i] for i in self.others)
        return (rows * math.ceil(self.length / block_m) * math.ceil(channels / block_d),)


def _axes(x: Tensor) -> Iterator[_Axis]:
    """Yield the last axis, which contains the own position, then the others of more than one
    position."""
    size = tuple(x.shape[:4])
    if size[0]:
        yield _Axis(3, size, True)
        yield from (_Axis(dim, size, False) for dim in (2, 1) if size[dim] > 1)


def _options(tiles: Tiles) -> dict[str, Any]:
    """Return the keywords of a launch; float32 is exact unless PyTorch's matmuls use TF32."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # from torch 2.9 on; mixing both settings raises
        tf32 = matmul.fp32_precision == "tf32"
    else:
        tf32 = matmul.allow_tf32
    return {**tiles._asdict(), "PRECISION": "tf32" if tf32 else "ieee"}


@contextlib.contextmanager
def _launching(x: Tensor) -> Iterator[Any]:
    """Make the device of ``x`` current, and yield the module of the kernels."""
    from ccsa.ops.criss_cross import triton_kernels

    with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
        yield triton_kernels


def _dense_channels(x: Tensor) -> Tensor:
    """Return (B, C, *S) as (B, T, H, W, C) with dense channels: a view if they are dense."""
    while x.dim() < 5:
        x = x.unsqueeze(2)
    x = x.movedim(1, -1)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _aligned(x: Tensor) -> Tensor:
    """Return (B, T, H, W, C) in half precision with positions that start at multiples of 16
    elements: x, or a copy whose channels are padded with zeros.

    Triton 3.6 compiles wrong programs for the gradients of query and key if tensor cores of
    compute capability 9.0 get operands that are not loaded asynchronously, which takes that
    alignment: gradients were wrong by 90 %, or memory out of bounds was read (measured on an H200
    with Ck = 20, Cv = 72). The other kernels are right at any alignment.
    """
    *size, channels = x.shape
    steps = [stride for stride, n in zip(x.stride(), size, strict=False) if n > 1]
    if x.dtype not in HALF or not any(n % 16 for n in (channels, x.data_ptr() // 2, *steps)):
        return x
    padded = x.new_zeros(*size, channels + -channels % 16)
    padded[..., :channels] = x
    return padded


def _with_spatial_size_of(template: Tensor, x: Tensor) -> Tensor:
    """Return (B, T, H, W, ...) with the spatial axes of ``template``, which is (B, C, *S)."""
    return x.reshape(template.shape[:1] + template.shape[2:] + x.shape[4:])
