"""Layouts of module outputs: how the output of a module becomes a feature map, and back.

Blocks work on feature maps (B, C, *spatial). Transformers return other layouts: tokens (B, N, C),
or channels-last feature maps (B, H, W, C). A :class:`Layout` converts between them with views; no
values change.

Glossary: B: images, C: channels, N: tokens, P: tokens before the first location of the feature map,
such as a class token or registers.
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccsa.errors import UserError, one_of, shown

LAYOUTS = ("nchw", "nhwc", "tokens")


class Layout(NamedTuple):
    """The layout of the output of a module.

    Attributes:
        name: ``nchw`` (B, C, *spatial), ``nhwc`` (B, *spatial, C), ``tokens`` (B, P + N, C), or
            empty if it was not stated, which means ``nchw``.
        grid: the sizes of the token grid, whose product is N; empty if N is a square.
        prefix: P, the number of tokens that precede the grid and pass unchanged.
    """

    name: str = ""
    grid: tuple[int, ...] = ()
    prefix: int = 0

    @property
    def channel_axis(self) -> int:
        """The axis of the channels: 1 or -1."""
        return 1 if self.name in ("", "nchw") else -1

    def separate(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the prefix tokens (B, P, C) or None, and the feature map (B, C, *spatial).

        Raises:
            UserError: x has another number of axes, or another number of tokens than the grid.
        """
        if self.name == "nhwc":
            if x.dim() < 4:
                raise UserError(
                    f"layout nhwc needs an output (B, H, W, C), not {tuple(x.shape)}"
                    + ("; for tokens (B, N, C) write 'layout: tokens'" if x.dim() == 3 else "")
                )
            return None, x.movedim(x.dim() - 1, 1)
        if self.name == "tokens":
            if x.dim() != 3:
                raise UserError(
                    f"layout tokens needs an output (B, N, C), not {tuple(x.shape)}"
                    + ("; for (B, H, W, C) write 'layout: nhwc'" if x.dim() > 3 else "")
                )
            prefix = x[:, : self.prefix] if self.prefix else None
            tokens = x[:, self.prefix :] if self.prefix else x
            grid = self.grid or square_grid(int(tokens.shape[1]))
            if math.prod(grid) != tokens.shape[1] or tokens.shape[1] < 1:
                raise UserError(self._wrong_grid(int(x.shape[1])))
            return prefix, tokens.transpose(1, 2).unflatten(2, grid)
        return None, x

    def merge(self, prefix: Tensor | None, y: Tensor) -> Tensor:
        """Return prefix tokens and feature map (B, C, *spatial) in this layout, contiguous if it
        is not ``nchw``, because the code that follows may call ``view``."""
        if self.name == "nhwc":
            return y.movedim(1, y.dim() - 1).contiguous()
        if self.name == "tokens":
            tokens = y.flatten(2).transpose(1, 2)
            if prefix is None:
                return tokens.contiguous()
            return torch.cat((prefix.to(tokens.dtype), tokens), 1)
        return y

    def _wrong_grid(self, count: int) -> str:
        """Return the message for ``count`` tokens (P + N) that do not form the grid."""
        before = f"{self.prefix} + " if self.prefix else ""
        if self.grid:
            shape, needed = " * ".join(map(str, self.grid)), math.prod(self.grid)
            return (
                f"it returns {count} tokens, but 'grid: {list(self.grid)}' needs {before}{shape} = "
                f"{self.prefix + needed}; correct 'grid', or 'prefix', the number of tokens "
                "before the grid, such as class tokens"
            )
        return (
            f"it returns {count} tokens, which are not {before}a square: {token_hint(count)} "
            "(prefix: the number of tokens before the grid, such as class tokens)"
        )


def parse_layout(keywords: dict[str, Any], spec: Any, own: Collection[str] = ()) -> Layout:
    """Remove ``layout``, ``grid`` and ``prefix`` from the keys of a block entry.

    Args:
        keywords: the keys of the entry; changed in place.
        spec: the complete entry, for messages.
        own: keywords of the block itself. Without ``layout: tokens``, its ``grid`` and ``prefix``
            are left in ``keywords``.

    Raises:
        UserError: an unknown layout, an invalid value, or ``grid`` or ``prefix`` without
            ``layout: tokens``.

    Example:
        >>> parse_layout({"layout": "tokens", "prefix": 1}, {})
        Layout(name='tokens', grid=(), prefix=1)
    """
    name = keywords.pop("layout") if "layout" in keywords else ""
    if name != "":
        one_of(LAYOUTS, name, "layout")
    if name != "tokens":
        for key in ("grid", "prefix"):
            if key in keywords and key not in own:
                raise UserError(f"'{key}' needs 'layout: tokens': {spec!r}")
        return Layout(name)
    grid, prefix = keywords.pop("grid", None), keywords.pop("prefix", 0)
    if grid is not None and not (
        isinstance(grid, list | tuple) and len(grid) in (2, 3) and all(map(_is_positive, grid))
    ):
        raise UserError(
            f"'grid' must be [height, width] in tokens, not {shown(grid)}: {shown(spec)}"
        )
    if not _is_positive(prefix) and (prefix != 0 or isinstance(prefix, bool)):
        raise UserError(f"'prefix' must be a number of tokens, not {shown(prefix)}: {shown(spec)}")
    return Layout(name, tuple(grid or ()), prefix)


def square_grid(count: int) -> tuple[int, int]:
    """Return the largest square grid of at most ``count`` tokens."""
    side = math.isqrt(max(count, 0))
    return side, side


def token_hint(count: int) -> str:
    """Return which keys describe ``count`` tokens, as advice.

    Example:
        >>> token_hint(197)
        "add 'prefix: 1', if 197 is 1 + 14 * 14, or 'grid: [h, w]'"
    """
    side = math.isqrt(max(count, 0))
    before = count - side * side
    if side and 0 < before <= 16:
        return (
            f"add 'prefix: {before}', if {count} is {before} + {side} * {side}, or 'grid: [h, w]'"
        )
    return "add 'grid: [h, w]'"


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
