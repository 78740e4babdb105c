"""The peers of the comparison: the official algorithm, mmcv's module and the non-local block."""

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.blocks import CrissCross
from ccsa.errors import UserError


def official_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute criss-cross attention as the official code's Python version does, for any number of
    axes: permuted copies of query, key and value for every axis, and one concatenated softmax.

    Args:
        query: (B, Ck, *S).
        key: (B, Ck, *S).
        value: (B, Cv, *S).

    Returns:
        (B, Cv, *S).
    """
    batch, _, *size = query.shape
    axes = range(len(size))
    scores = []
    for axis in axes:
        length = size[axis]
        energy = torch.bmm(_rows(query, axis).mT, _rows(key, axis))
        if axis != axes[-1]:
            diagonal = torch.diag(torch.full((length,), torch.inf, device=query.device))
            energy = energy - diagonal.to(energy.dtype).repeat(len(energy), 1, 1)
        scores.append(_from_rows(energy.mT, axis, batch, size).movedim(1, -1))
    weights = F.softmax(torch.cat(scores, -1), -1).split(size, -1)
    out: Any = 0
    for axis in axes:
        along = weights[axis].movedim(axis + 1, -2).contiguous().view(-1, size[axis], size[axis])
        out = out + _from_rows(torch.bmm(_rows(value, axis), along.mT), axis, batch, size)
    return out


def _rows(x: Tensor, axis: int) -> Tensor:
    """Return (B, C, *S) as (rows, C, L), a copy."""
    x = x.movedim(axis + 2, -1).movedim(1, -2).contiguous()
    return x.view(-1, *x.shape[-2:])


def _from_rows(x: Tensor, axis: int, batch: int, size: list[int]) -> Tensor:
    """Return (rows, C, L) as (B, C, *S), a view."""
    others = [n for i, n in enumerate(size) if i != axis]
    return x.unflatten(0, (batch, *others)).movedim(-2, 1).movedim(-1, axis + 2)


class OfficialBlock(nn.Module):
    """The official block around :func:`official_attention`, with the weights of a CrissCross."""

    def __init__(self, block: CrissCross):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        for _ in range(block.recurrence):
            out = official_attention(block.query_conv(x), block.key_conv(x), block.value_conv(x))
            x = block.gamma * out + x
        return x


@cache
def mmcv_class() -> type[nn.Module]:
    """Return mmcv's CrissCrossAttention (2D), imported from its file, because the rest of
    ``mmcv.ops`` needs compiled code.

    Raises:
        UserError: mmcv-lite is not installed or incomplete.
    """
    try:
        distribution = importlib.metadata.distribution("mmcv-lite")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "The comparison with mmcv's criss-cross attention needs the package mmcv-lite, which "
            "is not installed: run pip install mmcv-lite==2.1.0"
        ) from error
    path = Path(str(distribution.locate_file("mmcv/ops/cc_attention.py")))
    spec = importlib.util.spec_from_file_location("mmcv_cc_attention", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(
            f"mmcv-lite has no file {path}: run pip install --force-reinstall mmcv-lite==2.1.0"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CrissCrossAttention


class MmcvBlock(nn.Module):
    """mmcv's block with the weights and the recurrence of a CrissCross.

    In half precision it runs under autocast, because its diagonal is float32.
    """

    def __init__(self, block: CrissCross):
        super().__init__()
        self.recurrence = block.recurrence
        self.block = mmcv_class()(block.value_conv.in_channels).to(block.gamma)
        state = block.state_dict()
        state["gamma.scale"] = state.pop("gamma").reshape(())
        self.block.load_state_dict(state)

    def forward(self, x: Tensor) -> Tensor:
        with _half_precision_autocast(x):
            for _ in range(self.recurrence):
                x = self.block(x).to(x.dtype)
        return x


def _half_precision_autocast(x: Tensor) -> torch.autocast:
    """Return autocast to the dtype of x if that is half precision, otherwise a no-op."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(x.device.type, x.dtype if half else None, enabled=half)


class _SizeOnly:
    """Replaces the input of mmcv's block, which reads its size and adds it to the result."""

    def __init__(self, size: torch.Size):
        self.size = lambda: size

    def __radd__(self, other: Tensor) -> Tensor:
        return other


def mmcv_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute mmcv's attention, without projections and gate.

    Args:
        query: (B, Ck, H, W).
        key: (B, Ck, H, W).
        value: (B, Cv, H, W).

    Returns:
        (B, Cv, H, W).
    """
    block: Any = _mmcv_attention_only()
    convs = (block.query_conv, block.key_conv, block.value_conv)
    for conv, result in zip(convs, (query, key, value), strict=True):
        conv.result = result
    with _half_precision_autocast(value):
        out = block(_SizeOnly(value.shape)).to(value.dtype)
    for conv in convs:
        conv.result = None
    return out


class _FixedOutput(nn.Module):
    """Replaces a projection whose result is already known."""

    result: Tensor | None = None

    def forward(self, _) -> Tensor | None:
        return self.result


@cache
def _mmcv_attention_only() -> nn.Module:
    """Return mmcv's block without projections and gate.

    It is built once, because building it takes longer than running it on a GPU.
    """
    block = mmcv_class()(8)
    block.query_conv, block.key_conv, block.value_conv = (
        _FixedOutput(),
        _FixedOutput(),
        _FixedOutput(),
    )
    block.gamma = nn.Identity()
    return block


def non_local_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute non-local attention with all weights in memory, without projections and gate.

    Args:
        query: (B, Ck, *S).
        key: (B, Ck, *S).
        value: (B, Cv, *S).

    Returns:
        (B, Cv, *S).
    """
    q, k, v = (x.flatten(2) for x in (query, key, value))
    weights = torch.softmax(torch.bmm(q.mT, k), -1)
    return torch.bmm(v, weights.mT).view_as(value)


class NonLocalPeer(nn.Module):
    """The non-local block of the paper's comparison: C // 8 channels of query and key, scaled by
    gamma, with the weights of a CrissCross."""

    def __init__(self, block: CrissCross):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        convs = (block.query_conv, block.key_conv, block.value_conv)
        return block.gamma * non_local_attention(*(conv(x) for conv in convs)) + x
