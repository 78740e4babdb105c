"""What ours is compared with: the official algorithm, mmcv's module and the non-local block."""

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccsa.blocks import CrissCross
from ccsa.errors import UserError


def official_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The algorithm of the official code's Python version, on maps of any number of axes: each of
    the three permuted and copied for every axis, batched products, one concatenated softmax.

    (B, Ck, *S), (B, Ck, *S), (B, Cv, *S) -> (B, Cv, *S).
    """
    batch, _, *size = query.shape
    axes = range(len(size))
    scores = []
    for axis in axes:
        length = size[axis]
        energy = torch.bmm(_lines(query, axis).mT, _lines(key, axis))
        if axis != axes[-1]:
            diagonal = torch.diag(torch.full((length,), torch.inf, device=query.device))
            energy = energy - diagonal.to(energy.dtype).repeat(len(energy), 1, 1)
        scores.append(_back(energy.mT, axis, batch, size).movedim(1, -1))
    weights = F.softmax(torch.cat(scores, -1), -1).split(size, -1)
    out = 0
    for axis in axes:
        along = weights[axis].movedim(axis + 1, -2).contiguous().view(-1, size[axis], size[axis])
        out = out + _back(torch.bmm(_lines(value, axis), along.mT), axis, batch, size)
    return out


def _lines(x: Tensor, axis: int) -> Tensor:
    """(B, C, *S) -> (lines, C, L), a copy."""
    x = x.movedim(axis + 2, -1).movedim(1, -2).contiguous()
    return x.view(-1, *x.shape[-2:])


def _back(x: Tensor, axis: int, batch: int, size: list[int]) -> Tensor:
    """(lines, C, L) -> (B, C, *S), a view."""
    others = [n for i, n in enumerate(size) if i != axis]
    return x.unflatten(0, (batch, *others)).movedim(-2, 1).movedim(-1, axis + 2)


class OfficialBlock(nn.Module):
    """The official block around :func:`official_attention`, with the weights of ours."""

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
    """mmcv's CrissCrossAttention (2D), from the one file that holds it: the rest of ``mmcv.ops``
    wants compiled code.

    Raises:
        UserError: mmcv-lite is not installed.
    """
    try:
        distribution = importlib.metadata.distribution("mmcv-lite")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "mmcv's criss-cross attention is compared with, and mmcv-lite is not installed: "
            "pip install mmcv-lite==2.1.0"
        ) from error
    path = Path(str(distribution.locate_file("mmcv/ops/cc_attention.py")))
    spec = importlib.util.spec_from_file_location("mmcv_cc_attention", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"mmcv-lite has no {path}: pip install --force-reinstall mmcv-lite==2.1.0")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CrissCrossAttention


class MmcvBlock(nn.Module):
    """mmcv's block with the weights of ours, applied as often; in half precision under autocast,
    as its diagonal is float32."""

    def __init__(self, block: CrissCross):
        super().__init__()
        self.recurrence = block.recurrence
        self.block = mmcv_class()(block.value_conv.in_channels).to(block.gamma)
        state = block.state_dict()
        state["gamma.scale"] = state.pop("gamma").reshape(())
        self.block.load_state_dict(state)

    def forward(self, x: Tensor) -> Tensor:
        with _half(x):
            for _ in range(self.recurrence):
                x = self.block(x).to(x.dtype)
        return x


def _half(x: Tensor) -> torch.autocast:
    """Autocast in x's type, if that is half precision."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(x.device.type, x.dtype if half else None, enabled=half)


class _Size:
    """Stands for a map of which a block wants the size, and to which it adds: what mmcv's forward
    does with its input apart from projecting it."""

    def __init__(self, size: torch.Size):
        self.size = lambda: size

    def __radd__(self, other: Tensor) -> Tensor:
        return other


def mmcv_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """mmcv's block between its projections and its gate: (B, Ck, H, W), (B, Ck, H, W),
    (B, Cv, H, W) -> (B, Cv, H, W)."""
    block = _bare_mmcv()
    convs = (block.query_conv, block.key_conv, block.value_conv)
    for conv, result in zip(convs, (query, key, value), strict=True):
        conv.result = result
    with _half(value):
        out = block(_Size(value.shape)).to(value.dtype)
    for conv in convs:
        conv.result = None
    return out


class _Given(nn.Module):
    """Stands for a projection whose result is there already."""

    result: Tensor | None = None

    def forward(self, _) -> Tensor | None:
        return self.result


@cache
def _bare_mmcv() -> nn.Module:
    """mmcv's block without projections and gate; built once, which takes longer than it runs on
    a GPU."""
    block = mmcv_class()(8)
    block.query_conv, block.key_conv, block.value_conv = _Given(), _Given(), _Given()
    block.gamma = nn.Identity()
    return block


def non_local_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The non-local block between its projections and its gate, all weights in memory:
    (B, Ck, *S), (B, Ck, *S), (B, Cv, *S) -> (B, Cv, *S)."""
    q, k, v = (x.flatten(2) for x in (query, key, value))
    weights = torch.softmax(torch.bmm(q.mT, k), -1)
    return torch.bmm(v, weights.mT).view_as(value)


class NonLocalPeer(nn.Module):
    """The non-local block that the paper compares with: C // 8 channels of query and key, gated by
    gamma, with the weights of a criss-cross block."""

    def __init__(self, block: CrissCross):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        convs = (block.query_conv, block.key_conv, block.value_conv)
        return block.gamma * non_local_attention(*(conv(x) for conv in convs)) + x
